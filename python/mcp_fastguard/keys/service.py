"""One daemon thread per process, with an event loop of its own and a task per source, shared by all guards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from mcp_fastguard.keys.fetch import FetchError, Source, fetch_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["KeyService", "KeySink", "Watch", "key_service"]

logger = logging.getLogger("mcp_fastguard")

#: A set is fresh for so many seconds (F1).
FRESH: Final = 600.0

#: It is fetched anew at this part of its freshness, less a little at random, so that a fleet does not ask at once.
AHEAD: Final = 0.8

#: Waits after failures, in seconds: doubled each time, from the first to the second.
BACK_OFF: Final = (1.0, 60.0)


class KeySink(Protocol):
    """Who takes key sets in: the gate of a guard."""

    def replace_keys(self, issuer: str, jwks: bytes) -> None:
        """Takes a set in; ValueError where it is none."""
        ...

    def keys_failed(self, issuer: str, reason: str = "", retry_after: float = 0.0) -> None:
        """Takes note that a fetch ended without a set."""
        ...


class _Feed:
    """One source, fetched again and again. Lives on the service's loop."""

    def __init__(self, source: Source, fetch: Callable[[Source], Awaitable[bytes]]) -> None:
        self.source = source
        self.sinks: weakref.WeakSet[Any] = weakref.WeakSet()
        self.fetches = 0
        self.failures = 0
        self.fetched_at: float | None = None
        self.last_error: str | None = None
        self._fetch = fetch
        self._content: bytes | None = None
        self._current: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sink: KeySink) -> None:
        self.sinks.add(sink)
        if self._content is not None:
            self._hand_over(sink, self._content)
        else:
            self.begin()

    def begin(self) -> asyncio.Task[None]:
        """The fetch under way, or a new one: never two at once."""
        if self._current is None or self._current.done():
            if self._timer is not None:
                self._timer.cancel()
            self._current = asyncio.get_running_loop().create_task(self._run())
        return self._current

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._current is not None:
            self._current.cancel()

    async def _run(self) -> None:
        try:
            content = await self._fetch(self.source)
            for sink in list(self.sinks):
                self._hand_over(sink, content)
        except (FetchError, ValueError) as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - whatever fails, the old set stays and the fetch is tried again
            self._fail(type(error).__name__)
        else:
            self._content, self.fetched_at = content, time.monotonic()
            self.failures, self.last_error = 0, None
        self.fetches += 1
        self._plan()

    def _hand_over(self, sink: KeySink, content: bytes) -> None:
        sink.replace_keys(self.source.issuer, content)

    def _fail(self, reason: str) -> None:
        self.failures += 1
        self.last_error = reason
        logger.warning("keys of %s: %s; the set at hand stays in use", self.source.issuer, reason)
        for sink in list(self.sinks):
            sink.keys_failed(self.source.issuer, reason)

    def _plan(self) -> None:
        spread = 0.9 + 0.1 * random.random()  # noqa: S311 - spreads load, hides nothing
        if self.failures:
            shortest, longest = BACK_OFF
            wait = min(longest, shortest * 2.0 ** min(self.failures - 1, 10))
        else:
            wait = FRESH * AHEAD
        self._timer = asyncio.get_running_loop().call_later(wait * spread, self._due)

    def _due(self) -> None:
        if self.sinks:
            self.begin()


class KeyService:
    """Runs the feeds. Its thread starts with the first watch, never at import."""

    def __init__(self, fetch: Callable[[Source], Awaitable[bytes]] = fetch_keys) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feeds: dict[Source, _Feed] = {}

    def watch(self, sources: Iterable[tuple[str, str | None, bool]], sink: KeySink) -> Watch:
        """Begins to fetch the sources in the background, for a sink that is held weakly."""
        watch = Watch(self, [Source(*source) for source in sources], sink)
        for source in watch.sources:
            self._submit(self._add(source, sink))
        return watch

    async def _add(self, source: Source, sink: KeySink) -> None:
        feed = self._feeds.get(source)
        if feed is None:
            feed = self._feeds[source] = _Feed(source, self._fetch)
        try:
            feed.add(sink)
        except ValueError as error:
            sink.keys_failed(source.issuer, str(error))

    async def _begin(self, source: Source) -> None:
        feed = self._feeds.get(source)
        if feed is not None:
            # A caller that goes away must not take the fetch of the others with it.
            await asyncio.shield(feed.begin())

    async def _remove(self, source: Source, sink: KeySink) -> None:
        feed = self._feeds.get(source)
        if feed is None:
            return
        feed.sinks.discard(sink)
        if not feed.sinks:
            feed.stop()
            del self._feeds[source]

    def feed(self, source: Source) -> _Feed | None:
        """The feed of a source, for its figures."""
        return self._feeds.get(source)

    def _submit(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                # Never uvloop: its loops must not cross a fork, and this one does nothing that needs it.
                self._loop = asyncio.SelectorEventLoop()
                thread = threading.Thread(target=self._loop.run_forever, name="fastguard-keys", daemon=True)
                thread.start()
            return self._loop

    def forget(self) -> None:
        """In a child process: nothing of the parent's thread, sockets or tasks is used; watches begin anew when asked."""
        self._lock = threading.Lock()
        self._loop = None
        self._feeds = {}


class Watch:
    """The sources of one guard."""

    def __init__(self, service: KeyService, sources: list[Source], sink: KeySink) -> None:
        self.sources = sources
        self._service = service
        self._sink = weakref.ref(sink)
        self._process = os.getpid()

    async def fetched(self, issuer: str, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a bound, not a cancellation
        """Joins the fetch under way, or begins one, and returns when it has ended, well or not.

        When a fetch may be begun for an unknown key is decided in the core, which asks at most once in its cool-down.
        """
        self._revive()
        for source in self.sources:
            if source.issuer == issuer:
                future = asyncio.wrap_future(self._service._submit(self._service._begin(source)))  # noqa: SLF001
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(future), timeout + 1.0)

    def refresh(self, issuer: str | None = None) -> None:
        """Has the keys fetched now, in the background."""
        self._revive()
        for source in self.sources:
            if issuer in {None, source.issuer}:
                self._service._submit(self._service._begin(source))  # noqa: SLF001

    def status(self) -> dict[str, dict[str, Any]]:
        """Figures of each issuer: age in seconds, failures in a row, fetches, last error."""
        figures: dict[str, dict[str, Any]] = {}
        for source in self.sources:
            feed = self._service.feed(source)
            if feed is not None:
                age = None if feed.fetched_at is None else time.monotonic() - feed.fetched_at
                figures[source.issuer] = {
                    "age": age,
                    "failures": feed.failures,
                    "fetches": feed.fetches,
                    "last_error": feed.last_error,
                }
        return figures

    def close(self) -> None:
        """Ends the fetching for this guard."""
        sink = self._sink()
        if sink is not None and self._process == os.getpid():
            for source in self.sources:
                self._service._submit(self._service._remove(source, sink))  # noqa: SLF001

    def _revive(self) -> None:
        """After a fork the child's service is empty: begins the watch anew."""
        sink = self._sink()
        if self._process != os.getpid() and sink is not None:
            self._process = os.getpid()
            for source in self.sources:
                self._service._submit(self._service._add(source, sink))  # noqa: SLF001


_service = KeyService()


def key_service() -> KeyService:
    """The service of this process."""
    return _service


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_service.forget)
