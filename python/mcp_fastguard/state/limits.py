"""Limits that several processes share: one window for all of them, in Redis or Valkey."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from mcp_fastguard._fastguard import LEASE_PART
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.state.leases import Turn
from mcp_fastguard.state.places import LIFETIME, Place, ProcessPlaces
from mcp_fastguard.state.process import BOUND, ProcessWindows, admit_all
from mcp_fastguard.state.window_script import Act, Ask, LimitStore, Spot, StoreUnavailable, WindowScript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mcp_fastguard._fastguard import Asking
    from mcp_fastguard.state.window_script import Answer

__all__ = [
    "Admitted",
    "Charge",
    "Debt",
    "LimitStore",
    "Mode",
    "Place",
    "ProcessPlaces",
    "ProcessWindows",
    "Refused",
    "SharedLimits",
    "Standing",
    "StoreUnavailable",
]

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
        is_look: whether the window is only asked for room for 1: what it counts is known when the call has ended, and charged by
            a `Debt` then. Such a window is counted exactly in every mode, and has no standing in the answer.
    """

    rule: str
    key: bytes
    quota: int
    window: float
    cost: int = 1
    is_look: bool = False


@dataclass(frozen=True, slots=True)
class Debt:
    """What a call that has ended is charged in one window, whether there is room or not.

    Args:
        key: that of the charge that looked.
        quota: as there.
        window: as there.
        amount: how much, at least 1.
    """

    key: bytes
    quota: int
    window: float
    amount: int


class Standing(NamedTuple):
    """How a window stands after a call, as far as this process knows."""

    rule: str
    remaining: int


