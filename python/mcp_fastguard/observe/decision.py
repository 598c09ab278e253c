"""A decision in the words of metrics, spans and log lines. Holds no token and no argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mcp_fastguard._fastguard import ObservedCall
from mcp_fastguard.errors import (
    ApprovalDenied,
    BindingDenied,
    Denied,
    GuardError,
    LimitDenied,
    PolicyDenied,
    RequestDenied,
    TokenDenied,
)

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall
    from mcp_fastguard.guard import Guard

__all__ = ["Decision", "described", "record_id"]

_ROOMS: Final[dict[type[GuardError], str]] = {
    RequestDenied: "request",
    TokenDenied: "token",
    BindingDenied: "binding",
    LimitDenied: "limits",
    PolicyDenied: "policy",
    ApprovalDenied: "approval",
}

#: Faults that belong to a room, as `docs/codes.md` lists them.
_FAULT_ROOMS: Final = {"audit_queue_full": "audit", "audit_failed": "audit", "clock_mixed": "limits"}


class Decision(NamedTuple):
    """What was decided.

    Attributes:
        outcome: ``"allowed"``, ``"denied"``, ``"fault"``, or ``"observed"`` for a refusal that is not enforced.
        room: which room refused; empty for allowed calls and for faults of no room.
        code: as listed in ``docs/codes.md``; empty for allowed calls.
        method: MCP's method, or None where it is not known.
        target: the tool, prompt or resource, or None.
        subject: ``sub`` of the verified token, or None.
        client_id: the OAuth client, or None.
        issuer: ``iss``, or None.
        record: number of the decision's record, or None where it is not known.
        retry_after: seconds after which a retry can succeed, or None.
    """

    outcome: str
    room: str
    code: str
    method: str | None
    target: str | None
    subject: str | None
    client_id: str | None
    issuer: str | None
    record: int | None
    retry_after: float | None

    @property
    def tool(self) -> str | None:
        """The tool, if the call was one of a tool."""
        return self.target if self.method == "tools/call" else None


def described(decided: AllowedCall | ObservedCall | GuardError) -> Decision:
    """Puts what a listener was told into words."""
    outcome, room, code, retry_after = "allowed", "", "", None
    if isinstance(decided, ObservedCall):
        outcome, room, code = "observed", decided.room, decided.code
    elif isinstance(decided, Denied):
        room = next((name for kind, name in _ROOMS.items() if isinstance(decided, kind)), "")
        outcome, code, retry_after = "denied", decided.code, decided.retry_after
    elif isinstance(decided, GuardError):
        outcome, code = "fault", str(getattr(decided, "code", "internal"))
        room = _FAULT_ROOMS.get(code, "")
    return Decision(
        outcome,
        room,
        code,
        decided.method,
        decided.target or None,
        decided.subject,
        decided.client_id,
        decided.issuer,
        decided.record,
        retry_after,
    )


def record_id(guard: Guard, decision: Decision) -> str | None:
    """The ``id`` of a decision's record in this process's log; None where it is not known."""
    folder = guard.audit_folder
    return f"{folder.name}-{decision.record}" if folder is not None and decision.record is not None else None
