"""What a guard shares with the other processes of its deployment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.endings import Ended, Endings
from mcp_fastguard.state.limits import Admitted, Charge, Debt, Mode, Place, ProcessWindows, SharedLimits
from mcp_fastguard.state.places import ProcessPlaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_fastguard._fastguard import Permits
    from mcp_fastguard.limits import AppliedLimit
    from mcp_fastguard.state.settings import StateSettings
    from mcp_fastguard.state.store import RedisStore

    #: A ticket, and what `Debt` is made of.
    EndedFields = tuple[int, list[tuple[bytes, int, float, int]]]

__all__ = ["Answer", "Deployment"]

#: 1 for who comes first, 0 for others.
_CLAIM: Final = "return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0"

logger = logging.getLogger("mcp_fastguard")


class Answer(NamedTuple):
    """What the store said, as ``Gate.agreed`` takes it.

    Args:
        claim: of the proof and the signature: ``"new"``, ``"used"``, or ``"unknown"`` where the store is away.
        mode: how the windows were counted; None where none was.
        place: of the window with the least left, or of the one that has no room; places among the calls that run come after them.
            None where the store is away and such calls are refused.
        is_admitted: whether all windows were charged.
        remaining: what that window has left.
        retry_after: seconds until it has room; None where it was admitted, or no time helps.
        claim_place: of the claim that was used.
    """

    claim: str
    mode: str | None = None
    place: int | None = None
    is_admitted: bool = False
    remaining: int = 0
    retry_after: float | None = None
    claim_place: int = 0


class _Here(NamedTuple):
    """What one event loop has: connections belong to it."""

    store: RedisStore
    #: The same store, with a budget.
    breaking: BreakingStore
    limits: SharedLimits


class Deployment:
    """The store of ``[state]``, for one guard. May be used from any thread and loop.

    Args:
        settings: where, and how.
        take_ended: gives the calls that have ended since it was asked last, each by its ticket and with what it is charged.
        permits: what this process may use of shared windows without asking.

    Raises:
        GuardConfigError: redis-py is not installed.
    """

    def __init__(self, settings: StateSettings, take_ended: Callable[[], list[EndedFields]], permits: Permits) -> None:
        if importlib.util.find_spec("redis") is None:
            raise GuardConfigError("state: needs the extra `state`: pip install 'mcp-fastguard[state]'")
        self._settings = settings
        self._windows = ProcessWindows(settings.processes, permits)
        self._take_ended = take_ended
        #: By its ticket, the name that the store has for a call that runs.
        self._calls: dict[int, bytes] = {}
        self._collecting = threading.Lock()
        self._endings = self._new_endings()
        #: Not weakly, for connections hold their loop. Those of loops that have ended go when a new one comes.
        self._loops: dict[asyncio.AbstractEventLoop, _Here] = {}
        #: How often the store was asked, and for how many seconds calls waited for it.
        self._asked, self._seconds = 0, 0.0
        #: How often it gave which answer, by what was asked.
        self._answers: dict[tuple[str, str], int] = {}
        #: What the store is away for.
        self._away: set[str] = set()

    @property
    def settings(self) -> StateSettings:
        """Where, and how."""
        return self._settings

    async def agree(
        self,
        claims: Sequence[tuple[bytes, float]],
        charges: Sequence[tuple[str, bytes, int, float, int, bool]],
        places: Sequence[tuple[str, bytes, int]] = (),
        ticket: int | None = None,
    ) -> Answer:
        """Claims a call's proofs, then has its windows and places checked and charged. Never raises for what the store does.

        Args:
            claims: of proofs.
            charges: of windows.
            places: among the calls that run.
            ticket: by which `take_ended` will tell that the call has ended; None where it owes nothing then.
        """
        here, began = self._here(), time.perf_counter()
        try:
            for place, claim in enumerate(claims):
                found = self._counted("proofs", await self._claimed(here, *claim))
                # A call that will be refused is charged nowhere.
                if found != "new":
                    return Answer(found, claim_place=place)
            if not charges and not places:
                return Answer("new")
            if ticket is not None:
                # What ended before it began counts.
                await self.told()
            answer = await self._admitted(here, [Charge(*charge) for charge in charges], places, ticket)
            self._counted("limits", answer.mode or "")
            return answer
        finally:
            self._asked += 1
            self._seconds += time.perf_counter() - began

    async def look(self, limit: AppliedLimit) -> AppliedLimit:
        """How a rule stands in all processes. Charges nothing, and never raises for what the store does."""
        limits = self._here().limits
        try:
            if limit.unit == "running":
                remaining, retry_after = await limits.look_at_place(Place(limit.rule, limit.key, limit.quota)), None
            else:
                is_metered = limit.unit != "calls"
                charge = Charge(limit.rule, limit.key, limit.quota, limit.window, max(limit.cost, 1), is_metered)
                remaining, retry_after = await limits.look(charge)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever the store raises, nothing is known
            return limit._replace(remaining=None, retry_after=None)
        if max(limit.cost, 1) > limit.quota:
            retry_after = None
        return limit._replace(remaining=remaining, retry_after=retry_after)

    def collect(self) -> None:
        """Takes in what has ended, and has the store told soon."""
        # Together, so that whoever waits for the store to be told waits for all that was taken in.
        with self._collecting:
            found = [self._ended(*ended) for ended in self._take_ended()]
            self._endings.add([ended for ended in found if ended.freed or ended.debts])

    async def told(self) -> None:
        """Waits until the store was told of what has ended, or for its budget."""
        self.collect()
        told = self._endings.told()
        if told is not None:
            await asyncio.wait((asyncio.wrap_future(told),), timeout=self._settings.budget)

    def _ended(self, ticket: int, debts: Sequence[tuple[bytes, int, float, int]]) -> Ended:
        call = self._calls.pop(ticket, None)
        keys = () if call is None else self._windows.places.leave(call)
        owed = tuple(Debt(*debt) for debt in debts)
        self._windows.charge(owed, self._settings.processes)
        return Ended(tuple((key, call) for key in keys if call is not None), owed)

    def _new_endings(self) -> Endings:
        return Endings(
            connect=lambda: self._here().limits,
            disconnect=self._disconnect,
            places=self._windows.places,
            collect=self.collect,
        )

    def status(self) -> dict[str, Any]:
        """Figures since the start; see :meth:`Guard.state_status`."""
        answers = dict(self._answers)
        # Calls that the core has decided by the permits at hand.
        if at_hand := self._windows.permits.answered:
            answers["limits", Mode.LEASED] = answers.get(("limits", Mode.LEASED), 0) + at_hand
        return {"answers": answers, "asked": self._asked, "seconds": self._seconds}

    def _counted(self, what: str, answer: str) -> str:
        self._answers[what, answer] = self._answers.get((what, answer), 0) + 1
        return answer

    async def _claimed(self, here: _Here, key: bytes, lifetime: float) -> str:
        """By one atomic command, so that of several processes one is the first."""
        try:
            found = await here.breaking.run(_CLAIM, [here.store.key("proof", key)], [round(lifetime * 1_000)])
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever the store raises, nobody knows whether the proof is new
            found = None
        self._tell("proofs", is_away=found not in {0, 1})
        return {1: "new", 0: "used"}.get(cast("int", found), "unknown")

    async def _admitted(
        self, here: _Here, charges: list[Charge], places: Sequence[tuple[str, bytes, int]], ticket: int | None
    ) -> Answer:
        call = b""
        if places:
            call = os.urandom(16)
            self._endings.start()
        taken = tuple((key, call) for _, key, _ in places)
        try:
            answer = await here.limits.admit(charges, [Place(*place) for place in places], call)
        except BaseException:
            # Nobody knows whether the store has heard.
            self._endings.add([Ended(taken, ())] if taken else [])
            raise
        self._tell("limits", is_away=answer.mode in {Mode.LOCAL, Mode.REFUSE})
        mode = answer.mode.value
        if isinstance(answer, Admitted):
            if taken and ticket is not None:
                self._calls[ticket] = call
            left = [standing.remaining for standing in answer.standings]
            if not left:
                return Answer("new", mode, 0, is_admitted=True)
            tightest = left.index(min(left))
            place = [at for at, charge in enumerate(charges) if not charge.is_look][tightest]
            return Answer("new", mode, place, is_admitted=True, remaining=left[tightest])
        if taken and answer.mode not in {Mode.EXACT, Mode.LEASED}:
            self._endings.add([Ended(taken, ())])
        if answer.mode is Mode.REFUSE:
            return Answer("new", mode, retry_after=answer.retry_after)
        is_of_place = answer.place >= len(charges)
        # No time helps where calls must end, nor a call that costs more than the whole quota.
        has_time = not is_of_place and charges[answer.place].cost <= charges[answer.place].quota
        return Answer(
            "new",
            mode,
            answer.place,
            remaining=answer.remaining,
            retry_after=answer.retry_after if has_time else None,
        )

    def after_fork(self) -> None:
        """In a child process: the parent's connections are not its own.

        They are kept, for to finalise them would take them off the selector of the parent's loop, which both processes share.
        """
        for here in self._loops.values():
            here.store.abandon()
        _inherited.append(self._loops)
        self._loops = {}
        # The calls that run are the parent's, and so is the thread that holds their places.
        self._calls, self._collecting = {}, threading.Lock()
        self._windows.places = ProcessPlaces()
        self._endings = self._new_endings()

    async def aclose(self) -> None:
        """Closes the connections of the running loop."""
        await self._disconnect()

    async def _disconnect(self) -> None:
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.store.aclose()

    def close(self) -> None:
        """Tells the store of what has ended, and has the connections of loops that still run closed, without waiting."""
        self.collect()
        self._endings.close()
        for loop, here in list(self._loops.items()):
            if loop.is_running():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_closing, loop, here.store)
        self._loops.clear()

    def _here(self) -> _Here:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            self._abandon_ended()
            from mcp_fastguard.state.store import RedisStore  # noqa: PLC0415 - brings redis-py

            store, settings = RedisStore(self._settings), self._settings
            breaking = BreakingStore(store, budget=settings.budget)
            limits = SharedLimits(
                breaking,
                processes=settings.processes,
                mode="leased" if settings.mode == "leased" else "exact",
                degrade=cast("Literal['local', 'refuse']", settings.degrade),
                windows=self._windows,
            )
            here = self._loops[loop] = _Here(store, breaking, limits)
        return here

    def _abandon_ended(self) -> None:
        """Whoever calls by one `asyncio.run` after the other would run out of sockets otherwise."""
        for loop in list(self._loops):
            if loop.is_closed() and (here := self._loops.pop(loop, None)) is not None:
                here.store.abandon()

    def _tell(self, what: str, *, is_away: bool) -> None:
        if is_away is (what in self._away):
            return
        self._away ^= {what}
        if not is_away:
            logger.warning("the store of [state] is back: %s", what)
        elif what == "limits":
            logger.error("the store of [state] is away: limits.degrade is %s", self._settings.degrade)
        else:
            logger.error("the store of [state] is away: calls with proofs of possession are refused")


_inherited: list[dict[asyncio.AbstractEventLoop, _Here]] = []
_closing_tasks: set[asyncio.Task[Any]] = set()


def _closing(loop: asyncio.AbstractEventLoop, store: RedisStore) -> None:
    task = loop.create_task(store.aclose())
    _closing_tasks.add(task)
    task.add_done_callback(_closing_tasks.discard)
