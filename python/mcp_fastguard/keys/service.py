"""One daemon thread per process, with an event loop of its own and a task per source, shared by all guards."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from mcp_fastguard.keys.feed import Figures, KeySink, Pace
from mcp_fastguard.keys.fetch import fetch_keys
from mcp_fastguard.keys.source import KeySource
from mcp_fastguard.keys.worker import Worker
from mcp_fastguard.parking import park_at_forks

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Any

    from mcp_fastguard.keys.source import Fetched, Validator

__all__ = ["KeyService", "Watch", "key_service"]

#: Seconds for the thread to end. Fetches that are ended get half of it to close their sockets.
CLOSE_WITHIN: Final = 2.0


class KeyService:
    """Runs the feeds. Its thread starts with the first watch, never at import.

    Args:
        fetch: gets one key set; left out: over the network.
        pace: when it is called.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        fetch: Callable[[KeySource, Validator | None], Awaitable[Fetched]] | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._pace = pace or Pace()
        self._fetch = fetch or self._fetch_over_network
        # Reentrant: a collection of garbage under the lock may close a guard.
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self._is_closed = False
        _services.add(self)
        park_at_forks(self)

    def watch(self, sources: Iterable[KeySource | tuple[Any, ...]], sink: KeySink) -> Watch:
        """Begins to fetch the sources in the background, for a sink that is held weakly.

        Sources that are watched already are not fetched again: the sink gets the set at hand.
        """
        watch = Watch(self, tuple(KeySource(*source) for source in sources), sink)
        watch.revive()
        return watch

    def close(self, timeout: float = CLOSE_WITHIN) -> None:
        """Ends all fetching, for good; waits for the thread at most `timeout` seconds."""
        with self._lock:
            self._is_closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end(timeout)

    async def _fetch_over_network(self, source: KeySource, known: Validator | None) -> Fetched:
        return await fetch_keys(source, known, deadline=self._pace.deadline)

    def enter(self, watch: Watch) -> Worker | None:
        """The worker, started if need be, with the watch in it; None after the end of either."""
        with self._lock:
            if self._is_closed or watch.is_closed:
                return None
            if self._worker is None:
                self._worker = Worker(self._fetch, self._pace, self.clock)
            if watch.worker is not self._worker:
                watch.worker = self._worker
                for source in watch.sources:
                    self._worker.submit(self._worker.seat(source, watch.seat, watch.sink))
            return self._worker

    def submit(
        self, watch: Watch, issuer: str | None, work: Callable[[Worker, KeySource], Coroutine[Any, Any, None]]
    ) -> list[concurrent.futures.Future[None]]:
        """Has the worker do something for the sources of one issuer, or of all."""
        # The lock is held till the last is submitted, so that the worker cannot end meanwhile.
        with self._lock:
            worker = self.enter(watch)
            if worker is None:
                return []
            chosen = [source for source in watch.sources if issuer in {None, source.issuer}]
            return [worker.submit(work(worker, source)) for source in chosen]

    def leave(self, watch: Watch) -> None:
        """Lets a watch go, for good."""
        with self._lock:
            watch.is_closed = True
            # A worker of the parent process, or one that was ended, has nothing to end.
            if watch.worker is not None and watch.worker is self._worker:
                for source in watch.sources:
                    watch.worker.submit(watch.worker.leave(source, watch.seat))

    def holds(self, watch: Watch) -> bool:
        """Whether the watch is in the worker of this process."""
        return watch.worker is not None and watch.worker is self._worker

    def park(self) -> Callable[[], None] | None:
        """Before a fork: holds the thread, if there is one, till the function that it gives is called."""
        worker = self._worker
        return None if worker is None else worker.park()

    def forget_parent(self) -> None:
        """In a child process. The parent's lock may be held for ever, and its thread does not run here."""
        self._lock = threading.RLock()
        if self._worker is not None:
            # Kept, for to finalise a loop or a socket would act on what the parent still uses.
            _inherited.append(self._worker)
            self._worker = None


class Watch:
    """The sources of one guard. Its methods may be called from any thread."""

    def __init__(self, service: KeyService, sources: tuple[KeySource, ...], sink: KeySink) -> None:
        self.sources = sources
        self.sink = weakref.ref(sink)
        self.seat = object()
        self.worker: Worker | None = None
        self.is_closed = False
        self._service = service

    async def fetched(self, issuer: str, *, after: float | None = None, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - ends quietly
        """Waits for keys that were missed: joins the fetch under way, or begins one if the cool-down permits.

        Returns when it has ended, well or not, and at once where none may begin. Never raises for what the network does.

        Args:
            issuer: whose key was missed.
            after: when the keys were looked at, in the seconds of `time.monotonic`; a fetch that has ended since will do.
                Left out: now, which costs a needless fetch where the keys came between the look and this call.
            timeout: the longest wait, in seconds. The fetch goes on without this caller.
        """
        missed_at = self._service.clock() if after is None else after
        futures = self._service.submit(self, issuer, lambda worker, source: worker.join(source, missed_at))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for future in futures:
                    await asyncio.wrap_future(future)

    def refresh(self, issuer: str | None = None) -> None:
        """Has the keys of one issuer, or of all, fetched now, in the background. Asks no cool-down."""
        self._service.submit(self, issuer, lambda worker, source: worker.refresh(source))

    def revive(self) -> None:
        """Begins anew in a process that was forked since. Cheap, and to be called with every call that a guard decides.

        Without it a child that meets no unknown key would keep the parent's keys, and never learn that one was withdrawn.
        """
        if not self._service.holds(self):
            self._service.enter(self)

    def status(self) -> dict[str, dict[str, Any]]:
        """Figures of each issuer: `age` in seconds since the set at hand came or was confirmed, `stale`: for how many seconds
        it should have been replaced, `failures` in a row, `fetches` that ended, `confirmed`: how many of these brought no new
        set, `last_error`, and `due_in`: seconds to the next fetch.
        """
        now = self._service.clock()
        worker = self.worker
        return {
            source.issuer: _status(Figures() if worker is None else worker.figures(source), now)
            for source in self.sources
        }

    def close(self) -> None:
        """Ends the fetching for this guard, without waiting. The sink gets nothing that is fetched after it."""
        self._service.leave(self)


def _status(figures: Figures, now: float) -> dict[str, Any]:
    return {
        "age": None if figures.fetched_at is None else now - figures.fetched_at,
        "stale": None if figures.fresh_until is None else max(0.0, now - figures.fresh_until),
        "failures": figures.failures,
        "fetches": figures.fetches,
        "confirmed": figures.confirmed,
        "last_error": figures.last_error,
        "due_in": None if figures.due_at is None else max(0.0, figures.due_at - now),
    }


_inherited: list[Worker] = []
_services: weakref.WeakSet[KeyService] = weakref.WeakSet()
_service = KeyService()


def key_service() -> KeyService:
    """The service of this process."""
    return _service


def _forget_parent() -> None:
    for service in tuple(_services):
        service.forget_parent()


def _close_all() -> None:
    for service in tuple(_services):
        service.close()


# A thread that the end of the interpreter stops inside the core would unwind through it, and abort the process.
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
