"""A file of entries, one a line, that is watched."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, BinaryIO, Final

from mcp_fastguard.revocations.entry import MAX_ENTRY_BYTES, Entry, EntryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["EntryFile", "append"]

logger = logging.getLogger("mcp_fastguard")

#: A file that is longer is none of ours.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024


class EntryFile:
    """Reads what was appended since the last look. A file that was replaced or cut back is read anew.

    Args:
        path: the file.
        apply: takes each entry. What it raises ends the look; the entry comes again at the next.
    """

    def __init__(self, path: Path, apply: Callable[[Entry], None]) -> None:
        self._path = path
        self._apply = apply
        self._seen: tuple[int, int] | None = None
        self._offset = 0
        self._line = 0

    def look(self) -> None:
        """Takes in what is new. A line that is no entry is told, and passed over.

        Raises:
            OSError: the file cannot be read; one that is not there counts so too.
        """
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_FILE_BYTES:
                raise OSError("the file is too large")
            this = (status.st_dev, status.st_ino)
            if this != self._seen or status.st_size < self._offset:
                self._seen, self._offset, self._line = this, 0, 0
            if status.st_size == self._offset:
                return
            file.seek(self._offset)
            self._read(file)

    def _read(self, file: BinaryIO) -> None:
        while line := file.readline(MAX_ENTRY_BYTES + 2):
            # One without an end is being written; unless it is too long for that.
            if not line.endswith(b"\n") and len(line) <= MAX_ENTRY_BYTES:
                return
            while not line.endswith(b"\n"):
                rest = file.readline(MAX_ENTRY_BYTES)
                if not rest:
                    return
                line = line[:MAX_ENTRY_BYTES] + b" " + rest
            if line.strip():
                try:
                    entry = Entry.of(line.rstrip(b"\r\n"))
                except EntryError as error:
                    logger.warning("%s:%d: %s; the line is passed over", self._path, self._line + 1, error)
                else:
                    self._apply(entry)
            self._offset, self._line = file.tell(), self._line + 1


def append(path: Path, entry: Entry) -> None:
    """Appends an entry, in one write, and waits until it is on disk. Makes the file where there is none.

    Raises:
        OSError: it could not be written.
    """
    line = entry.text() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError("the line was not written whole")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
