"""What a guard shares with the other processes of its deployment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast

from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Admitted, Charge, Mode, ProcessWindows, SharedLimits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mcp_fastguard.state.store import RedisStore

    #: What ``Gate.state_settings`` gives.
    StateFields = tuple[
        tuple[str, str | None, Path | None, Path | None],
        tuple[Path | None, Path | None],
        tuple[str, float, int],
        tuple[str, str],
    ]

__all__ = ["Deployment", "StateSettings", "Verdict"]

logger = logging.getLogger("mcp_fastguard")


class StateSettings(NamedTuple):
    """``[state]``, and what ``[limits]`` says of it. The core makes these."""

    url: str
    user: str | None
    password_file: Path | None
    ca_file: Path | None
    client_certificate: Path | None
    client_key: Path | None
    prefix: str
    #: Seconds.
    budget: float
    processes: int
    #: ``"local"``, ``"exact"`` or ``"leased"``.
    mode: str
    #: ``"local"`` or ``"refuse"``.
    degrade: str

    @classmethod
    def of(cls, found: StateFields) -> Self:
        """Of what the gate gives."""
        place, (certificate, key), (prefix, budget, processes), (mode, degrade) = found
        return cls(*place, certificate, key, prefix, budget, processes, mode, degrade)


class Verdict(NamedTuple):
    """What came of asking, as ``Gate.counted`` takes it.

    Args:
        mode: how it was found.
        place: of the window with the least left, or of the one that has no room; None where the store is away and such calls are
            refused.
        is_admitted: whether all windows were charged.
        remaining: what that window has left.
        retry_after: seconds until it has room; None where it was admitted, or no time helps.
    """

    mode: str
    place: int | None
    is_admitted: bool
    remaining: int
    retry_after: float | None


class _Here(NamedTuple):
    """What one event loop has: connections belong to it."""

    store: RedisStore
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
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Here] = weakref.WeakKeyDictionary()
        self._was_away = False

    @property
    def settings(self) -> StateSettings:
        """Where, and how."""
        return self._settings

    async def admit(self, charges: Sequence[tuple[str, bytes, int, float, int]]) -> Verdict:
        """Has the windows of a call checked, and then charged. Never raises for what the store does."""
        found = [Charge(*charge) for charge in charges]
        answer = await self._here().limits.admit(found)
        self._tell(answer.mode)
        if isinstance(answer, Admitted):
            left = [standing.remaining for standing in answer.standings]
            tightest = left.index(min(left))
            return Verdict(answer.mode.value, tightest, is_admitted=True, remaining=left[tightest], retry_after=None)
        if answer.mode is Mode.REFUSE:
            return Verdict(answer.mode.value, None, is_admitted=False, remaining=0, retry_after=answer.retry_after)
        refused = found[answer.place]
        # No time helps a call that costs more than the whole quota.
        retry_after = answer.retry_after if refused.cost <= refused.quota else None
        return Verdict(answer.mode.value, answer.place, False, answer.remaining, retry_after)  # noqa: FBT003 - a tuple's member

    def after_fork(self) -> None:
        """In a child process: the parent's connections are not its own."""
        self._loops = weakref.WeakKeyDictionary()

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
            from mcp_fastguard.state.store import RedisStore  # noqa: PLC0415 - brings redis-py

            store, settings = RedisStore(self._settings), self._settings
            limits = SharedLimits(
                BreakingStore(store, budget=settings.budget),
                processes=settings.processes,
                mode=cast("Literal['exact', 'leased']", settings.mode),
                degrade=cast("Literal['local', 'refuse']", settings.degrade),
                windows=self._windows,
            )
            here = self._loops[loop] = _Here(store, limits)
        return here

    def _tell(self, mode: Mode) -> None:
        is_away = mode in {Mode.LOCAL, Mode.REFUSE}
        if is_away is not self._was_away:
            self._was_away = is_away
            if is_away:
                logger.error("the store of [state] is away: limits.degrade is %s", self._settings.degrade)
            else:
                logger.warning("the store of [state] is back")


_closing_tasks: set[asyncio.Task[Any]] = set()


def _closing(loop: asyncio.AbstractEventLoop, store: RedisStore) -> None:
    task = loop.create_task(store.aclose())
    _closing_tasks.add(task)
    task.add_done_callback(_closing_tasks.discard)
