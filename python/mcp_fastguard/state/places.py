"""The calls that run in this process, of rules that say how many may run at once in all."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HOLD_EVERY", "LIFETIME", "Place", "ProcessPlaces"]

#: Seconds after which the store forgets a place whose process does not say that its call runs.
LIFETIME: Final = 15.0
#: A process says so every so many seconds. Four times in a row it may go wrong.
HOLD_EVERY: Final = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """A place that a call needs until it ends.

    Args:
        rule: the rule's name, for the answer.
        key: 16 bytes that name what is counted, the same in every process.
        most: how many calls may run at once.
    """

    rule: str
    key: bytes
    most: int


class ProcessPlaces:
    """Which places the calls of this process hold. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[bytes, tuple[bytes, ...]] = {}
        self._counts: dict[bytes, int] = {}

    def enter(self, call: bytes, places: Sequence[Place], *, processes: int | None = None) -> int | None:
        """A call begins. Gives the place that is not free, and enters none then.

        Args:
            call: 16 bytes that no other call has.
            places: what it needs.
            processes: where the store cannot be asked: how many share what there is. None where it has said that there is room.
        """
        with self._lock:
            if processes is not None:
                for at, place in enumerate(places):
                    if self._counts.get(place.key, 0) >= place.most // processes:
                        return at
            self._calls[call] = tuple(place.key for place in places)
            for place in places:
                self._counts[place.key] = self._counts.get(place.key, 0) + 1
        return None

    def leave(self, call: bytes) -> tuple[bytes, ...]:
        """A call has ended. Gives the keys of its places; none where it never began, or has left already."""
        with self._lock:
            keys = self._calls.pop(call, ())
            for key in keys:
                left = self._counts[key] - 1
                if left:
                    self._counts[key] = left
                else:
                    del self._counts[key]
        return keys

    def held(self) -> list[tuple[bytes, bytes]]:
        """The key and the call of every place that is held."""
        with self._lock:
            return [(key, call) for call, keys in self._calls.items() for key in keys]
