"""What both message layers do: take the proof that the ASGI layer left, or decide anew (decision 8)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mcp_fastguard._fastguard import ToolRequest
from mcp_fastguard.call import Call
from mcp_fastguard.errors import GuardError, GuardFault
from mcp_fastguard.transport.challenge import tool_result
from mcp_fastguard.transport.guarded import proved_call
from mcp_fastguard.transport.stdio import StdioCaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mcp_fastguard.guard import Guard

__all__ = ["MessageLayer"]

logger = logging.getLogger("mcp_fastguard")


class MessageLayer:
    """Walks one message from its proof to its ending.

    Args:
        guard: whose proofs count.
        transport: ``"http"`` or ``"stdio"``; declared, never guessed from what is missing.

    Raises:
        ValueError: another transport, or ``"stdio"`` without ``[stdio]`` in the configuration.
    """

    def __init__(self, guard: Guard, transport: str) -> None:
        if transport not in {"http", "stdio"}:
            message = f"transport must be 'http' or 'stdio', not {transport!r}"
            raise ValueError(message)
        self.guard = guard
        self._stdio = StdioCaller(guard) if transport == "stdio" else None
        guard.attached.add(transport)

    def taken(self, method: str, params: Mapping[str, Any] | None, scope: Mapping[str, Any] | None) -> Call | None:
        """The call that the ASGI layer has proved, where this is its message. None where :meth:`begin` must look."""
        call = None if self._stdio is not None else proved_call(self.guard, scope)
        return call if call is not None and call.take(method, params) else None

    async def begin(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        request_id: str | int | None,
        scope: Mapping[str, Any] | None,
    ) -> Call | None:
        """Finds or makes the call that proves a message. None for a list that the SDK asks of itself.

        Raises:
            Denied: a room refused the message.
            GuardFault: nothing proves it.
        """
        stand_in = self.guard.stand_in_token() if scope is None else None
        given = dict(params) if params is not None else None
        if stand_in is not None:
            request = ToolRequest.message(method=method, params=given, id=request_id, token=stand_in)
            call = await self._decided(Call(self.guard, request, observes=True), given)
        elif self._stdio is not None:
            request, attested = await self._stdio.request(method, given, request_id)
            call = await self._decided(Call(self.guard, request, observes=True, attested=attested), given)
        else:
            parent = proved_call(self.guard, scope)
            if parent is None:
                with self.guard.listeners.telling():
                    raise GuardFault("call_unproved", f"no ASGI layer of this guard has seen `{method}`")
            if _is_synthetic(parent, method, request_id):
                return None
            call = parent
            if not parent.take(method, given):
                call = await parent.nested(ToolRequest.message(method=method, params=given, id=request_id))
                call.comes_with(given)
                call.is_taken = True
        await self.settle(call)
        return call

    def told(self, error: GuardError, method: str, request_id: str | int | None) -> dict[str, Any] | None:
        """The result that tells of a spent limit, as the wire has it, where the configuration wants that; else None."""
        if method != "tools/call" or request_id is None or not self.guard.gate.tells_limits_by_result:
            return None
        return tool_result(error)

    @staticmethod
    async def settle(call: Call) -> None:
        """Waits for whoever must consent.

        Raises:
            Denied: nobody did.
        """
        try:
            await call.settle()
        except GuardError as error:
            call.fail(error)
            call.close()
            raise

    @staticmethod
    async def _decided(call: Call, params: Mapping[str, Any] | None) -> Call:
        """A call that no other message can take."""
        await call.authorize()
        call.comes_with(params)
        call.is_taken = True
        return call

    def warn_of_gaps(self, kind: str, names: Iterable[str]) -> None:
        """At the first list of a kind: which of its names have no rule, since nobody can call them. Servers whose ASGI app names
        them are looked at when they start.
        """
        if kind in self.guard.compared:
            return
        self.guard.compared.add(kind)
        for name in names:
            if not self.guard.gate.rule_keys(kind, name):
                logger.warning("%s %r has no rule: it is refused and not listed", kind, name)


def _is_synthetic(parent: Call, method: str, request_id: str | int | None) -> bool:
    """SDKs list their own tools, through all middleware, to find the schema of the tool that is being called. The request is
    the call's own and its proof is not spent yet; no client can cause it, since header and body were compared.
    """
    return (
        method == "tools/list"
        and parent.proof.method == "tools/call"
        and not parent.is_taken
        and request_id is not None
    )
