"""The command line: ``fastguard``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line, or says what to install."""
    try:
        from mcp_fastguard.cli.commands import app  # noqa: PLC0415 - typer is an extra
    except ModuleNotFoundError as error:
        sys.exit(f"fastguard: {error.name} is missing: pip install 'mcp-fastguard[cli]'")
    app()
