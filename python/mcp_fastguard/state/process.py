"""A process's own windows, which stand in where the store cannot be asked or believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard.limits import MeteredWindow, SlidingWindow
from mcp_fastguard.state.places import ProcessPlaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_fastguard.state.limits import Charge, Debt

__all__ = ["BOUND", "ProcessWindows", "admit_all"]

# The windows of a process hold what the store admits to it. They are an eighth shorter than the rule says, so that they
# never refuse what an honest store admits: their slots begin elsewhere, and answers arrive late.
BOUND = 7 / 8


class _Windows:
    """A process's own windows, by quota and length."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, float], SlidingWindow] = {}

    def of(self, quota: int, window: float) -> SlidingWindow:
        found = self._windows.get((quota, window))
        if found is None:
            found = self._windows[quota, window] = SlidingWindow(quota, window)
        return found


class _Metered:
    """The same, of what results have."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, float], MeteredWindow] = {}

    def of(self, quota: int, window: float) -> MeteredWindow:
        found = self._windows.get((quota, window))
        if found is None:
            found = self._windows[quota, window] = MeteredWindow(quota, window)
        return found


class ProcessWindows:
    """A process's own windows: what the store admits to it at most, and its share for when the store is away. And its calls that
    run.
    """

    def __init__(self) -> None:
        self.bounds = _Windows()
        self.shares = _Windows()
        self.metered_bounds = _Metered()
        self.metered_shares = _Metered()
        self.places = ProcessPlaces()

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
