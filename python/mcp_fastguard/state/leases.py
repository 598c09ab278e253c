"""Calls that lack permits wait here while another one asks for them. The permits themselves are in the core."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import Self

__all__ = ["Turn", "Turns"]

#: Seconds that a call waits for another's question. Whoever asked it may stand still; the core no longer waits for it then.
PATIENCE = 0.1


class Turns:
    """Who waits for which question, by its number. All event loops and threads of a process share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, deque[Future[None]]] = {}

    def join(self, number: int) -> Future[None]:
        """Done when it is this one's turn."""
        turn: Future[None] = Future()
        with self._lock:
            self._waiting.setdefault(number, deque()).append(turn)
        return turn

    def next(self, number: int) -> None:
        """The question has an answer, or one who waited for it has gone: the next one tries its luck."""
        with self._lock:
            waiting = self._waiting.get(number)
            found = None
            while waiting and found is None:
                turn = waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    found = turn
            if not waiting:
                self._waiting.pop(number, None)
        if found is not None:
            found.set_result(None)

    def move(self, before: int, after: int) -> None:
        """Those who wait for one question wait for another."""
        with self._lock:
            waiting = self._waiting.pop(before, None)
            if waiting:
                self._waiting.setdefault(after, deque()).extend(waiting)


class Turn:
    """One call among those that lack the same permits.

    They go one after the other, for most of them find permits when the first one has asked. Use it as a context: whoever leaves
    lets the next one go on.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._number = 0
        self._turn: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    async def wait(self, number: int) -> None:
        """Until the question has an answer, or for long enough. The first time it only takes its place, for the answer may have
        come before that: look again.
        """
        if self._turn is None or number != self._number:
            turn = self._turns.join(number)
            self._leave()
            self._number, self._turn = number, turn
            return
        await asyncio.wait((asyncio.wrap_future(self._turn),), timeout=PATIENCE)

    def asks(self, number: int) -> None:
        """This call asks: whoever has waited with it waits for that."""
        if self._turn is not None:
            self._turns.move(self._number, number)
            self._turn.cancel()
            self._turn = None

    def _leave(self) -> None:
        # It was its turn already: then whoever is behind it is next.
        if self._turn is not None and not self._turn.cancel():
            self._turns.next(self._number)
        self._turn = None
