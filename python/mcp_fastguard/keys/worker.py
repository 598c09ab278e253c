"""The thread that fetches key sets, and all that lives on it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from mcp_fastguard.keys.feed import Feed, Figures, KeySink, Pace
from mcp_fastguard.keys.loop import KeyLoop
from mcp_fastguard.parking import park

if TYPE_CHECKING:
    import concurrent.futures
    import weakref
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from mcp_fastguard.keys.source import Fetched, KeySource, Validator

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """The thread, its loop and its feeds: all that a child process must leave alone. Coroutines run on the loop."""

    def __init__(
        self, fetch: Callable[[KeySource, Validator | None], Awaitable[Fetched]], pace: Pace, clock: Callable[[], float]
    ) -> None:
        self._fetch = fetch
        self._pace = pace
        self._clock = clock
        self._feeds: dict[KeySource, Feed] = {}
        self._loop = KeyLoop()
        self._thread = threading.Thread(target=self._run, name="fastguard-keys", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # The system gives no thread now.
            self._loop.close()
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs a coroutine on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def figures(self, source: KeySource) -> Figures:
        """The figures of a source, from any thread."""
        feed = self._feeds.get(source)
        return Figures() if feed is None else feed.figures

    def end(self, timeout: float) -> None:
        """Ends the thread; waits for it at most so many seconds."""
        self.submit(self._end(timeout / 2))
        # A sink whose call drops the last guard may close the service on this very thread.
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def park(self) -> Callable[[], None]:
        """Holds the thread between two steps of its work, till the function that it gives is called."""
        return park(self._loop, self._thread)

    async def seat(self, source: KeySource, watch: object, sink: weakref.ref[KeySink]) -> None:
        """Has a sink fed from a source."""
        feed = self._feeds.get(source)
        if feed is None:
            feed = self._feeds[source] = Feed(
                source, fetch=self._fetch, pace=self._pace, clock=self._clock, retire=self._retire
            )
        feed.seat(watch, sink)

    async def leave(self, source: KeySource, watch: object) -> None:
        """Has it fed no longer."""
        feed = self._feeds.get(source)
        if feed is not None:
            feed.leave(watch)

    async def join(self, source: KeySource, missed_at: float) -> None:
        """Returns when the fetch has ended that a key missed at that time may wait for."""
        feed = self._feeds.get(source)
        task = None if feed is None else feed.ask(missed_at)
        if task is not None:
            # Not awaited itself: a waiter that goes must not end the fetch, nor a fetch that is ended the waiters.
            await asyncio.wait((task,))

    async def refresh(self, source: KeySource) -> None:
        """Has a source fetched now."""
        feed = self._feeds.get(source)
        if feed is not None:
            feed.refresh()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _retire(self, feed: Feed) -> None:
        if self._feeds.get(feed.source) is feed:
            del self._feeds[feed.source]

    async def _end(self, patience: float) -> None:
        for feed in tuple(self._feeds.values()):
            feed.stop()
        # Waiters end by themselves once the fetches have, so that none sees a cancellation that is not its own.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=patience)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=patience / 4)
        self._loop.call_soon(self._loop.stop)
