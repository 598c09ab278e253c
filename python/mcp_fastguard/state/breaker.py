"""A store that answers within its budget or not at all."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING

from mcp_fastguard.state.window_script import LimitStore, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

#: Seconds that a call may wait for the store.
BUDGET = 0.05
#: Failures in a row after which the store is asked by one call in `PROBE_EVERY` seconds alone.
FAILURES = 5
PROBE_EVERY = 1.0
#: Calls that wait for the store at once; others are answered without it.
WAITING = 1_024


class BreakingStore:
    """A `LimitStore` with a budget of time, a breaker and a bound on those who wait.

    Args:
        store: what it asks.
        budget: seconds, default 0.05. A deadline over connecting, sending and the answer together, never a timeout of TCP.

    Raises:
        ValueError: the budget is not positive.
    """

    def __init__(self, store: LimitStore, *, budget: float = BUDGET) -> None:
        if budget <= 0:
            raise ValueError("`budget` must be positive")
        self._store = store
        self._budget = budget
        self._failures = 0
        self._probe_at = 0.0
        self._asking: set[asyncio.Future[object]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone."""
        return self._failures >= FAILURES

    def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[object]:
        """Asks the store, unless it has failed and its next probe is not due. The answer may be whatever the store raises.

        Raises:
            StoreUnavailable: the store is left alone, or too many wait; as the answer: it did not come in time.
        """
        now = time.monotonic()
        if self.is_open:
            if now < self._probe_at:
                raise StoreUnavailable("the store has failed, and is not due to be asked")
            self._probe_at = now + PROBE_EVERY
        if len(self._asking) >= WAITING:
            raise StoreUnavailable("too many calls wait for the store")
        asking = self._store.run(script, keys, args)
        if type(asking) is asyncio.Future:
            answered = asking
            self._asking.add(answered)
        else:
            answered = self._apart(asking)
        timer = asyncio.get_running_loop().call_later(self._budget, _late, answered)
        answered.add_done_callback(functools.partial(self._ended, timer))
        return answered

    def key(self, purpose: str, digest: bytes) -> bytes:
        """The store's."""
        return self._store.key(purpose, digest)

    def _apart(self, asking: Awaitable[object]) -> asyncio.Future[object]:
        """Waits in a task of its own: redis-py 8.1 may take a cancellation for a timeout of its socket while many connect, and
        hold the call for seconds. What is left behind counts as waiting until it has ended.
        """
        task = asyncio.ensure_future(asking)
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        task.add_done_callback(functools.partial(_hand_over, answered))
        answered.add_done_callback(lambda _: task.cancel())
        return answered

    def _ended(self, timer: asyncio.TimerHandle, answered: asyncio.Future[object]) -> None:
        timer.cancel()
        self._asking.discard(answered)
        if answered.cancelled():
            # The caller has left: that says nothing of the store.
            return
        if answered.exception() is None:
            self._failures = 0
            return
        self._failures += 1
        if self._failures == FAILURES:
            # A burst of calls that were under way does not put the probe off.
            self._probe_at = time.monotonic() + PROBE_EVERY


def _late(answered: asyncio.Future[object]) -> None:
    # Where the loop itself stood still, the answer may lie there: one more turn reads it.
    if not answered.done():
        asyncio.get_running_loop().call_soon(_too_late, answered)


def _too_late(answered: asyncio.Future[object]) -> None:
    if not answered.done():
        answered.set_exception(StoreUnavailable("the store did not answer in time"))


def _hand_over(answered: asyncio.Future[object], task: asyncio.Future[object]) -> None:
    # Taken, so that one left behind does not end in a warning.
    error = StoreUnavailable("the store was not asked") if task.cancelled() else task.exception()
    if answered.done():
        return
    if error is not None:
        answered.set_exception(error)
    else:
        answered.set_result(task.result())
