"""The thread on which a guard learns what was revoked elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import GuardFault
from mcp_fastguard.parking import park, park_at_forks
from mcp_fastguard.revocations.file import EntryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mcp_fastguard._fastguard import Gate
    from mcp_fastguard.revocations.entry import Entry
    from mcp_fastguard.revocations.settings import RevocationSettings

__all__ = ["RevocationFeed"]

logger = logging.getLogger("mcp_fastguard")

#: The file is looked at every so many seconds.
LOOK_EVERY: Final = 0.25

#: After a failure of the server it is asked again in so many seconds.
ASK_AGAIN: Final = 0.5

#: A start waits so many seconds for the first look, so that what was revoked before holds for the first call.
FIRST_LOOK: Final = 1.0

#: An operator's act waits so many seconds until the other processes are told.
TOLD_WITHIN: Final = 2.0


class RevocationFeed:
    """Follows the file and the server of ``[revocations]`` for one guard.

    Args:
        settings: what is followed.
        gate: has the entries hold.
    """

    def __init__(self, settings: RevocationSettings, gate: Gate) -> None:
        self._settings = settings
        self._gate = gate
        #: When each source was last known to be taken in whole, by the monotonic clock.
        self._heard: dict[str, float] = {}
        self._sources = {name for name, source in (("file", settings.file), ("server", settings.store)) if source}
        self._failing: dict[str, str] = {}
        #: When the last block or unblock that names the same was said.
        self._said: dict[tuple[tuple[str, Any], ...], float] = {}
        #: What this process has said and not yet heard: it holds already.
        self._own: set[bytes] = set()
        self._known = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        #: Whether the thread shall end. redis-py 8.1 may take a cancellation for a timeout of its socket.
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="fastguard-revocations", daemon=True)

    @property
    def settings(self) -> RevocationSettings:
        """What is followed."""
        return self._settings

    @property
    def tells_others(self) -> bool:
        """Whether what is said here reaches other processes."""
        return self._settings.store is not None

    def ages(self) -> dict[str, float]:
        """For how many seconds each source was not heard; those that never were are not there."""
        now = time.monotonic()
        return {source: now - heard for source, heard in list(self._heard.items())}

    def start(self) -> None:
        """Begins to follow, and waits a moment for the first look."""
        try:
            self._thread.start()
        except RuntimeError:
            # The system gives no thread now.
            self._loop.close()
            raise
        park_at_forks(self)
        self._known.wait(FIRST_LOOK)

    def park(self) -> Callable[[], None] | None:
        """Before a fork: holds the thread, till the function that it gives is called."""
        return park(self._loop, self._thread) if self._thread.is_alive() else None

    def close(self) -> None:
        """Ends it."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop)
            if threading.current_thread() is not self._thread:
                self._thread.join(2)

    def tell(self, entry: Entry) -> None:
        """Tells the other processes, and waits until the server has it.

        Raises:
            GuardFault: they could not be told.
        """
        reason = "the feed of revocations has ended"
        self._own.add(entry.text())
        try:
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._added(entry), self._loop).result(TOLD_WITHIN)
                return
        except Exception as error:  # noqa: BLE001 - whatever the server did
            reason = _reason(error)
        self._own.discard(entry.text())
        raise GuardFault("revocation_untold", f"it holds in this process, and no other could be told: {reason}")

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._follow())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _stop(self) -> None:
        self._is_over = True
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        followers: list[Coroutine[Any, Any, None]] = []
        if self._settings.file is not None:
            followers.append(self._follow_file(EntryFile(self._settings.file, self._apply)))
        if self._settings.store is not None:
            followers.append(self._follow_server())
        await asyncio.gather(*followers)

    async def _follow_file(self, file: EntryFile) -> None:
        while True:
            try:
                file.look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may go better
                self._failed("file", error)
            else:
                self._took_in("file")
            await asyncio.sleep(LOOK_EVERY)

    async def _follow_server(self) -> None:
        from mcp_fastguard.revocations.stream import EntryStream  # noqa: PLC0415 - brings redis-py

        settings = self._settings
        if settings.store is None:
            return
        while True:
            stream = EntryStream(settings.store, settings.key)
            try:
                await stream.follow(self._apply, lambda: self._took_in("server"))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may go better
                self._failed("server", error)
            finally:
                with contextlib.suppress(Exception):
                    await stream.aclose()
            if self._is_over:
                return
            await asyncio.sleep(ASK_AGAIN)

    async def _added(self, entry: Entry) -> None:
        from mcp_fastguard.revocations.stream import EntryStream  # noqa: PLC0415 - brings redis-py

        if self._settings.store is None:
            return
        stream = EntryStream(self._settings.store, self._settings.key)
        try:
            await stream.add(entry)
        finally:
            await stream.aclose()

    # --- what was heard ---------------------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        if entry.act != "revoke":
            same = tuple(sorted((name, value) for name, value in entry.named().items() if name != "until"))
            if entry.at <= self._said.get(same, 0.0):
                # An older word on the same: whoever repeats it lifts nothing.
                return
            self._said[same] = entry.at
        if entry.text() in self._own:
            self._own.discard(entry.text())
            return
        entry.apply(self._gate)

    def _took_in(self, source: str) -> None:
        if self._failing.pop(source, None) is not None:
            logger.warning("revocations are heard again: %s", source)
        self._heard[source] = time.monotonic()
        if self._sources <= set(self._heard):
            left = min(self._heard.values()) + self._settings.max_staleness - time.monotonic()
            if left > 0:
                self._gate.revocations_known(left)
            self._known.set()

    def _failed(self, source: str, error: Exception) -> None:
        reason = _reason(error)
        if self._failing.get(source) != reason:
            self._failing[source] = reason
            logger.error("revocations are not heard: %s: %s", source, reason)


def _reason(error: Exception) -> str:
    """Words of ours, or of the system; those of a server are left out."""
    from mcp_fastguard.revocations.entry import EntryError  # noqa: PLC0415 - one place

    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    is_ours = isinstance(error, EntryError | GuardFault) or type(error).__name__ in {"StreamError", "StoreUnavailable"}
    return str(error) if is_ours else type(error).__name__
