"""Room 3: sliding windows. The public face of the Rust room; nothing is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from mcp_fastguard._fastguard import Admission, MeteredWindow, SlidingWindow

if TYPE_CHECKING:
    #: What ``Gate.applied_limits`` gives of each rule.
    AppliedFields = tuple[
        str, list[tuple[str, str | None]], tuple[str, int, float, int], tuple[bytes, int, float | None]
    ]

__all__ = ["Admission", "AppliedLimit", "MeteredWindow", "SlidingWindow"]


class AppliedLimit(NamedTuple):
    """How one rule stands that counts a call; see :meth:`Guard.limits_of`.

    Args:
        rule: its name.
        per: of whom and what it has a window of its own: the words of ``per``, each with the name that the call has there, if
            any.
        unit: what it counts: ``"calls"``, ``"rows"``, ``"bytes"``, or ``"running"`` calls.
        quota: how many.
        window: seconds; 0 where it counts what runs.
        cost: what the call is charged at once.
        key: 16 bytes that name the window or the places.
        remaining: what is left; None where the server that processes share does not answer.
        retry_after: seconds until there is room for the call; None where there is, or no time helps.
    """

    rule: str
    per: tuple[tuple[str, str | None], ...]
    unit: str
    quota: int
    window: float
    cost: int
    key: bytes
    remaining: int | None
    retry_after: float | None

    @classmethod
    def of(cls, found: AppliedFields) -> Self:
        """Of what the gate gives."""
        rule, per, (unit, quota, window, cost), (key, remaining, retry_after) = found
        return cls(rule, tuple(per), unit, quota, window, cost, key, remaining, retry_after)

    @property
    def has_room(self) -> bool:
        """Whether the rule would let the call pass, as far as is known."""
        return self.remaining is None or self.remaining >= max(self.cost, 1)
