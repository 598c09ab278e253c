"""A process's own windows, which stand in where the store cannot be asked or believed, and its permits in those of all."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from mcp_fastguard._fastguard import Permits
from mcp_fastguard.limits import MeteredWindow, SlidingWindow
from mcp_fastguard.state.leases import Turns
from mcp_fastguard.state.places import ProcessPlaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_fastguard.state.limits import Charge, Debt

__all__ = ["BOUND", "ProcessWindows", "admit_all"]

Window = TypeVar("Window", bound=SlidingWindow | MeteredWindow)

# The windows of a process hold what the store admits to it. They are an eighth shorter than the rule says, so that they
# never refuse what an honest store admits: their slots begin elsewhere, and answers arrive late. Those of calls are the core's.
BOUND = 7 / 8


class _Windows(Generic[Window]):
    """A process's own windows, by quota and length."""

    def __init__(self, make: Callable[[int, float], Window]) -> None:
        self._make = make
        self._windows: dict[tuple[int, float], Window] = {}

    def of(self, quota: int, window: float) -> Window:
        found = self._windows.get((quota, window))
        if found is None:
            found = self._windows[quota, window] = self._make(quota, window)
        return found


class ProcessWindows:
    """A process's own windows: what the store admits to it at most, and its share for when the store is away. Its permits in the
    windows of all processes, and its calls that run. All event loops and threads of a process share it.

    Args:
        processes: how many processes share the quotas.
        permits: those of the guard; default: this object's alone.
    """

    def __init__(self, processes: int, permits: Permits | None = None) -> None:
        # Permits that are none yet are permits.
        self.permits = Permits(processes) if permits is None else permits
        self.turns = Turns()
        self.bounds = _Windows(self.permits.bound)
        self.shares = _Windows(self.permits.share)
        self.metered_bounds = _Windows(MeteredWindow)
        self.metered_shares = _Windows(MeteredWindow)
        self.places = ProcessPlaces()
        _all.add(self)

    def after_fork(self) -> None:
        """In a child process: the permits, and who waits for more, are the parent's."""
        self.permits.after_fork()
        self.turns = Turns()

    def charge(self, debts: Sequence[Debt], processes: int) -> None:
        """Charges them for a call that has ended, whatever the store will say."""
        for debt in debts:
            self.metered_bounds.of(debt.quota, debt.window * BOUND).charge(debt.key, debt.amount)
            self.metered_shares.of(debt.quota // processes, debt.window).charge(debt.key, debt.amount)


def admit_all(
    windows: Sequence[SlidingWindow | MeteredWindow], charges: Sequence[Charge]
) -> tuple[int, float, int] | None:
    """Charges all, or none and says which one waits longest, how long, and what it has left. Nothing else runs in between on a
    thread of an event loop.
    """
    worst: tuple[int, float, int] | None = None
    for place, (window, charge) in enumerate(zip(windows, charges, strict=True)):
        left, retry_after = _room(window, charge)
        if retry_after is not None and (worst is None or retry_after > worst[1]):
            worst = (place, retry_after, left)
    if worst is None:
        for place, (window, charge) in enumerate(zip(windows, charges, strict=True)):
            # A table that is full, or a second thread, refuses here what was free above.
            if isinstance(window, SlidingWindow) and not window.admit(charge.key, charge.cost):
                return place, charge.window / 64, 0
    return worst


def _room(window: SlidingWindow | MeteredWindow, charge: Charge) -> tuple[int, float | None]:
    """What is left, and in how many seconds there is room where there is none."""
    if isinstance(window, MeteredWindow):
        look = window.look(charge.key)
        return look.remaining, None if look else look.retry_after or charge.window
    left = window.admit(charge.key, 0).remaining
    if left >= charge.cost:
        return left, None
    return left, window.admit(charge.key, charge.cost).retry_after or charge.window


_all: weakref.WeakSet[ProcessWindows] = weakref.WeakSet()


def _after_fork() -> None:
    for windows in list(_all):
        windows.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
