"""Holds the threads of this package while their process forks.

A fork copies locks as they are. Within a step a thread may hold those of imports, of OpenSSL or of a gate, and no thread of the
child would ever release them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Parked", "park", "park_at_forks"]

#: Seconds that a fork waits at most. The longest step of a fetch reads the system's certificates, in 70 ms.
PARK_WITHIN: Final = 1.0


class Parked(Protocol):
    """What has a thread."""

    def park(self) -> Callable[[], None] | None:
        """Holds the thread, if there is one, till the function that it gives is called."""


def park(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> Callable[[], None]:
    """Holds a thread between two steps of its loop, till the function that it gives is called."""
    is_parked, is_over = threading.Event(), threading.Event()

    def wait() -> None:
        is_parked.set()
        # Bounded, so that no lost call ends the thread's work for good.
        is_over.wait(10 * PARK_WITHIN)

    if thread is not threading.current_thread():
        # A loop that was closed has no steps left.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wait)
            is_parked.wait(PARK_WITHIN)
    return is_over.set


def park_at_forks(one: Parked) -> None:
    """Has it parked at every fork of this process, as long as it is there."""
    _all.add(one)


_all: weakref.WeakSet[Parked] = weakref.WeakSet()
#: By the thread that forks, for several may at once.
_releases: dict[int, list[Callable[[], None]]] = {}


def _park() -> None:
    releases = [one.park() for one in tuple(_all)]
    _releases[threading.get_ident()] = [release for release in releases if release is not None]


def _resume() -> None:
    for release in _releases.pop(threading.get_ident(), ()):
        release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_park, after_in_parent=_resume, after_in_child=_releases.clear)
