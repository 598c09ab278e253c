"""Room 8: audit. The log itself is the core's; here is what only Python can know: results, event loops and forks."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_fastguard._fastguard import result_counts
from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Mapping

    from mcp_fastguard._fastguard import Gate
    from mcp_fastguard.guard import Guard

    #: What a tool says of its own result: ``rows``, ``bytes``, ``items``, or some of them.
    ResultSummary = Callable[[Any], Mapping[str, int]]

    #: A call that waits, and the loop that it waits in.
    Waiter = tuple[AbstractEventLoop, Future[None]]

__all__ = ["Keeper", "Summary", "keep_through_fork", "record_schema", "summary"]

logger = logging.getLogger("mcp_fastguard")

#: The thread of a :class:`Keeper` ends when nobody has waited for so long, in seconds.
IDLE: Final = 5.0

_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


class Summary(NamedTuple):
    """Counts and sizes of a result; never its data."""

    items: int | None = None
    bytes: int | None = None
    is_error: bool = False
    rows: int | None = None
    #: The server asks for something, and the client will call again (MCP 2026-07-28, multi round-trip requests).
    needs_input: bool = False
    #: The tool's own summary failed; what stands here is the default one.
    has_failed: bool = False


def summary(result: Any, own: ResultSummary | None = None, name: str = "") -> Summary:
    """Sums up the result of a tool, prompt or resource: the wire's dict, or an object with ``content``.

    Args:
        result: what came out.
        own: the tool's own summary of it, whose counts come before the default ones.
        name: the tool's name, for messages.
    """
    found = Summary(*result_counts(result))
    if own is None or found.is_error or found.needs_input:
        return found
    try:
        counts = _counts(own(result))
    except Exception as error:  # noqa: BLE001 - a summary never changes what a call gives
        # Its class alone: the text may hold data of the result.
        logger.error("the summary of %r failed: %s", name, type(error).__name__)  # noqa: TRY400 - so would its traceback
        return found._replace(has_failed=True)
    return found._replace(
        rows=counts.get("rows", found.rows),
        bytes=counts.get("bytes", found.bytes),
        items=counts.get("items", found.items),
    )


def _counts(given: Mapping[str, int]) -> dict[str, int]:
    """The counts of a tool's own summary.

    Raises:
        TypeError: it is none.
        ValueError: a count is negative.
    """
    counts = dict(given)
    unknown = counts.keys() - {"rows", "bytes", "items"}
    if unknown or not all(type(count) is int for count in counts.values()):
        message = "a summary has `rows`, `bytes` and `items`, each a number"
        raise TypeError(message)
    if min(counts.values(), default=0) < 0:
        message = "a count is negative"
        raise ValueError(message)
    return counts


def record_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every record of the log."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("audit.schema.json").read_text(encoding="utf-8"))
    return schema


class Keeper:
    """Waits until records are on disk, on a thread of its own, never on an event loop's. All who wait at once share one sync."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.after_fork()

    def after_fork(self) -> None:
        """Nothing of the parent's thread and lock is used."""
        self._changed = threading.Condition()
        self._waiting: list[Waiter] = []
        self._is_running = False

    async def keep(self) -> None:
        """Waits until all that was recorded before is on disk.

        Raises:
            GuardFault: it is not after two seconds, or the log cannot be written.
        """
        import asyncio  # noqa: PLC0415 - a third of the package's import; whoever awaits this has it

        loop = asyncio.get_running_loop()
        kept: Future[None] = loop.create_future()
        with self._changed:
            if not self._is_running:
                thread = threading.Thread(target=self._run, name="fastguard-keeper", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise GuardFault("audit_failed", f"no thread that waits for the disk: {error}") from error
                self._is_running = True
            self._waiting.append((loop, kept))
            self._changed.notify()
        await kept

    def _run(self) -> None:
        while waiting := self._next():
            error: BaseException | None = None
            try:
                self._gate.keep()
            except BaseException as raised:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
                error = raised
            by_loop: dict[AbstractEventLoop, list[Future[None]]] = {}
            for loop, kept in waiting:
                by_loop.setdefault(loop, []).append(kept)
            for loop, all_kept in by_loop.items():
                # A loop that has ended has nobody who waits.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_answer, all_kept, error)

    def _next(self) -> list[Waiter]:
        """Those who wait now; none where nobody has come for a while, and then the thread ends."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(IDLE)
            waiting, self._waiting = self._waiting, []
            self._is_running = bool(waiting)
            return waiting


def _answer(all_kept: list[Future[None]], error: BaseException | None) -> None:
    for kept in all_kept:
        if kept.done():
            # Its call was cancelled.
            continue
        if error is None:
            kept.set_result(None)
        else:
            kept.set_exception(error)


def keep_through_fork(guard: Guard) -> None:
    """Has the guard's log begun anew in every child process."""
    _guards.add(guard)


def _after_fork_in_child() -> None:
    for guard in list(_guards):
        guard.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