class Admitted(NamedTuple):
    """Every window had room, and all were charged."""

    standings: tuple[Standing, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Refused:
    """A window had no room, and none was charged. After `retry_after` seconds it has, when nobody else is charged meanwhile.

    `place` is that of its charge, and `remaining` what it has left, which is less than the cost. Places among the calls that run
    come after the charges; no time helps there, and `retry_after` is 0.
    """

    rule: str
    retry_after: float
    mode: Mode
    place: int = 0
    remaining: int = 0


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
        self._own = windows or ProcessWindows(processes)

    def is_leased(self, quota: int, window: float) -> bool:
        """Whether a rule of this quota and window (seconds) takes permits in advance; the others run exact."""
        return self._mode == "leased" and self._own.permits.is_leased(quota, window)

    async def admit(
        self, charges: Sequence[Charge], places: Sequence[Place] = (), call: bytes = b""
    ) -> Admitted | Refused:
        """Decides a call.

        Args:
            charges: one for each rule that counts the call, no two with the same key.
            places: one for each rule that says how many calls may run at once. They are held until `left`, and `hold` says to the
                store that they are.
            call: 16 bytes that no other call has, where there are places.

        Raises:
            ValueError: a charge cannot be counted.
        """
        if self._mode == "leased" and not places and (admitted := self._at_hand(charges)) is not None:
            return admitted
        _check(charges)
        spots = [Spot(place.key, call, Act.TAKE, place.most) for place in places]
        counted: Sequence[int] = range(len(charges))
        try:
            if self._mode == "leased" and any(self._has_lease(charge) for charge in charges):
                answer, counted = await self._leased(charges, spots)
            else:
                answer = await self._exact(charges, spots)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 -- whatever a store raises, the answer is the declared one
            return self._degraded(charges, places, call)
        if isinstance(answer, Refused):
            full = answer.place - len(charges)
            return answer if full < 0 else replace(answer, rule=places[full].rule)
        answer = self._bounded(charges, counted, answer)
        if isinstance(answer, Admitted) and places:
            self._own.places.enter(call, places)
        return answer

    async def look(self, charge: Charge) -> tuple[int, float | None]:
        """What a window has left in the store, and in how many seconds there is room for the charge where there is none. Charges
        nothing. Permits that processes hold in advance count as used.

        Raises:
            Exception: whatever the store raises.
        """
        ask = _exactly(charge)._replace(want=0)
        if self._has_lease(charge):
            ask = ask._replace(window=charge.window * (1 + LEASE_PART))
        answer = await self._script.ask([ask])
        return answer.given[0].remaining, None if answer.refused is None else answer.retry_after

    async def look_at_place(self, place: Place) -> int:
        """How many more calls may run. Takes nothing.

        Raises:
            Exception: whatever the store raises.
        """
        answer = await self._script.ask((), [Spot(place.key, bytes(16), Act.LOOK)])
        return max(0, place.most - answer.running[0])

    async def left(self, freed: Sequence[tuple[bytes, bytes]], debts: Sequence[Debt], name: bytes) -> None:
        """Tells the store of calls that have ended.

        Args:
            freed: key and call of each place.
            debts: what they are charged, at most one for each window.
            name: 16 bytes by which the store knows that it was told already.

        Raises:
            Exception: whatever the store raises. It may have heard all the same: say it again by the same name.
        """
        asks = [Ask(debt.key, debt.quota, debt.window, 0, debt.amount, is_metered=True) for debt in debts]
        await self._script.ask(asks, [Spot(key, call, Act.FREE) for key, call in freed], name=name)

    async def hold(self, held: Sequence[tuple[bytes, bytes]]) -> None:
        """Tells the store that calls run, by key and call of each place.

        Raises:
            Exception: whatever the store raises.
        """
        await self._script.ask((), [Spot(key, call, Act.HOLD) for key, call in held], lifetime=LIFETIME)

    def _has_lease(self, charge: Charge) -> bool:
        return not charge.is_look and self.is_leased(charge.quota, charge.window)

    async def _exact(self, charges: Sequence[Charge], spots: Sequence[Spot]) -> Admitted | Refused:
        answer = await self._script.ask([_exactly(charge) for charge in charges], spots, lifetime=LIFETIME)
        if answer.refused is not None:
            return _refused_by_store(charges, answer, answer.refused, Mode.EXACT)
        standings = tuple(
            Standing(charge.rule, given.remaining)
            for charge, given in zip(charges, answer.given, strict=True)
            if not charge.is_look
        )
        return Admitted(standings, Mode.EXACT)

    def _at_hand(self, charges: Sequence[Charge]) -> Admitted | None:
        """Uses the permits at hand; most calls need no more."""
        try:
            left = self._own.permits.take(charges)
        except (TypeError, ValueError):
            _check(charges)
            raise
        return None if left is None else _standing(charges, left)

    async def _leased(
        self, charges: Sequence[Charge], spots: Sequence[Spot]
    ) -> tuple[Admitted | Refused, Sequence[int]]:
        """Uses the permits at hand, and asks for what is lacking in one question together with the exact rules and the places.
        Gives the places of the exact ones too.
        """
        permits, turns = self._own.permits, self._own.turns
        with Turn(turns) as turn:
            while True:
                begun = permits.begin(charges, must_ask=bool(spots))
                if isinstance(begun, int):
                    await turn.wait(begun)
                elif isinstance(begun, list):
                    return _standing(charges, begun), ()
                elif isinstance(begun, tuple):
                    return _spent(charges, begun, Mode.LEASED), ()
                else:
                    break
            turn.asks(begun.number)
        try:
            return await self._ask(charges, begun, spots)
        finally:
            begun.give_up()
            turns.next(begun.number)

    async def _ask(
        self, charges: Sequence[Charge], asking: Asking, spots: Sequence[Spot]
    ) -> tuple[Admitted | Refused, Sequence[int]]:
        leased, exact = asking.questions, asking.exact
        asks = [_for_lease(charges[place], *numbers) for place, *numbers in leased]
        asks += [_exactly(charges[place]) for place in exact]
        answer = await self._script.ask(asks, spots, lifetime=LIFETIME)
        refused = answer.refused
        if refused is not None:
            asking.refused(refused if refused < len(leased) else None, answer.retry_after)
            if refused >= len(asks):
                return Refused("", 0.0, Mode.LEASED, len(charges) + refused - len(asks)), exact
            place = [*(question[0] for question in leased), *exact][refused]
            return _spent(charges, (place, answer.retry_after, answer.given[refused].remaining), Mode.LEASED), exact
        given = answer.given[: len(leased)]
        found = asking.granted([(part.granted, part.remaining, part.slot) for part in given])
        if isinstance(found, tuple):
            return _spent(charges, found, Mode.OVERDRAWN), exact
        left = dict(found)
        left.update((place, part.remaining) for place, part in zip(exact, answer.given[len(leased) :], strict=True))
        return _standing(charges, left), exact

    def _bounded(self, charges: Sequence[Charge], counted: Sequence[int], admitted: Admitted) -> Admitted | Refused:
        """Charges the process's own windows, which hold even where the store's answer was forged. Those of permits the core has
        charged.
        """
        exact = [charges[place] for place in counted]
        bounds = [
            self._own.metered_bounds.of(charge.quota, charge.window * BOUND)
            if charge.is_look
            else self._own.bounds.of(charge.quota, charge.window)
            for charge in exact
        ]
        refused = admit_all(bounds, exact)
        if refused is not None:
            place, retry_after, left = refused
            return _spent(charges, (counted[place], retry_after, left), Mode.OVERDRAWN)
        for charge in exact:
            if charge.is_look:
                continue
            share = self._own.shares.of(charge.quota, charge.window)
            # What does not fit fills it: should the store fail now, this process has had its share.
            if not share.admit(charge.key, charge.cost):
                share.admit(charge.key, share.admit(charge.key, 0).remaining)
        return admitted

    def _degraded(self, charges: Sequence[Charge], places: Sequence[Place], call: bytes) -> Admitted | Refused:
        if self._degrade == "refuse":
            return Refused(charges[0].rule if charges else places[0].rule, 1.0, Mode.REFUSE)
        # What was used of leases counts.
        self._own.permits.settle(charges)
        shares = [
            self._own.metered_shares.of(charge.quota // self._processes, charge.window)
            if charge.is_look
            else self._own.shares.of(charge.quota, charge.window)
            for charge in charges
        ]
        if places:
            full = self._own.places.enter(call, places, processes=self._processes)
            if full is not None:
                return Refused(places[full].rule, 0.0, Mode.LOCAL, len(charges) + full)
        refused = admit_all(shares, charges)
        if refused is not None:
            self._own.places.leave(call)
            return _spent(charges, refused, Mode.LOCAL)
        standings = tuple(
            Standing(charge.rule, share.admit(charge.key, 0).remaining)
            for charge, share in zip(charges, shares, strict=True)
            if isinstance(share, SlidingWindow)
        )
        return Admitted(standings, Mode.LOCAL)


def _standing(charges: Sequence[Charge], left: Sequence[int] | Mapping[int, int]) -> Admitted:
    """What windows of calls have left, by the place of their charge."""
    counts = enumerate(charges)
    return Admitted(tuple([Standing(it.rule, left[at]) for at, it in counts if not it.is_look]), Mode.LEASED)


def _for_lease(charge: Charge, need: int, want: int, back_to: int, back: int) -> Ask:
    # The window of the store is longer by a lease: a permit counts until a whole window after its lease has ended.
    return Ask(charge.key, charge.quota, charge.window * (1 + LEASE_PART), need, want, back_to, back)


def _exactly(charge: Charge) -> Ask:
    if charge.is_look:
        return Ask(charge.key, charge.quota, charge.window, 1, 0, is_metered=True)
    return Ask(charge.key, charge.quota, charge.window, charge.cost, charge.cost)


def _refused_by_store(charges: Sequence[Charge], answer: Answer, place: int, mode: Mode) -> Refused:
    if place >= len(charges):
        return Refused("", 0.0, mode, place)
    return Refused(charges[place].rule, answer.retry_after, mode, place, answer.given[place].remaining)


def _spent(charges: Sequence[Charge], found: tuple[int, float, int], mode: Mode) -> Refused:
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
