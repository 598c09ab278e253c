"""How the commands speak: to standard output, and to standard error where something failed."""

from __future__ import annotations

import typer
from rich.console import Console

__all__ = ["console", "errors", "fail"]

console = Console()
errors = Console(stderr=True)


def fail(message: object) -> typer.Exit:
    """Says what failed. To be raised."""
    errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(1)
