"""The whole corridor. Read this first.

Every call of a tool is a :class:`Call`, which walks the rooms in this order and no other::

    authorize   rooms request, token, binding, limits, policy (Rust) and the record of the decision
    settle      room approval
    run         rooms execute and mask
    finish      what the ending's record will say
    close       the record of the ending
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mcp_fastguard import approval, audit, execute, mask
from mcp_fastguard._fastguard import AllowedCall, ToolRequest
from mcp_fastguard.context import running
from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import Token

    from mcp_fastguard._fastguard import Attested, ObservedCall
    from mcp_fastguard.audit import ResultSummary
    from mcp_fastguard.guard import Decision, Guard

__all__ = ["AllowedCall", "Call", "ToolRequest"]

T = TypeVar("T")


class Call:
    """One call on its way through the rooms."""

    __slots__ = (
        "_asks",
        "_attested",
        "_bytes",
        "_came_with",
        "_decision",
        "_error",
        "_guard",
        "_is_settled",
        "_items",
        "_observes",
        "_proof",
        "_rows",
        "_started",
        "_status",
        "_summary_failed",
        "is_closed",
        "is_taken",
        "request",
    )

    def __init__(
        self,
        guard: Guard,
        request: ToolRequest,
        proof: AllowedCall | ObservedCall | None = None,
        *,
        observes: bool = False,
        attested: Attested | None = None,
    ) -> None:
        self._guard = guard
        self.request = request
        self._proof = proof
        self._observes = observes
        self._attested = attested
        self._decision: Decision | None = None
        self._started = time.monotonic()
        self._is_settled = False
        self._status = "unused"
        self._error: str | None = None
        self._rows: int | None = None
        self._bytes: int | None = None
        self._items: int | None = None
        self._summary_failed = False
        #: MCP 2026-07-28, multi round-trip requests: the state that the client came with, and the one that the server gives.
        self._came_with: str | None = None
        self._asks: str | None = None
        #: Whether the message layer has taken this call; it can be taken once.
        self.is_taken = False
        #: Whether the ending is recorded.
        self.is_closed = False

    @property
    def guard(self) -> Guard:
        """Whose decision this is."""
        return self._guard

    @property
    def proof(self) -> AllowedCall | ObservedCall:
        """What :meth:`authorize` proved; an ``ObservedCall`` only where a server's layer observes.

        Raises:
            GuardFault: nothing was proved yet.
        """
        if self._proof is None:
            raise GuardFault("internal", "the call was not authorized")
        return self._proof

    @property
    def _is_notification(self) -> bool:
        """A notification is answered before it is handled, so its ending may stand in the log already."""
        return self._proof is not None and self._proof.method.startswith("notifications/")

    @property
    def _owes(self) -> bool:
        """Whether a rule counts the call until it ends, which other processes may have to know."""
        return self._proof is not None and self._proof.owes

    def authorize_at_once(self) -> bool:
        """The part of :meth:`authorize` that waits for nothing. False where that must go on."""
        guard = self._guard
        decision = guard._at_once(self.request, observes=self._observes, attested=self._attested)  # noqa: SLF001 - one corridor
        if isinstance(decision, AllowedCall) and not guard.gate.must_keep(decision):
            self._proof = decision
            self._started = time.monotonic()
            return True
        self._decision = decision
        return False

    async def authorize(self) -> AllowedCall | ObservedCall:
        """Rooms request, token, binding, limits and policy, and the record of the decision."""
        if self._proof is not None or (self._decision is None and self.authorize_at_once()):
            return self.proof
        # It goes on with what was decided already: charges and proofs count once.
        decision, self._decision = self._decision, None
        self._proof = await self._guard._authorized(  # noqa: SLF001 - one corridor
            self.request, observes=self._observes, ends=True, attested=self._attested, decision=decision
        )
        self._started = time.monotonic()
        return self._proof

    @property
    def is_settled(self) -> bool:
        """Whether :meth:`settle` has passed."""
        return self._is_settled

    def settle_at_once(self) -> bool:
        """The part of :meth:`settle` that waits for nobody. False where that must go on."""
        if not self._is_settled:
            proof = self.proof
            self._is_settled = isinstance(proof, AllowedCall) and not approval.is_needed(proof)
        return self._is_settled

    async def settle(self) -> AllowedCall | ObservedCall:
        """Room approval: waits for a human where the rule's tier demands one."""
        if not self.settle_at_once():
            if isinstance(self.proof, AllowedCall):
                with self._guard.listeners.telling(proof=self.proof):
                    await approval.settle(self.proof)
            self._is_settled = True
        return self.proof

    async def run(self, tool: Callable[[], Awaitable[T]]) -> T:
        """Rooms execute and mask: runs the tool in the context of this call.

        Raises:
            GuardFault: the call was not settled, or has ended.
            Denied: the token expired or was revoked while the call waited.
        """
        token = self._enter()
        try:
            result = await execute.run(tool)
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            running.reset(token)
        self._status = "ok"
        return mask.apply(result)

    async def run_to_end(self, tool: Callable[[], Awaitable[T]]) -> T:
        """:meth:`run`, :meth:`finish` and :meth:`close`, for the layers of servers.

        Raises:
            GuardFault: as of them.
            Denied: as of :meth:`run`.
        """
        try:
            token = self._enter()
            try:
                result = mask.apply(await execute.run(tool))
            finally:
                running.reset(token)
            if not self.is_closed:
                self.finish(result)
        except BaseException as error:
            if not self.is_closed:
                self.fail(error)
            raise
        finally:
            self.close()
            if self._owes:
                await self._guard._told()  # noqa: SLF001 - one corridor
        return result

    def _enter(self) -> Token[Call | None]:
        """The last look before room execute: the token may have died while the call waited."""
        proof = self.proof
        if not self._is_settled or (self.is_closed and not self._is_notification):
            raise GuardFault("internal", "the call was not settled, or has ended")
        self._guard._recheck(proof)  # noqa: SLF001 - one corridor
        return running.set(self)

    def note(self, *, rows: int | None = None, bytes_scanned: int | None = None) -> None:
        """Adds counts to the ending's record."""
        if self.is_closed:
            message = "the call has ended"
            raise RuntimeError(message)
        if (rows is not None and rows < 0) or (bytes_scanned is not None and bytes_scanned < 0):
            message = "a count is negative"
            raise ValueError(message)
        if rows is not None:
            self._rows = (self._rows or 0) + rows
        if bytes_scanned is not None:
            self._bytes = (self._bytes or 0) + bytes_scanned

    def finish(self, result: Any = None, *, status: str | None = None, error: str | None = None) -> None:
        """Takes note of how the call ended: counts and sizes of the result, never its data."""
        summary = audit.summary(result, *self._own_summary()) if self._guard.summaries else audit.summary(result)
        self._items = summary.items
        # What the tool has noted itself while it ran comes first.
        if self._bytes is None:
            self._bytes = summary.bytes
        if self._rows is None:
            self._rows = summary.rows
        self._summary_failed = summary.has_failed
        if status is not None:
            self._status = status
        elif summary.is_error:
            self._status = "error"
        elif summary.needs_input:
            self._status = "input_required"
            self._asks = audit.state_given(result)
        elif self._status == "unused":
            self._status = "ok"
        if error is not None:
            self._error = error

    def _own_summary(self) -> tuple[ResultSummary | None, str]:
        """The tool's own summary of its results, if it has one, and its name."""
        proof = self._proof
        if proof is None or proof.method != "tools/call":
            return None, ""
        return self._guard.summaries.get(proof.target), proof.target

    def fail(self, error: BaseException) -> None:
        """Takes note that the call ended with an error; its class is recorded, its text is not."""
        self._status = "cancelled" if _is_cancellation(error) else "error"
        self._error = type(error).__name__

    def close(self) -> None:
        """Records the ending, once. Without a proof there is nothing to end.

        Raises:
            GuardFault: the ending cannot be recorded.
        """
        if self.is_closed:
            return
        self.is_closed = True
        if self._proof is None:
            return
        try:
            self._guard.gate.finish(
                self._proof,
                self._status,
                time.monotonic() - self._started,
                self._error,
                self._rows,
                self._bytes,
                self._items,
                self._summary_failed,
                request=self.request,
                came_with=self._came_with,
                asks=self._asks,
            )
        finally:
            if self._owes:
                self._guard._ended()  # noqa: SLF001 - one corridor

    async def nested(self, request: ToolRequest) -> Call:
        """Another message of this call's caller, decided anew under its own name.

        Raises:
            Denied: a room refused it.
        """
        proof = await self._guard._nested(self.proof, request, observes=self._observes)  # noqa: SLF001 - one corridor
        return Call(self._guard, request, proof, observes=self._observes)

    def take(self, method: str, params: dict[str, Any] | None) -> bool:
        """Whether this call is the proof for a message, and was not spent before. Taking spends it."""
        if self.is_taken or self._proof is None:
            return False
        if self.is_closed and not self._is_notification:
            return False
        if not self.request.is_message(method, params):
            return False
        self.comes_with(params)
        self.is_taken = True
        return True

    def comes_with(self, params: Mapping[str, Any] | None) -> None:
        """Takes note of what a client brings that was asked for something (MCP 2026-07-28, multi round-trip requests), so that
        the records of all rounds of one call are joined. Of the state a keyed digest is recorded, of the answers nothing.
        """
        if params is not None:
            self._came_with = audit.state_brought(params)

    async def __aenter__(self) -> Self:
        try:
            await self.authorize()
            await self.settle()
        except BaseException as error:
            self.fail(error)
            with suppress(GuardFault):
                self.close()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.fail(error)
        elif self._status == "unused":
            self._status = "ok"
        self.close()
        if self._owes:
            await self._guard._told()  # noqa: SLF001 - one corridor


def _is_cancellation(error: BaseException) -> bool:
    import asyncio  # noqa: PLC0415 - a third of the package's import; whoever was cancelled has it

    return isinstance(error, asyncio.CancelledError)
