"""Copies the logs of a folder to one place: at least once, in the order of each log."""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mcp_fastguard.shipping.cursor import Cursor, cursor_file, held
from mcp_fastguard.shipping.follow import Place, checkpoint_of, log_folders, read_on
from mcp_fastguard.shipping.item import Item
from mcp_fastguard.shipping.sink import ShipError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from mcp_fastguard.shipping.settings import ShipSettings
    from mcp_fastguard.shipping.sink import Sink

__all__ = ["Shipper", "sink_of"]

logger = logging.getLogger("mcp_fastguard.shipping")

#: Pauses after failures, in seconds: the first, and the longest.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: A place that asks for more time gets so much at most.
LONGEST_WISH: Final = 300.0


def sink_of(settings: ShipSettings) -> Sink:
    """What sends to a place.

    Raises:
        ShipError: it cannot be used: a file is not readable, or an extra is not installed.
    """
    if settings.sink == "file":
        from mcp_fastguard.shipping.file import FileSink  # noqa: PLC0415 - only what is named

        return FileSink(settings)
    if settings.sink == "syslog":
        from mcp_fastguard.shipping.syslog import SyslogSink  # noqa: PLC0415

        return SyslogSink(settings)
    if settings.sink == "otlp":
        from mcp_fastguard.shipping.otlp import OtlpSink  # noqa: PLC0415

        return OtlpSink(settings)
    try:
        from mcp_fastguard.shipping.s3 import S3Sink  # noqa: PLC0415 - needs boto3
    except ModuleNotFoundError as error:
        raise ShipError(f"{error.name} is missing: pip install 'mcp-fastguard[s3]'") from error
    return S3Sink(settings)


class Shipper:
    """Ships the logs of a folder to one place.

    What waits is the log on disk: nothing is held in memory beyond one batch, however long the place is away. The cursor moves on
    once the place has taken a batch, so that a batch whose answer was lost comes twice, with the same ``log`` and ``seq``.

    Args:
        base: the folder of the logs.
        settings: where they go.
        sink: what sends. Default: as the settings say.
        clock: the time, in seconds since the epoch.

    Raises:
        ShipError: the place cannot be used, or the cursor is none.
    """

    def __init__(
        self,
        base: Path,
        settings: ShipSettings,
        *,
        sink: Sink | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._base = base
        self._sink = sink or sink_of(settings)
        self._clock = clock
        self._file = cursor_file(base, settings.name)
        self._cursor = Cursor.read(self._file)
        self._limit = self._sink.max_records
        self._turn = 0

    def step(self) -> float:
        """Ships one batch, if something waits; for how many seconds to pause."""
        try:
            items, places = self._batch()
            rejected = self._sink.send(items) if items else 0
            if items:
                self._taken(len(items), rejected, places)
            elif places:
                self._cursor.places |= places
        except ShipError as error:
            return self._failed(error)
        except OSError as error:
            # The log cannot be read, or the cursor not be written.
            return self._failed(ShipError(f"{error.filename or self._base}: {error.strerror}"))
        if items:
            return 0.0
        self._forget()
        return self._sink.pause

    def run(self, stop: threading.Event) -> None:
        """Ships until somebody says stop.

        Raises:
            ShipError: another process ships by this cursor.
        """
        with held(self._file):
            # Another process may have moved it since.
            self._cursor = Cursor.read(self._file)
            try:
                while not stop.is_set():
                    stop.wait(self.step())
            finally:
                self._sink.close()

    def drain(self) -> None:
        """Ships what waits, and returns; at the first failure too.

        Raises:
            ShipError: a batch did not get there, or another process ships by this cursor.
        """
        with held(self._file):
            self._cursor = Cursor.read(self._file)
            try:
                while self.step() == 0.0:
                    pass
            finally:
                self._sink.close()
        if self._cursor.failures:
            raise ShipError(self._cursor.last_error or "a batch failed")

    def _batch(self) -> tuple[list[Item], dict[str, Place]]:
        """What follows the cursor, and the places after it. Checkpoints come first: they say the most in the fewest bytes."""
        folders = log_folders(self._base, self._cursor.done)
        # Each time another log begins, so that one that is written quickly keeps no other waiting.
        self._turn += 1
        turn = self._turn % max(1, len(folders))
        checkpoints: list[Item] = []
        items: list[Item] = []
        places: dict[str, Place] = {}
        size = 0
        for log in folders[turn:] + folders[:turn]:
            place = before = self._cursor.places.get(log.name, Place())
            checkpoint = checkpoint_of(log)
            if checkpoint is not None and checkpoint.records > place.checkpoint and len(checkpoints) < self._limit:
                checkpoints.append(Item.of_checkpoint(checkpoint, self._clock()))
                place = place._replace(checkpoint=checkpoint.records)
            if len(items) < self._limit and size < self._sink.max_bytes:
                lines, place = read_on(log, place, self._limit - len(items), self._sink.max_bytes - size)
                items += map(Item.of_line, lines)
                size += sum(len(line.text) for line in lines)
            if place != before:
                places[log.name] = place
        return checkpoints + items, places

    def _taken(self, count: int, rejected: int, places: dict[str, Place]) -> None:
        cursor = self._cursor
        if cursor.failures:
            logger.warning("%s: reached again after %d failures", self.settings.name, cursor.failures)
        if rejected:
            logger.error("%s: %d of %d records were refused for good", self.settings.name, rejected, count)
        cursor.places |= places
        cursor.shipped += count
        cursor.rejected += rejected
        cursor.failures, cursor.last_error = 0, None
        cursor.shipped_at = self._clock()
        cursor.write(self._file)
        self._limit = min(self._limit * 2, self._sink.max_records)

    def _failed(self, error: ShipError) -> float:
        cursor = self._cursor
        cursor.failures += 1
        cursor.last_error = str(error)
        if cursor.failures == 1 or cursor.failures % 60 == 0:
            logger.warning("%s: not reached: %s", self.settings.name, error)
        with suppress(OSError):
            cursor.write(self._file, durable=False)
        if error.is_too_much:
            # A record alone that is refused stays where it is, and somebody must look: nothing is passed over.
            self._limit = max(1, self._limit // 2)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(cursor.failures - 1, 10))
        # Shippers that failed together do not come back together.
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return max(pause, min(error.retry_after or 0.0, LONGEST_WISH))

    def _forget(self) -> None:
        """Lets go of the places of logs that are no longer there."""
        names = {found.name for found in self._base.iterdir()}
        gone = [name for name in self._cursor.places if name not in names]
        for name in gone:
            del self._cursor.places[name]
        if gone:
            self._cursor.write(self._file)
