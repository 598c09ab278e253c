"""Room 6: execute. Runs the tool in its own process and task; isolation of risky tools comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["run"]

T = TypeVar("T")


def run(tool: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """Runs the tool. Its own error is its own."""
    return tool()
