"""Room 8: audit. The log itself is the core's; here is what only Python can know: results and forks."""

from __future__ import annotations

import json
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mcp_fastguard.guard import Guard

__all__ = ["Summary", "keep_through_fork", "record_schema", "summary"]

_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


class Summary(NamedTuple):
    """Counts and sizes of a result; never its data."""

    items: int | None = None
    bytes: int | None = None
    is_error: bool = False


def summary(result: Any) -> Summary:
    """Sums up the result of a tool, prompt or resource: the wire's dict, or an object with ``content``."""
    if result is None:
        return Summary()
    members = result if isinstance(result, dict) else _Attributes(result)
    content = members.get("content") or members.get("contents") or members.get("messages")
    is_error = bool(members.get("isError") or members.get("is_error"))
    if not isinstance(content, list | tuple):
        return Summary(is_error=is_error)
    return Summary(items=len(content), bytes=sum(map(_size, content)), is_error=is_error)


class _Attributes:
    """Attributes, read as a dict is."""

    def __init__(self, value: object) -> None:
        self._value = value

    def get(self, name: str) -> Any:
        return getattr(self._value, name, None)


def _size(block: Any) -> int:
    members = block if isinstance(block, dict) else _Attributes(block)
    for name in ("text", "data", "blob"):
        value = members.get(name)
        if isinstance(value, str):
            return len(value) if value.isascii() else len(value.encode())
    return 0


def record_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every record of the log."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("audit.schema.json").read_text(encoding="utf-8"))
    return schema


def keep_through_fork(guard: Guard) -> None:
    """Has the guard's log begun anew in every child process."""
    _guards.add(guard)


def _after_fork_in_child() -> None:
    for guard in list(_guards):
        guard.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
