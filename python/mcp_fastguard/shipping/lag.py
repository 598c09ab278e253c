"""How far a place is behind, as the disk tells it: also where the shipper does not run."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mcp_fastguard.shipping.cursor import Cursor, cursor_file
from mcp_fastguard.shipping.follow import Place, log_folders, waiting

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Lag", "lag_of"]


class Lag(NamedTuple):
    """How far one place is behind, of all logs of a folder."""

    #: Bytes of lines that it does not have.
    waiting: int
    #: The age of the oldest of these lines, in seconds; 0.0 where none waits.
    seconds: float
    #: As of the cursor.
    shipped: int
    rejected: int
    failures: int


def lag_of(base: Path, name: str, now: float) -> Lag:
    """Reads the cursor, the sizes of the files, and one line of each log that is behind.

    Raises:
        ShipError: the cursor is none.
    """
    cursor = Cursor.read(cursor_file(base, name))
    total, oldest = 0, now
    for log in log_folders(base, cursor.done):
        size, first = waiting(log, cursor.places.get(log.name, Place()))
        total += size
        if size:
            oldest = min(oldest, _time_of(first, now))
    return Lag(total, max(0.0, now - oldest), cursor.shipped, cursor.rejected, cursor.failures)


def _time_of(line: bytes, now: float) -> float:
    """When a line was written; now where it does not say, as one that is half there."""
    try:
        return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return now
