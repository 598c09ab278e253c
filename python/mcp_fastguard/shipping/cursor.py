"""How far each log was shipped to one place: a small file, written anew and synced after each batch."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.shipping.follow import Place
from mcp_fastguard.shipping.sink import ShipError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Cursor", "cursor_file", "held"]

_VERSION: Final = 1


@dataclass
class Cursor:
    """What one place has, and how it went."""

    places: dict[str, Place] = field(default_factory=dict)
    #: Records and checkpoints that it has taken.
    shipped: int = 0
    #: Of those, the ones that it said it could not use.
    rejected: int = 0
    #: Batches that failed in a row.
    failures: int = 0
    #: Why the last one failed; None where it did not.
    last_error: str | None = None
    #: When it last took something, in seconds since the epoch.
    shipped_at: float | None = None

    @property
    def done(self) -> set[str]:
        """The logs of which nothing more can come."""
        return {name for name, place in self.places.items() if place.is_done}

    @classmethod
    def read(cls, file: Path) -> Cursor:
        """The cursor in a file; a new one where there is no file.

        Raises:
            ShipError: the file holds no cursor. To begin anew, which ships all again, somebody must remove it.
        """
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if found.pop("version") != _VERSION:
                raise ShipError(f"{file}: a cursor of another version")
            places = {name: Place(*place) for name, place in found.pop("places").items()}
            return cls(places=places, **found)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShipError(f"{file}: no cursor: {type(error).__name__}; remove it to ship everything again") from error

    def write(self, file: Path, *, durable: bool = True) -> None:
        """Writes it, so that there is the old one or the new one at any time, and after a power loss too where ``durable``."""
        text = json.dumps({"version": _VERSION, **asdict(self), "places": self.places}, separators=(",", ":"))
        file.parent.mkdir(mode=0o700, exist_ok=True)
        draft = file.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text + "\n")
            if durable:
                opened.flush()
                os.fsync(opened.fileno())
        draft.replace(file)
        if durable:
            _sync_folder(file.parent)


def cursor_file(base: Path, name: str) -> Path:
    """Where the cursor of a place is, in the folder of the logs."""
    return base / "ship" / f"{name}.json"


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Holds a cursor: two processes must not ship by the same one. The system lets go of it when the process ends.

    Raises:
        ShipError: another process has it.
    """
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise ShipError(f"{file}: another process ships by this cursor") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - is only there

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - is not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
