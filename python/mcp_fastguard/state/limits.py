"""Limits that several processes share: one window for all of them, in Redis or Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Self, cast

from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.state.leases import LEAST_LEFT, Lease, LeaseTable, is_leasable
from mcp_fastguard.state.window_script import Ask, LimitStore, StoreUnavailable, WindowScript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Admitted",
    "Charge",
    "LimitStore",
    "Mode",
    "ProcessWindows",
    "Refused",
    "SharedLimits",
    "Standing",
    "StoreUnavailable",
]

# The windows of a process hold what the store admits to it. They are an eighth shorter than the rule says, so that they
# never refuse what an honest store admits: their slots begin elsewhere, and answers arrive late.
_BOUND = 7 / 8

_KEY_BYTES = 16
_MOST = 2**32 - 1
_SHORTEST, _LONGEST = 0.001, 31 * 86_400


class Mode(StrEnum):
    """How a call was decided; for the record."""

    EXACT = "exact"
    LEASED = "leased"
    #: The store was unavailable: the process's own windows, with the quota divided by the number of processes.
    LOCAL = "local"
    #: The store was unavailable, and such calls are refused.
    REFUSE = "refuse"
    #: The store admitted more than the quota to this process alone; the process refused it.
    OVERDRAWN = "overdrawn"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call is charged by one rule.

    Args:
        rule: the rule's name, for the answer.
        key: 16 bytes that name the window, the same in every process: never a hash under a key of the process's own.
        quota: how many, 0 to 4294967295.
        window: seconds, 0.001 to 31 days.
        cost: how much, at least 1.
    """

    rule: str
    key: bytes
    quota: int
    window: float
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How a window stands after a call, as far as this process knows."""

    rule: str
    remaining: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """Every window had room, and all were charged."""

    standings: tuple[Standing, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Refused:
    """A window had no room, and none was charged. After `retry_after` seconds it has, when nobody else is charged meanwhile.

    `place` is that of its charge, and `remaining` what it has left, which is less than the cost.
    """

    rule: str
    retry_after: float
    mode: Mode
    place: int = 0
    remaining: int = 0


class _Windows:
    """A process's own windows, by quota and length."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, float], SlidingWindow] = {}

    def of(self, quota: int, window: float) -> SlidingWindow:
        found = self._windows.get((quota, window))
        if found is None:
            found = self._windows[quota, window] = SlidingWindow(quota, window)
        return found


class ProcessWindows:
    """A process's own windows: what the store admits to it at most, and its share for when the store is away."""

    def __init__(self) -> None:
        self.bounds = _Windows()
        self.shares = _Windows()


