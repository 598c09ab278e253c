"""How every rule of the limits stands for a call that is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mcp_fastguard.cli.unlogged import unlogged
from mcp_fastguard.errors import Denied, GuardConfigError, GuardError

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import ToolRequest
    from mcp_fastguard.config import GuardConfig
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.limits import AppliedLimit

__all__ = ["Standing", "standings"]


class Standing(NamedTuple):
    """One rule, in words."""

    rule: str
    #: Of whom and what.
    of: str
    left: str
    room: str
    has_room: bool
    #: Whether it is the one that refuses the call, or else leaves the least.
    decides: bool


async def standings(config: GuardConfig, guard: Guard, request: ToolRequest) -> list[Standing]:
    """Every rule that counts the call; none where a room before the limits refuses it.

    Args:
        config: the file's.
        guard: one with windows of its own, which nobody else has charged.
        request: the call.
    """
    try:
        found = await guard.limits_of(request)
        if "state" in config.tables:
            found = await _shared(config, request) or [limit._replace(remaining=None) for limit in found]
    except GuardError:
        return []
    deciding = _deciding(found)
    return [_in_words(limit, decides=limit is deciding) for limit in found]


async def _shared(config: GuardConfig, request: ToolRequest) -> list[AppliedLimit]:
    """As the server of `[state]` has them; none where it cannot be asked."""
    try:
        with unlogged(config, shares=True) as guard:
            try:
                return await guard.limits_of(request)
            finally:
                await guard.aclose()
    except Denied:
        raise
    except (GuardConfigError, GuardError):
        return []


def _deciding(found: list[AppliedLimit]) -> AppliedLimit | None:
    """The one that waits longest of those without room, for ever being longer than any time; else the one with the least left."""
    spent = [limit for limit in found if not limit.has_room]
    if spent:
        return max(spent, key=lambda limit: float("inf") if limit.retry_after is None else limit.retry_after)
    known = [limit for limit in found if limit.remaining is not None and limit.unit == "calls"]
    return min(known, key=lambda limit: limit.remaining or 0, default=None)


def _in_words(limit: AppliedLimit, *, decides: bool) -> Standing:
    of = ", ".join(word if name is None else f"{word} {name}" for word, name in limit.per)
    within = f" in {limit.window:g} s" if limit.window else ""
    unit = "calls that run" if limit.unit == "running" else limit.unit
    left = "?" if limit.remaining is None else str(limit.remaining)
    return Standing(limit.rule, of, f"{left} of {limit.quota} {unit}{within}", _room(limit), limit.has_room, decides)


def _room(limit: AppliedLimit) -> str:
    if limit.remaining is None:
        return "the server of [state] does not answer"
    if limit.has_room:
        return "now" if limit.cost <= 1 else f"now, at a cost of {limit.cost}"
    if limit.retry_after is not None:
        return f"in {limit.retry_after:.1f} s"
    return "when a call has ended" if limit.unit == "running" else f"never, at a cost of {limit.cost}"
