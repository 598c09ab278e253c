"""Room 7: mask. No rule asks for masking yet, so results pass as they are."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["apply"]

T = TypeVar("T")


def apply(result: T) -> T:
    """Gives the result that the caller may see."""
    return result
