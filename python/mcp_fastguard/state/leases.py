"""Permits that a process holds in advance (mode leased): what it asks for, what it may still use, what it gives back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from mcp_fastguard.state.window_script import Ask, Given

#: A lease lasts at most this part of the window.
LEASE_PART = 1 / 20
#: Permits of one lease: at most the quota over this many times the number of processes. Seven idle processes of eight then
#: hold less than a sixteenth of the quota.
_SHARE_PART = 16
#: A rule needs this many permits for each process, and a window of this many seconds.
LEAST_FOR_EACH, SHORTEST_LEASED = 128, 10.0


#: Seconds that a lease must have left where a call waits for the store: a permit is used when the call is decided.
LEAST_LEFT = 0.1


def is_leasable(quota: int, window: float, processes: int) -> bool:
    """Whether a rule is large enough for leases; others run exact."""
    return quota >= LEAST_FOR_EACH * processes and window >= SHORTEST_LEASED


@dataclass(slots=True)
class Lease:
    """The permits of one window in this process.

    A lease begins when it is asked for, so that it ends here before the store can think so. The store counts its permits for
    the window and a lease more than that (`ask`). Permits that were not used go back once, with the next question; where that
    is lost, they stay counted.
    """

    permits: int = 0
    ends_at: float = 0.0
    slot: int = 0
    remaining: int = 0
    #: Until then the store had no room, and is not asked again.
    refused_until: float = 0.0
    #: When there is room, if nobody gives anything back before.
    free_at: float = 0.0
    #: Permits used under the running lease, from which the next is sized.
    used: int = 0
    wanted: int = 1
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def has(self, cost: int, least_left: float = 0.0) -> bool:
        """Whether the lease has permits, and runs for more than so many seconds."""
        return self.permits >= cost and time.monotonic() + least_left < self.ends_at

    def has_ended(self) -> bool:
        """Whether its permits may no longer be used."""
        return time.monotonic() >= self.ends_at

    def take(self, cost: int) -> None:
        """Uses permits that it `has`."""
        self.permits -= cost
        self.used += cost

    def put_back(self, cost: int, ends_at: float) -> None:
        """Undoes `take` for a call that another rule refused; nothing, when the lease is another by now."""
        if self.ends_at == ends_at:
            self.permits += cost
            self.used -= cost

    def ask(self, key: bytes, quota: int, window: float, cost: int, processes: int) -> Ask:
        """What the store is asked for: at least the cost, and as much as the last lease needed, and half again."""
        most = max(1, quota // (_SHARE_PART * processes))
        # A lease that was used up before its end was too small; one that was not, too large.
        self.wanted = min(most, self.wanted * 2 if self.permits < cost else self.used + self.used // 2 + 1)
        spare, self.permits = self.permits, 0
        # The window of the store is longer by a lease: a permit counts until a whole window after its lease has ended.
        return Ask(key, quota, window * (1 + LEASE_PART), cost, max(cost, self.wanted), self.slot, spare)

    def grant(self, given: Given, sent: float, window: float, cost: int) -> None:
        """Begins a lease, and uses the cost. Its clock ran from before the question was sent."""
        self.permits, self.slot, self.remaining = given.granted - cost, given.slot, given.remaining
        self.ends_at, self.used, self.refused_until = sent + window * LEASE_PART, cost, 0.0

    def refuse(self, retry_after: float, window: float) -> None:
        """Remembers that there was no room, for a while: what others give back makes room before `retry_after`."""
        self.wanted = 1
        now = time.monotonic()
        self.free_at = now + retry_after
        self.refused_until = now + min(retry_after, window / 160)


class LeaseTable:
    """The leases of a process. A full table forgets those that have ended; what they did not use stays counted.

    Args:
        most: how many at once. Beyond it, rules run exact.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._leases: dict[tuple[bytes, int, float], Lease] = {}
        self._most = most

    def of(self, key: bytes, quota: int, window: float) -> Lease | None:
        """The lease of a window; None where the table is full of running ones."""
        found = self._leases.get((key, quota, window))
        if found is None:
            if len(self._leases) >= self._most:
                self._sweep()
                if len(self._leases) >= self._most:
                    return None
            found = self._leases[key, quota, window] = Lease()
        return found

    def _sweep(self) -> None:
        ended = [key for key, lease in self._leases.items() if lease.has_ended() and not lease.asking.locked()]
        for key in ended:
            del self._leases[key]
