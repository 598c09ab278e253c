"""Writes records into files of a folder that a SIEM's own agent reads: a file per log and day."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mcp_fastguard.shipping.formats import FORMATS
from mcp_fastguard.shipping.sink import ShipError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mcp_fastguard.shipping.item import Item
    from mcp_fastguard.shipping.settings import ShipSettings

__all__ = ["FileSink"]


class FileSink:
    """A folder: ``LOG/2026-11-28.jsonl``, one line a record; ``.cef`` where that is the format."""

    pause = 1.0
    max_records = 10_000
    max_bytes = 8 * 1024 * 1024

    def __init__(self, settings: ShipSettings) -> None:
        assert settings.path is not None  # noqa: S101 - the core has looked
        self._folder = settings.path
        self._format = FORMATS[settings.format]
        self._suffix = "cef" if settings.format == "cef" else "jsonl"

    def send(self, items: Sequence[Item]) -> int:
        """Appends, and returns once all is on disk."""
        lines: dict[tuple[str, str], list[str]] = {}
        for item in items:
            lines.setdefault((item.log, item.timestamp[:10]), []).append(self._format(item))
        try:
            for (log, day), texts in lines.items():
                _append(self._folder / log / f"{day}.{self._suffix}", "".join(f"{text}\n" for text in texts).encode())
        except OSError as error:
            raise ShipError(f"{self._folder}: {error.strerror or type(error).__name__}") from error
        return 0

    def close(self) -> None:
        """No file stays open between batches: who reads them may take them away."""


def _append(file: Path, content: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _cut_torn_end(descriptor)
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_end(descriptor: int) -> None:
    """What an interrupted batch left of a line goes; the whole line comes again."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - 64 * 1024)
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
