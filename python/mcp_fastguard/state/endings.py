"""The thread on which the store is told of calls that run and of calls that have ended.

It is no task of a server's event loop, which a tool may hold for longer than the store remembers a place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mcp_fastguard.parking import park, park_at_forks
from mcp_fastguard.state.limits import Debt
from mcp_fastguard.state.places import HOLD_EVERY, LIFETIME
from mcp_fastguard.state.window_script import KeyUnreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mcp_fastguard.state.limits import SharedLimits
    from mcp_fastguard.state.places import ProcessPlaces

__all__ = ["Ended", "Endings"]

#: Endings that are told by one question, and places that are held by one.
_AT_ONCE: Final = 64
_HELD_AT_ONCE: Final = 500
#: Endings that wait for a store that is away. Of more, the oldest are forgotten: their places come back by themselves.
MOST_WAITING: Final = 100_000
#: Seconds after which a store that did not answer is told again.
AGAIN_AFTER: Final = 0.25
#: Seconds that closing waits for what must still be told.
CLOSES_WITHIN: Final = 2.0

logger = logging.getLogger("mcp_fastguard")


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended: key and call of its places, what it is charged, and when it ended by the monotonic clock."""

    freed: tuple[tuple[bytes, bytes], ...]
    debts: tuple[Debt, ...]
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is told at once. The store may hear it twice, and counts it once by its name."""

    ended: tuple[Ended, ...]
    name: bytes = field(default_factory=lambda: os.urandom(16))

    def freed(self) -> list[tuple[bytes, bytes]]:
        """Places that the store may still think taken."""
        now = time.monotonic()
        return [place for ended in self.ended if now - ended.at < 2 * LIFETIME for place in ended.freed]

    def debts(self) -> list[Debt]:
        """One for each window."""
        sums: dict[tuple[bytes, int, float], int] = {}
        for debt in (debt for ended in self.ended for debt in ended.debts):
            key = (debt.key, debt.quota, debt.window)
            sums[key] = sums.get(key, 0) + debt.amount
        return [Debt(*key, amount) for key, amount in sums.items()]


class Endings:
    """For one guard and process. Nothing is started before the first place or ending.

    Args:
        connect: gives the limits of the running event loop.
        disconnect: closes what that has opened.
        places: the calls of this process that run.
        collect: takes in what has ended and nobody has told of.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], SharedLimits],
        disconnect: Callable[[], Awaitable[None]],
        places: ProcessPlaces,
        collect: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._places = places
        self._collect = collect
        self._lock = threading.Lock()
        self._waiting: deque[Ended] = deque()
        #: What the store found unreadable is told one by one, so that one call's key stops no other.
        self._apart: deque[Ended] = deque()
        self._told: list[Future[None]] = []
        self._is_telling = False
        self._is_closing = False
        self._is_away = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._wake: asyncio.Event | None = None

    def start(self) -> None:
        """Begins to hold places. May come again.

        Raises:
            RuntimeError: the system gives no thread.
        """
        with self._lock:
            if self._thread is not None or self._is_closing:
                return
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._run, args=(loop,), name="fastguard-endings", daemon=True)
            self._wake = asyncio.Event()
            try:
                thread.start()
            except RuntimeError:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        park_at_forks(self)

    def add(self, ended: Sequence[Ended]) -> None:
        """Has the store told of calls that have ended."""
        if not ended:
            return
        self.start()
        with self._lock:
            self._waiting.extend(ended)
            lost = len(self._waiting) - MOST_WAITING
            for _ in range(lost):
                self._waiting.popleft()
        if lost > 0:
            logger.error("the store of [state] is away for too long: what %d calls had counted is lost", lost)
        self._notify()

    def told(self) -> Future[None] | None:
        """Done when the store was told of all that has ended until now, well or not. None where there is nothing to tell, or the
        store is away.
        """
        with self._lock:
            if self._is_away or not (self._waiting or self._is_telling):
                return None
            told: Future[None] = Future()
            self._told.append(told)
        self._notify()
        return told

    def park(self) -> Callable[[], None] | None:
        """Before a fork: holds the thread, till the function that it gives is called."""
        loop, thread = self._loop, self._thread
        return park(loop, thread) if loop is not None and thread is not None and thread.is_alive() else None

    def close(self) -> None:
        """Tells what there is to tell, and ends the thread."""
        with self._lock:
            self._is_closing = True
            thread = self._thread
        if thread is not None and thread.is_alive():
            self._notify()
            if thread is not threading.current_thread():
                thread.join(CLOSES_WITHIN)

    # --- the thread -------------------------------------------------------------------------------

    def _notify(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            # Closed: the thread has ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(wake.set)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._follow())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _follow(self) -> None:
        limits = self._connect()
        hold_at = 0.0
        batch: _Batch | None = None
        try:
            while True:
                pause = await self._pause(hold_at, is_late=batch is not None)
                batch = await self._tell(limits, batch)
                if pause is None:
                    if batch is not None:
                        logger.error("the store of [state] was not told of calls that have ended: %d", len(batch.ended))
                    return
                if time.monotonic() >= hold_at:
                    hold_at = time.monotonic() + HOLD_EVERY
                    self._collect()
                    await self._hold(limits)
        finally:
            self._resolve()
            with contextlib.suppress(Exception):
                await self._disconnect()

    async def _pause(self, hold_at: float, *, is_late: bool) -> float | None:
        """Until there is something to do. None where the thread shall end."""
        wake = self._wake
        if wake is None:
            return None
        with self._lock:
            has_work = bool(self._waiting) and not is_late
        pause = 0.0 if has_work or self._is_closing else max(0.0, hold_at - time.monotonic())
        if is_late:
            # What must be told again waits a little, whoever wakes the thread.
            await asyncio.sleep(0.0 if self._is_closing else min(pause, AGAIN_AFTER))
        elif pause:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)
        wake.clear()
        return None if self._is_closing else pause

    async def _tell(self, limits: SharedLimits, batch: _Batch | None) -> _Batch | None:
        """Tells all there is. Gives what the store did not take, for another time."""
        while (batch := batch or self._next()) is not None:
            try:
                await limits.left(batch.freed(), batch.debts(), batch.name)
            except KeyUnreadable:
                self._refused(batch)
                batch = None
                continue
            except Exception:  # noqa: BLE001 - whatever the store does, it is told again
                self._say(is_away=True)
                self._resolve()
                return batch
            self._say(is_away=False)
            batch = None
        self._resolve()
        return None

    def _next(self) -> _Batch | None:
        with self._lock:
            if self._apart:
                return _Batch((self._apart.popleft(),))
            taken = tuple(self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting))))
            self._is_telling = bool(taken)
        return _Batch(taken) if taken else None

    def _refused(self, batch: _Batch) -> None:
        """Nothing of it was done."""
        if len(batch.ended) > 1:
            self._apart.extend(batch.ended)
            return
        logger.error("a key in the store of [state] cannot be read: what one call had counted is lost")

    async def _hold(self, limits: SharedLimits) -> None:
        held = self._places.held()
        try:
            for begin in range(0, len(held), _HELD_AT_ONCE):
                # One that cannot be entered keeps no other out.
                with contextlib.suppress(KeyUnreadable):
                    await limits.hold(held[begin : begin + _HELD_AT_ONCE])
        except Exception:  # noqa: BLE001 - whatever the store does, it is told again
            self._say(is_away=True)
        else:
            if held:
                self._say(is_away=False)

    def _resolve(self) -> None:
        """Lets those go on who wait for the store to be told."""
        with self._lock:
            told, self._told = self._told, []
        for one in told:
            one.set_result(None)

    def _say(self, *, is_away: bool) -> None:
        if is_away is self._is_away:
            return
        self._is_away = is_away
        if is_away:
            logger.error("the store of [state] is away: it is told later of calls that run or have ended")
        else:
            logger.warning("the store of [state] is told again of calls that run or have ended")
