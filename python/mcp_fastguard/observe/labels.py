"""Labels of tools, which no caller can make: their number is bounded by the configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_fastguard.config import GuardConfig
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.observe.decision import Decision

__all__ = ["MAX_TOOLS", "OTHER", "ToolLabels"]

#: The label of every tool that has none of its own.
OTHER: Final = "other"

#: Tools with a label of their own. With the dozen codes that a refusal of a verified caller can have, a few thousand series.
MAX_TOOLS: Final = 200


class ToolLabels:
    """Gives tools their labels.

    A tool has its name as label where a rule, in the configuration or beside its code, names it exactly, or where ``tools`` does.
    One that only a pattern names (``list_*``) has the pattern: a caller could invent names of it without end. All others, and
    those beyond ``max_tools``, are ``"other"``.

    Args:
        guard: whose rules count; they are read again after a reload.
        tools: names that have a label in any case, and come first.
        max_tools: how many labels there are beside ``"other"``, default 200.

    Raises:
        ValueError: ``max_tools`` is negative.
    """

    def __init__(self, guard: Guard, tools: Iterable[str] = (), max_tools: int = MAX_TOOLS) -> None:
        if max_tools < 0:
            message = f"max_tools must not be negative, and is {max_tools}"
            raise ValueError(message)
        self._guard = guard
        self._tools = tuple(tools)
        self._max_tools = max_tools
        self._read: tuple[GuardConfig, int] | None = None
        self._labels: dict[str, str] = {}

    def of(self, decision: Decision) -> str:
        """The label of a decision's tool; empty where it is about none, or none is known."""
        tool = decision.tool
        if tool is None:
            return ""
        self._refresh()
        exact = self._labels.get(tool)
        if exact is not None:
            return exact
        # The gate says which rule speaks of it: the configuration's comes first.
        rule = next(iter(self._guard.gate.rule_keys("tool", tool)), "")
        return self._labels.get(rule.removeprefix('tools."').removesuffix('"'), OTHER)

    def _refresh(self) -> None:
        guard = self._guard
        if self._read is not None and self._read[0] is guard.config and self._read[1] == len(guard.ruled_tools):
            return
        read = (guard.config, len(guard.ruled_tools))
        ruled = [*json.loads(guard.gate.config_json())["tools"], *sorted(guard.ruled_tools)]
        exact = [name for name in ruled if "*" not in name]
        ordered = list(dict.fromkeys([*self._tools, *exact, *(name for name in ruled if "*" in name)]))
        self._labels = {name: name if place < self._max_tools else OTHER for place, name in enumerate(ordered)}
        self._read = read
