"""The whole corridor. Read this first.

Every call of a tool is a :class:`Call`, which walks the rooms in this order and no other::

    authorize   rooms request, token, binding, limits, policy (Rust) and the record of the decision
    settle      room approval
    run         rooms execute and mask
    finish      what the ending's record will say
    close       the record of the ending
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mcp_fastguard import approval, audit, execute, mask
from mcp_fastguard._fastguard import AllowedCall, OpenCall, ToolRequest
from mcp_fastguard.context import running
from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Token

    from mcp_fastguard._fastguard import ObservedCall
    from mcp_fastguard.audit import ResultSummary
    from mcp_fastguard.guard import Guard

__all__ = ["AllowedCall", "Call", "ToolRequest"]

T = TypeVar("T")


class Call(OpenCall):
    """One call on its way through the rooms. What is known of it, and the steps that wait for nothing, are Rust's."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def guard(self) -> Guard:
            """Whose decision this is."""

    def authorize_at_once(self) -> bool:
        """The part of :meth:`authorize` that waits for nothing. False where that must go on."""
        return self.guard._decides_at_once and self._decide()  # noqa: SLF001 - one corridor

    async def authorize(self) -> AllowedCall | ObservedCall:
        """Rooms request, token, binding, limits and policy, and the record of the decision."""
        if self._is_proved:
            return self.proof
        # It goes on with what was decided already: charges and proofs count once.
        decision = self._take_decision()
        if decision is None and self.authorize_at_once():
            return self.proof
        decision = decision or self._take_decision()
        proof = await self.guard._authorized(  # noqa: SLF001 - one corridor
            self.request, observes=self._observes, ends=True, attested=self._attested, decision=decision
        )
        self._prove(proof)
        return proof

    def settle_at_once(self) -> bool:
        """The part of :meth:`settle` that waits for nobody. False where that must go on."""
        if not self.is_settled:
            proof = self.proof
            if isinstance(proof, AllowedCall) and not approval.is_needed(proof):
                self._settle()
        return self.is_settled

    async def settle(self) -> AllowedCall | ObservedCall:
        """Room approval: waits for a human where the rule's tier demands one."""
        if not self.settle_at_once():
            if isinstance(self.proof, AllowedCall):
                with self.guard.listeners.telling(proof=self.proof):
                    await approval.settle(self.proof)
            self._settle()
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
        self._ran()
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
                await self.guard._told()  # noqa: SLF001 - one corridor
        return result

    def _enter(self) -> Token[Call | None]:
        """The last look before room execute: the token may have died while the call waited."""
        if self.guard.listeners.are_there:
            with self.guard.listeners.telling(proof=self.proof):
                self._look_again()
        else:
            self._look_again()
        return running.set(self)

    def finish(self, result: Any = None, *, status: str | None = None, error: str | None = None) -> None:
        """Takes note of how the call ended: counts and sizes of the result, never its data."""
        own = self._own_summary() if self.guard.summaries else None
        self._finish(result, status, error, None if own is None else audit.summary(result, own, self.proof.target))

    def _own_summary(self) -> ResultSummary | None:
        """The tool's own summary of its results, if it has one."""
        if not self._is_proved or self.proof.method != "tools/call":
            return None
        return self.guard.summaries.get(self.proof.target)

    def fail(self, error: BaseException) -> None:
        """Takes note that the call ended with an error; its class is recorded, its text is not."""
        self._fail("cancelled" if _is_cancellation(error) else "error", type(error).__name__)

    async def nested(self, request: ToolRequest) -> Call:
        """Another message of this call's caller, decided anew under its own name.

        Raises:
            Denied: a room refused it.
        """
        proof = await self.guard._nested(self.proof, request, observes=self._observes)  # noqa: SLF001 - one corridor
        return Call(self.guard, request, proof, observes=self._observes)

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
        else:
            self._pass()
        self.close()
        if self._owes:
            await self.guard._told()  # noqa: SLF001 - one corridor


def _is_cancellation(error: BaseException) -> bool:
    import asyncio  # noqa: PLC0415 - a third of the package's import; whoever was cancelled has it

    return isinstance(error, asyncio.CancelledError)
