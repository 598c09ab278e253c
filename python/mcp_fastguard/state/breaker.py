"""A store that answers within its budget or not at all."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mcp_fastguard.state.window_script import LimitStore, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    async def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> object:
        """Asks the store, unless it has failed and its next probe is not due.

        Raises:
            StoreUnavailable: the store is left alone, too many wait, or it did not answer in time.
            Exception: whatever the store raises.
        """
        now = time.monotonic()
        if self.is_open:
            if now < self._probe_at:
                raise StoreUnavailable("the store has failed, and is not due to be asked")
            self._probe_at = now + PROBE_EVERY
        if len(self._asking) >= WAITING:
            raise StoreUnavailable("too many calls wait for the store")
        # A task of its own: redis-py 8.1 may take a cancellation for a timeout of its socket while many connect, and hold the
        # call for seconds. What is left behind counts as waiting until it has ended.
        asking: asyncio.Future[object] = asyncio.ensure_future(self._store.run(script, keys, args))
        self._asking.add(asking)
        asking.add_done_callback(self._ended)
        try:
            await asyncio.wait((asking,), timeout=self._budget)
        except asyncio.CancelledError:
            # The caller left: that says nothing of the store.
            asking.cancel()
            raise
        if not asking.done() or asking.cancelled():
            asking.cancel()
            self._failed()
            raise StoreUnavailable("the store did not answer in time")
        if asking.exception() is not None:
            self._failed()
        answer = asking.result()
        self._failures = 0
        return answer

    def key(self, purpose: str, digest: bytes) -> bytes:
        """The store's."""
        return self._store.key(purpose, digest)

    def _ended(self, asking: asyncio.Future[object]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            # Taken, so that one left behind does not end in a warning.
            asking.exception()

    def _failed(self) -> None:
        self._failures += 1
        if self._failures == FAILURES:
            # A burst of calls that were under way does not put the probe off.
            self._probe_at = time.monotonic() + PROBE_EVERY
