"""How commands take public keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["KeyOption", "key_text"]

KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        help="The public key of the log, or the file that holds it; learned from elsewhere.",
    ),
]


def key_text(given: str) -> str:
    """A key as signed notes name it, ``NAME+ID+BASE64``, or what a file of that name holds."""
    return Path(given).read_text(encoding="ascii").strip() if Path(given).is_file() else given