class SharedLimits:
    """Checks all windows of a call, then charges all, in the store.

    Args:
        store: a `LimitStore`; whatever it raises counts as unavailable. It must keep a time budget of its own.
        mode: ``"exact"``, one round trip for each call, or ``"leased"``: a process takes permits in advance, and rules with less
            than 128 permits for each process or windows under 10 s run exact by themselves (see `is_leased`).
        processes: how many processes share the quotas, at least 1. Too small a number admits more than the quota while the store
            is unavailable.
        degrade: what holds while the store is unavailable: ``"local"``, each process its share of the quota, or ``"refuse"``.
        windows: the process's own, where several event loops of it share the quotas; default: this object's alone.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        store: LimitStore,
        *,
        processes: int,
        mode: Literal["exact", "leased"] = "exact",
        degrade: Literal["local", "refuse"] = "local",
        windows: ProcessWindows | None = None,
    ) -> None:
        if processes < 1:
            raise ValueError("`processes` must be at least 1")
        if mode not in {"exact", "leased"}:
            raise ValueError(f"`mode` must be `exact` or `leased`, not `{mode}`")
        if degrade not in {"local", "refuse"}:
            raise ValueError(f"`degrade` must be `local` or `refuse`, not `{degrade}`")
        self._script = WindowScript(store)
        self._processes = processes
        self._mode = mode
        self._degrade = degrade
        self._leases = LeaseTable()
        own = windows or ProcessWindows()
        self._bounds, self._shares = own.bounds, own.shares

    def is_leased(self, quota: int, window: float) -> bool:
        """Whether a rule of this quota and window (seconds) takes permits in advance; the others run exact."""
        return self._mode == "leased" and is_leasable(quota, window, self._processes)

    async def admit(self, charges: Sequence[Charge]) -> Admitted | Refused:
        """Decides a call.

        Args:
            charges: one for each rule that counts the call, no two with the same key.

        Raises:
            ValueError: a charge cannot be counted.
        """
        _check(charges)
        try:
            if self._mode == "leased" and any(self.is_leased(charge.quota, charge.window) for charge in charges):
                return await self._leased(charges)
            return await self._exact(charges)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 -- whatever a store raises, the answer is the declared one
            return self._degraded(charges)

    async def _exact(self, charges: Sequence[Charge]) -> Admitted | Refused:
        asks = [Ask(charge.key, charge.quota, charge.window, charge.cost, charge.cost) for charge in charges]
        answer = await self._script.ask(asks)
        if answer.refused is not None:
            place, left = answer.refused, answer.given[answer.refused].remaining
            return Refused(charges[place].rule, answer.retry_after, Mode.EXACT, place, left)
        standings = tuple(
            Standing(charge.rule, given.remaining) for charge, given in zip(charges, answer.given, strict=True)
        )
        return self._bounded(charges, Admitted(standings, Mode.EXACT))

    async def _leased(self, charges: Sequence[Charge]) -> Admitted | Refused:
        """Uses the permits at hand, and asks for what is lacking in one question together with the exact rules."""
        leases = [
            self._leases.of(charge.key, charge.quota, charge.window)
            if self.is_leased(charge.quota, charge.window)
            else None
            for charge in charges
        ]
        while True:
            lacking = _lacking(charges, leases, LEAST_LEFT if None in leases else 0.0)
            if lacking:
                # What must be asked for anyway takes those along that would end while the answer is under way.
                lacking = _lacking(charges, leases, LEAST_LEFT)
            if not lacking and None not in leases:
                for charge, lease in zip(charges, leases, strict=True):
                    cast("Lease", lease).take(charge.cost)
                return self._bounded(charges, self._stand(charges, leases, {}))
            async with contextlib.AsyncExitStack() as asking:
                # One question at a time for each lease; in the order of their keys, so that no two calls wait for each other.
                for at in sorted(lacking, key=lambda at: charges[at].key):
                    await asking.enter_async_context(cast("Lease", leases[at]).asking)
                still = _lacking(charges, leases, LEAST_LEFT)
                if (still or None in leases) and set(still) <= set(lacking):
                    return await self._ask(charges, leases, still)

    async def _ask(
        self, charges: Sequence[Charge], leases: Sequence[Lease | None], lacking: Sequence[int]
    ) -> Admitted | Refused:
        sent = time.monotonic()
        for at in lacking:
            lease = cast("Lease", leases[at])
            if sent < lease.refused_until:
                return Refused(charges[at].rule, lease.free_at - sent, Mode.LEASED, at, lease.permits)
        asked = [at for at, lease in enumerate(leases) if lease is None or at in lacking]
        with _Reserved(charges, leases, asked) as reserved:
            answer = await self._script.ask([self._question(charges[at], leases[at]) for at in asked])
            if answer.refused is not None:
                place = asked[answer.refused]
                refused, spent = charges[place], leases[place]
                if spent is not None:
                    spent.refuse(answer.retry_after, refused.window)
                left = answer.given[answer.refused].remaining
                return Refused(refused.rule, answer.retry_after, Mode.LEASED, place, left)
            reserved.keep()
        exact = {at: given.remaining for at, given in zip(asked, answer.given, strict=True)}
        for at, given in zip(asked, answer.given, strict=True):
            if (leased := leases[at]) is not None:
                leased.grant(given, sent, charges[at].window, charges[at].cost)
        if reserved.has_ended() or any(cast("Lease", leases[at]).has_ended() for at in lacking):
            raise StoreUnavailable("the answer came after a lease had ended")
        return self._bounded(charges, self._stand(charges, leases, exact))

    def _question(self, charge: Charge, lease: Lease | None) -> Ask:
        if lease is None:
            return Ask(charge.key, charge.quota, charge.window, charge.cost, charge.cost)
        return lease.ask(charge.key, charge.quota, charge.window, charge.cost, self._processes)

    def _stand(self, charges: Sequence[Charge], leases: Sequence[Lease | None], exact: Mapping[int, int]) -> Admitted:
        standings = tuple(
            Standing(charge.rule, exact[at] if lease is None else lease.remaining + lease.permits)
            for at, (charge, lease) in enumerate(zip(charges, leases, strict=True))
        )
        return Admitted(standings, Mode.LEASED)

    def _bounded(self, charges: Sequence[Charge], admitted: Admitted) -> Admitted | Refused:
        """Charges the process's own windows, which hold even where the store's answer was forged."""
        bounds = [self._bounds.of(charge.quota, charge.window * _BOUND) for charge in charges]
        refused = _admit_all(bounds, charges)
        if refused is not None:
            return _refused(charges, refused, Mode.OVERDRAWN)
        for charge in charges:
            share = self._shares.of(charge.quota // self._processes, charge.window)
            # What does not fit fills it: should the store fail now, this process has had its share.
            if not share.admit(charge.key, charge.cost):
                share.admit(charge.key, share.admit(charge.key, 0).remaining)
        return admitted

    def _degraded(self, charges: Sequence[Charge]) -> Admitted | Refused:
        if self._degrade == "refuse":
            return Refused(charges[0].rule, 1.0, Mode.REFUSE)
        shares = [self._shares.of(charge.quota // self._processes, charge.window) for charge in charges]
        refused = _admit_all(shares, charges)
        if refused is not None:
            return _refused(charges, refused, Mode.LOCAL)
        standings = tuple(
            Standing(charge.rule, share.admit(charge.key, 0).remaining)
            for charge, share in zip(charges, shares, strict=True)
        )
        return Admitted(standings, Mode.LOCAL)


class _Reserved:
    """Permits at hand of a call that waits for the store, put back unless the store admits it."""

    def __init__(self, charges: Sequence[Charge], leases: Sequence[Lease | None], asked: Sequence[int]) -> None:
        at_hand = [at for at, lease in enumerate(leases) if lease is not None and at not in asked]
        self._taken = [(lease, charges[at].cost, lease.ends_at) for at in at_hand if (lease := leases[at]) is not None]
        self._kept = False

    def __enter__(self) -> Self:
        for lease, cost, _ in self._taken:
            lease.take(cost)
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._kept:
            for lease, cost, ends_at in self._taken:
                lease.put_back(cost, ends_at)

    def keep(self) -> None:
        self._kept = True

    def has_ended(self) -> bool:
        """Whether a permit would be used after the end of its lease."""
        return any(ends_at <= time.monotonic() for _, _, ends_at in self._taken)


def _lacking(charges: Sequence[Charge], leases: Sequence[Lease | None], least_left: float) -> list[int]:
    """Which leases have too little, or end within so many seconds."""
    return [
        at
        for at, (charge, lease) in enumerate(zip(charges, leases, strict=True))
        if lease is not None and not lease.has(charge.cost, least_left)
    ]


def _admit_all(windows: Sequence[SlidingWindow], charges: Sequence[Charge]) -> tuple[int, float, int] | None:
    """Charges all, or none and says which one waits longest, how long, and what it has left. Nothing else runs in between on a
    thread of an event loop.
    """
    worst: tuple[int, float, int] | None = None
    for place, (window, charge) in enumerate(zip(windows, charges, strict=True)):
        left = window.admit(charge.key, 0).remaining
        if left < charge.cost:
            retry_after = window.admit(charge.key, charge.cost).retry_after or charge.window
            if worst is None or retry_after > worst[1]:
                worst = (place, retry_after, left)
    if worst is None:
        for place, (window, charge) in enumerate(zip(windows, charges, strict=True)):
            # A table that is full, or a second thread, refuses here what was free above.
            if not window.admit(charge.key, charge.cost):
                return place, charge.window / 64, 0
    return worst


def _refused(charges: Sequence[Charge], found: tuple[int, float, int], mode: Mode) -> Refused:
    place, retry_after, left = found
    return Refused(charges[place].rule, retry_after, mode, place, left)


def _check(charges: Sequence[Charge]) -> None:
    if len({charge.key for charge in charges}) != len(charges):
        raise ValueError("two charges have the same key")
    for charge in charges:
        if len(charge.key) != _KEY_BYTES:
            raise ValueError(f"the key of rule `{charge.rule}` is not 16 bytes long")
        if charge.cost < 1 or not 0 <= charge.quota <= _MOST or not _SHORTEST <= charge.window <= _LONGEST:
            raise ValueError(f"rule `{charge.rule}` cannot be counted")
