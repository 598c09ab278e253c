"""Room 5: approval. A rule of tier ``approve`` waits for a human.

Approvals cannot be given yet: the gate refuses such calls with ``approval_required``, and this room refuses them once more, so
that no later change of the gate lets one pass unapproved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard.errors import ApprovalDenied

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall

__all__ = ["settle"]


async def settle(call: AllowedCall) -> None:
    """Lets calls pass that need nobody's consent.

    Raises:
        ApprovalDenied: the rule demands an approval.
    """
    if call.tier not in {"auto", "log"}:
        raise ApprovalDenied("approval_required", f"`{call.rule}` needs an approval")
