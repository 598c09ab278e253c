"""Room 5: approval. A rule of tier ``approve`` waits for a human.

Approvals cannot be given yet: the gate refuses such calls with ``approval_required``, and this room refuses them once more, so
that no later change of the gate lets one pass unapproved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard.errors import ApprovalDenied

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall

__all__ = ["is_needed", "settle"]


def is_needed(call: AllowedCall) -> bool:
    """Whether somebody must consent before the call may run."""
    return call.tier not in {"auto", "log"}


async def settle(call: AllowedCall) -> None:
    """Lets calls pass that need nobody's consent.

    Raises:
        ApprovalDenied: the rule demands an approval.
    """
    if is_needed(call):
        raise ApprovalDenied("approval_required", f"`{call.rule}` needs an approval")
