"""Names as TOML writes them: those of tools and clients come from elsewhere, and may be anything."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["printable", "toml_key", "toml_text"]

#: What TOML allows as a key without quotes.
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def printable(text: str) -> str:
    """A text without characters that would end a comment."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)


def toml_key(name: str) -> str:
    """A name as a TOML key."""
    return name if _BARE_KEY.fullmatch(name) else toml_text(name)


def toml_text(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"'}.get(character, character) if character.isprintable() else f"\\U{ord(character):08x}"
        for character in text
    )
    return f'"{escaped}"'
