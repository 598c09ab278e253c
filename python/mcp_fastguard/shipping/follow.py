"""Reads logs while they are written: new lines, new files, new logs of other processes, and checkpoints."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

__all__ = ["Checkpoint", "Line", "Place", "checkpoint_of", "log_folders", "read_on", "waiting"]

logger = logging.getLogger("mcp_fastguard.shipping")

#: The longest line that the core writes is shorter.
MAX_LINE_BYTES: Final = 16 * 1024 * 1024

#: The number that every line begins with.
_SEQUENCE: Final = re.compile(rb'\{"seq":(\d{1,19})[,}]')
_FILE: Final = re.compile(r"\d{6,}\.jsonl")


class Place(NamedTuple):
    """How far a log was read."""

    #: The number of the file; 0 before the first.
    file: int = 0
    #: Which file had that number: another one is read from its start.
    inode: int = 0
    #: Where the next line begins.
    offset: int = 0
    #: The ``seq`` of the next line.
    records: int = 0
    #: How many records the last checkpoint covered that was seen.
    checkpoint: int = 0
    #: Whether the last line seals the log.
    is_sealed: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more can come."""
        return self.is_sealed and self.checkpoint >= self.records


class Line(NamedTuple):
    """A line of a log, without its newline."""

    log: str
    seq: int
    text: bytes


class Checkpoint(NamedTuple):
    """A signed checkpoint."""

    log: str
    #: How many records it covers.
    records: int
    note: str


def log_folders(base: Path, done: Container[str] = ()) -> list[Path]:
    """The folders of the logs, oldest first; without those that are ``done``, which are not looked into."""
    try:
        return sorted(found for found in base.iterdir() if found.name not in done and _files(found))
    except FileNotFoundError:
        return []


def checkpoint_of(log: Path) -> Checkpoint | None:
    """The newest checkpoint of a log; None where there is none that can be read."""
    try:
        note = (log / "checkpoint").read_text(encoding="utf-8")
        _, size, _ = note.split("\n", 2)
        return Checkpoint(log.name, int(size), note)
    except (OSError, ValueError):
        return None


def read_on(log: Path, place: Place, max_lines: int, max_bytes: int) -> tuple[list[Line], Place]:
    """The lines that follow a place, at most so many, and the place after them. At least one, however long, if there is one.

    A half-written last line is left for later. Where a file is another than before, or shorter, it is read from its start: lines
    come twice then, and never not at all.
    """
    lines: list[Line] = []
    size = 0
    while len(lines) < max_lines and size < max_bytes and not place.is_sealed:
        # Listed before the file is read: once there is a next one, nothing more comes into this one.
        later = [number for number in _files(log) if number > place.file]
        before = len(lines)
        place = _read_file(log, place, lines, max_lines, max_bytes - size)
        size += sum(len(line.text) for line in lines[before:])
        if len(lines) == before:
            if not later:
                break
            place = place._replace(file=later[0], inode=0, offset=0)
    return lines, place


def _read_file(log: Path, place: Place, lines: list[Line], max_lines: int, max_bytes: int) -> Place:
    if place.file == 0:
        return place
    try:
        file = (log / f"{place.file:06}.jsonl").open("rb")
    except FileNotFoundError:
        # Taken back by its writer, or pruned; what follows it is read.
        return place
    with file:
        status = os.fstat(file.fileno())
        if place.inode not in {0, status.st_ino} or status.st_size < place.offset:
            logger.warning("%s: file %06d was cut or replaced, and is read again", log.name, place.file)
            place = place._replace(offset=0)
        place = place._replace(inode=status.st_ino)
        file.seek(place.offset)
        size = 0
        while len(lines) < max_lines and size < max_bytes:
            text = file.readline(MAX_LINE_BYTES)
            if not text.endswith(b"\n"):
                break
            size += len(text)
            place = _take(log, place._replace(offset=place.offset + len(text)), text[:-1], lines)
    return place


def _take(log: Path, place: Place, text: bytes, lines: list[Line]) -> Place:
    found = _SEQUENCE.match(text)
    if found is None:
        logger.warning("%s: a line of file %06d is no record, and is passed over", log.name, place.file)
        return place
    seq = int(found[1])
    lines.append(Line(log.name, seq, text))
    is_seal = b'"event_type":"log_sealed"' in text[:128]
    return place._replace(records=seq + 1, is_sealed=is_seal)


def _files(log: Path) -> list[int]:
    """The numbers of a log's files, in their order."""
    try:
        return sorted(int(file.name[:-6]) for file in log.iterdir() if _FILE.fullmatch(file.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def waiting(log: Path, place: Place) -> tuple[int, bytes]:
    """How many bytes follow a place, and the first line of them; no file is read but for that line."""
    size, first = 0, b""
    for number in _files(log):
        if number < place.file:
            continue
        try:
            length = (log / f"{number:06}.jsonl").stat().st_size
        except FileNotFoundError:
            continue
        offset = place.offset if number == place.file and length >= place.offset else 0
        size += length - offset
        if length > offset and not first:
            with (log / f"{number:06}.jsonl").open("rb") as file:
                file.seek(offset)
                first = file.readline(MAX_LINE_BYTES)
    return size, first
