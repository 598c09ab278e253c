"""What a guard shares with the other processes of its deployment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Admitted, Charge, Mode, ProcessWindows, SharedLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_fastguard.state.settings import StateSettings
    from mcp_fastguard.state.store import RedisStore

__all__ = ["Answer", "Deployment"]

#: 1 for who comes first, 0 for others.
_CLAIM: Final = "return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0"

logger = logging.getLogger("mcp_fastguard")


class Answer(NamedTuple):
    """What the store said, as ``Gate.agreed`` takes it.

    Args:
        claim: of the proof and the signature: ``"new"``, ``"used"``, or ``"unknown"`` where the store is away.
        mode: how the windows were counted; None where none was.
        place: of the window with the least left, or of the one that has no room; None where the store is away and such calls are
            refused.
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

    Raises:
        GuardConfigError: redis-py is not installed.
    """

    def __init__(self, settings: StateSettings) -> None:
        if importlib.util.find_spec("redis") is None:
            raise GuardConfigError("state: needs the extra `state`: pip install 'mcp-fastguard[state]'")
        self._settings = settings
        self._windows = ProcessWindows()
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
        self, claims: Sequence[tuple[bytes, float]], charges: Sequence[tuple[str, bytes, int, float, int]]
    ) -> Answer:
        """Claims a call's proofs, then has the windows of the call checked and charged. Never raises for what the store does."""
        here, began = self._here(), time.perf_counter()
        try:
            for place, claim in enumerate(claims):
                found = self._counted("proofs", await self._claimed(here, *claim))
                # A call that will be refused is charged nowhere.
                if found != "new":
                    return Answer(found, claim_place=place)
            if not charges:
                return Answer("new")
            answer = await self._admitted(here, [Charge(*charge) for charge in charges])
            self._counted("limits", answer.mode or "")
            return answer
        finally:
            self._asked += 1
            self._seconds += time.perf_counter() - began

    def status(self) -> dict[str, Any]:
        """Figures since the start; see :meth:`Guard.state_status`."""
        return {"answers": dict(self._answers), "asked": self._asked, "seconds": self._seconds}

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

    async def _admitted(self, here: _Here, charges: list[Charge]) -> Answer:
        answer = await here.limits.admit(charges)
        self._tell("limits", is_away=answer.mode in {Mode.LOCAL, Mode.REFUSE})
        mode = answer.mode.value
        if isinstance(answer, Admitted):
            left = [standing.remaining for standing in answer.standings]
            tightest = left.index(min(left))
            return Answer("new", mode, tightest, is_admitted=True, remaining=left[tightest])
        if answer.mode is Mode.REFUSE:
            return Answer("new", mode, retry_after=answer.retry_after)
        refused = charges[answer.place]
        # No time helps a call that costs more than the whole quota.
        retry_after = answer.retry_after if refused.cost <= refused.quota else None
        return Answer("new", mode, answer.place, remaining=answer.remaining, retry_after=retry_after)

    def after_fork(self) -> None:
        """In a child process: the parent's connections are not its own.

        They are kept, for to finalise them would take them off the selector of the parent's loop, which both processes share.
        """
        for here in self._loops.values():
            here.store.abandon()
        _inherited.append(self._loops)
        self._loops = {}

    async def aclose(self) -> None:
        """Closes the connections of the running loop."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.store.aclose()

    def close(self) -> None:
        """Has the connections of loops that still run closed, without waiting."""
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
