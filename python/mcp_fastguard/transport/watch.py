"""Responses that are under way, whose tokens are looked at again and again (decision 3)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import Denied, GuardError
from mcp_fastguard.transport.challenge import answer, log_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Token

    from mcp_fastguard.call import Call
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.transport.scope import Headers, Message, Send

__all__ = ["OpenResponse", "Watch"]

#: A stream's token is looked at again every so many seconds (decision 3).
RECHECK_INTERVAL: Final = 5.0


class OpenResponse:
    """A response that is under way: the call that was proved for it, and the headers that the app sees."""

    __slots__ = ("call", "has_ended", "has_started", "headers", "next_look", "send", "task", "tokens")

    def __init__(self, call: Call, headers: Headers, send: Send, task: asyncio.Task[Any] | None) -> None:
        self.call = call
        self.headers = headers
        self.send = send
        self.task = task
        #: Unknown until the first look around: most responses have ended before it.
        self.next_look: float | None = None
        self.has_started = False
        self.has_ended = False
        #: What takes the response and its user out of the context again.
        self.tokens: list[Token[Any]] = []

    def sending(self, message: Message) -> Awaitable[None]:
        """Hands on, and notes that the client has seen something."""
        self.has_started = True
        return self.send(message)

    async def ended_stream(self) -> bool:
        """After a cancellation: whether it was ours. Then the stream is ended for the client."""
        if not self.has_ended or self.task is None:
            return False
        self.task.uncancel()
        if self.has_started:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            denied = Denied("token_revoked", "the token died while the call ran", 401)
            await answer(denied, None, None, self.send)
        return True


class Watch:
    """Looks at the tokens of open responses again and again, and ends those whose token has died (decision 3).

    One timer per loop serves all responses, so that a short one costs nothing but its entry in a set.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._open: set[OpenResponse] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, call: Call, headers: Headers, send: Send) -> OpenResponse:
        """A response begins in the current task."""
        task = asyncio.current_task()
        found = OpenResponse(call, headers, send, task)
        self._open.add(found)
        loop = asyncio.get_running_loop() if task is None else task.get_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(RECHECK_INTERVAL / 5, self._look)
        return found

    def leave(self, found: OpenResponse) -> None:
        """It has ended."""
        self._open.discard(found)

    def _look(self) -> None:
        if self._loop is None or not self._open:
            self._loop = None
            return
        now = self._loop.time()
        for found in list(self._open):
            if found.next_look is None:
                # It began since the last look around, a fifth of the interval ago at most.
                found.next_look = now + RECHECK_INTERVAL * 4 / 5
            if found.next_look > now:
                continue
            found.next_look = now + RECHECK_INTERVAL
            try:
                self._guard._recheck(found.call.proof)  # noqa: SLF001 - one corridor
            except GuardError as error:
                log_refusal(error)
                found.has_ended = True
                if found.task is not None:
                    found.task.cancel()
        self._loop.call_later(RECHECK_INTERVAL / 5, self._look)
