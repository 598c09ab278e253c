"""One connection to the store, on which questions are asked without waiting for the answers to those before."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from mcp_fastguard.state.window_script import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Connection

__all__ = ["Lane", "Question"]

#: Seconds that connecting may take. Callers wait within their budgets; what takes longer serves those after them.
OPENS_WITHIN: Final = 0.5


class Question:
    """A script that is to be run, and who waits for what it says."""

    __slots__ = ("answer", "asked", "moves", "sent_at", "whole")

    def __init__(self, answer: asyncio.Future[object], asked: bytes, whole: Callable[[], bytes]) -> None:
        #: Whoever waits may cancel it, or give it an exception, at any time.
        self.answer = answer
        #: The command as it goes over the wire.
        self.asked = asked
        #: Gives the same with the whole script, for a server that has lost it.
        self.whole = whole
        self.sent_at = 0.0
        #: How often it has followed its keys to another node.
        self.moves = 0


class Lane:
    """Sends questions in the order in which they come. The answers come in the same order, each to who waits for it.

    A task talks while there are questions, and it alone reads; no caller can stop it between a question and its answer. A
    connection that is not clean when it begins, and whatever goes wrong later, ends the connection, and all who wait for it
    get the error: no answer can be taken for that to another question. Nothing runs while nobody asks.

    Args:
        connect: gives a connection to a server that may be used.
        disconnect: takes it back.
        follow: takes a question whose keys another node has.
        patience: seconds after which an answer is late. A connection with a late answer gets no more questions.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        disconnect: Callable[[Connection], Awaitable[None]],
        follow: Callable[[Question, Exception], None],
        *,
        patience: float,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._follow = follow
        self._patience = patience
        self._connection: Connection | None = None
        #: In the order in which they came, and were sent.
        self._unsent: list[Question] = []
        self._flying: deque[Question] = deque()
        self._talking: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        #: Whether it takes no more questions.
        self.is_over = False

    @property
    def is_talking(self) -> bool:
        """Whether it waits for an answer, or for its connection."""
        return self._talking is not None and not self._talking.done()

    def ask(self, question: Question) -> None:
        """Asks, or will once it is connected."""
        self._unsent.append(question)
        if self._talking is None or self._talking.done():
            # It may outlive the caller that it begins for, and is in nobody's context.
            self._talking = asyncio.create_task(self._talk(), context=contextvars.Context())
        elif self._flying and len(self._unsent) == 1:
            self._sending = asyncio.create_task(self._send_more(), context=contextvars.Context())

    def give_up(self, error: Exception) -> asyncio.Task[None] | None:
        """Ends it. All who wait get the error at once. Gives the task that closes the connection; None where nobody talks."""
        self._fail(error)
        talking = self._talking
        if talking is None or talking.done():
            return None
        talking.cancel()
        return talking

    async def _talk(self) -> None:
        try:
            await self._begin()
            while self._unsent or self._flying:
                if self._unsent:
                    await self._send()
                if self._flying:
                    await self._hear()
        except Exception as error:  # noqa: BLE001 - whatever it was, all who wait get it, and nobody else asks here
            self._fail(error)
        except BaseException:
            self._fail(StoreUnavailable("the connection to the store was closed"))
            raise
        finally:
            if self.is_over and self._connection is not None:
                await self._disconnect(self._connection)

    async def _begin(self) -> None:
        """Connects, and anew where the server has hung up since, or has said what nobody asked for."""
        if self._connection is not None and await _is_unclean(self._connection):
            connection, self._connection = self._connection, None
            await self._disconnect(connection)
        if self._connection is None:
            # redis-py 8.1 may hold a cancellation back for seconds: who waits is told by the timer.
            late = StoreUnavailable("the store could not be reached in time")
            timer = asyncio.get_running_loop().call_later(max(OPENS_WITHIN, self._patience), self.give_up, late)
            try:
                self._connection = await self._connect()
            finally:
                timer.cancel()

    async def _send(self) -> None:
        """Sends what waits. Whoever has left meanwhile is not asked for."""
        connection = self._connection
        questions = [question for question in self._unsent if not question.answer.done()]
        self._unsent.clear()
        if not questions or connection is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for question in questions:
            question.sent_at = now
        self._flying.extend(questions)
        if self._watch is None:
            self._watch = loop.call_at(now + self._patience, self._look)
        # redis-py would connect again, to a server that nobody has looked at.
        if not connection.is_connected:
            raise RedisConnectionError("the connection was lost")
        # INVARIANT: written before this first waits, so in the order of `_flying`.
        await connection.send_packed_command([question.asked for question in questions], check_health=False)

    async def _send_more(self) -> None:
        """Sends while answers are waited for."""
        try:
            await self._send()
        except Exception as error:  # noqa: BLE001 - as in `_talk`
            self.give_up(error)

    async def _hear(self) -> None:
        """Waits for one answer, and gives it to who waits for it, if somebody still does."""
        connection = self._connection
        if connection is None:
            return
        answer: object
        try:
            answer = await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            answer = error
        question = self._flying.popleft()
        if question.answer.done():
            return
        if isinstance(answer, NoScriptError):
            question.asked = question.whole()
            self._unsent.append(question)
        elif isinstance(answer, MovedError):
            # This node has done nothing, and has none of the keys: all are one slot.
            self.is_over = True
            self._follow(question, answer)
        elif isinstance(answer, Exception):
            question.answer.set_exception(answer)
        else:
            question.answer.set_result(answer)

    def _look(self) -> None:
        """Whether an answer is late. The connection gets no more questions then, and closes when none can come in time."""
        self._watch = None
        if not self._flying:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        next_late, last_late = (question.sent_at + self._patience for question in (self._flying[0], self._flying[-1]))
        self.is_over = self.is_over or now >= next_late
        if now >= last_late:
            self.give_up(StoreUnavailable("the store did not answer in time"))
        else:
            self._watch = loop.call_at(last_late if now >= next_late else next_late, self._look)

    def _fail(self, error: Exception) -> None:
        self.is_over = True
        if self._watch is not None:
            self._watch.cancel()
        waiting = [*self._flying, *self._unsent]
        self._flying.clear()
        self._unsent.clear()
        for question in waiting:
            if not question.answer.done():
                question.answer.set_exception(error)


async def _is_unclean(connection: Connection) -> bool:
    try:
        return bool(await connection.can_read())
    except RedisError:
        return True
