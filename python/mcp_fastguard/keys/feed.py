"""One issuer's key set, fetched again and again. Everything here runs on the loop of the service."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mcp_fastguard.keys.fetch import DEADLINE
from mcp_fastguard.keys.source import Fetched, FetchError, KeySource, Validator

if TYPE_CHECKING:
    import weakref
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Feed", "Figures", "KeySink", "Pace"]

logger = logging.getLogger("mcp_fastguard")


class KeySink(Protocol):
    """Who takes key sets in: the gate of a guard. Called on the thread of the service."""

    def replace_keys(self, issuer: str, jwks: bytes, fresh: float) -> None:
        """Takes a set in, to be replaced in `fresh` seconds; negative: so long ago. ValueError: it is none, the old one stays."""
        ...

    def keys_failed(self, issuer: str, reason: str, retry_after: float) -> None:
        """Takes note that a fetch ended without a set, and that the next one begins after so many seconds."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """When keys are fetched. All times are seconds.

    Args:
        fresh: for so long a set need not be replaced, where its server does not say (F1). Longer keeps keys that were withdrawn.
        fresh_least: the shortest that a server may say. Shorter has it asked all the time.
        fresh_most: the longest that a server may say: for so long a key that was withdrawn may still be accepted (F7).
        ahead: the part of `fresh` after which the next set is fetched, so that none is waited for.
        early: the most that a refresh comes earlier by chance, as a part of its wait, so that a fleet does not ask at once.
        cool_down: unknown keys begin at most one fetch in this time (F6). Shorter lets callers send us to the issuer.
        soon: an unknown key waits for the end of a cool-down that is at most so near.
        back_off_first: the wait after the first failure; each failure doubles it.
        back_off_most: the longest wait after a failure.
        asked_most: the longest wait that a server may ask for.
        deadline: for one fetch as a whole.
        chance: draws from 0 to 1.
    """

    fresh: float = 600.0
    fresh_least: float = 60.0
    fresh_most: float = 600.0
    ahead: float = 0.8
    early: float = 0.1
    cool_down: float = 30.0
    soon: float = 1.0
    back_off_first: float = 1.0
    back_off_most: float = 60.0
    asked_most: float = 300.0
    deadline: float = DEADLINE
    chance: Callable[[], float] = random.random

    def freshness(self, said: float | None) -> float:
        """For how long a set need not be replaced whose server said so, or nothing."""
        return self.fresh if said is None else min(max(said, self.fresh_least), self.fresh_most)

    def wait(self, fresh: float) -> float:
        """From the end of a fetch that brought a set to the beginning of the next."""
        return fresh * self.ahead * (1.0 - self.early * self.chance())

    def back_off(self, failures: int, asked: float | None = None) -> float:
        """The same after so many failures in a row, and what the server asked for."""
        # The exponent is bounded, for 2.0 ** 1024 is an error; 2 ** 16 is past every sensible bound.
        bound = min(self.back_off_most, self.back_off_first * 2.0 ** min(failures - 1, 16))
        own = max(min(self.back_off_first, bound), bound * (0.5 + 0.5 * self.chance()))
        return max(own, min(asked or 0.0, self.asked_most))


class Figures(NamedTuple):
    """What is known of a feed. Replaced whole, so that other threads read one moment."""

    fetches: int = 0
    confirmed: int = 0
    failures: int = 0
    fetched_at: float | None = None
    fresh_until: float | None = None
    last_error: str | None = None
    due_at: float | None = None


class Feed:
    """The fetches of one source, never two at once, for all who watch it."""

    def __init__(
        self,
        source: KeySource,
        *,
        fetch: Callable[[KeySource, Validator | None], Awaitable[Fetched]],
        pace: Pace,
        clock: Callable[[], float],
        retire: Callable[[Feed], None],
    ) -> None:
        self.source = source
        self.figures = Figures()
        self._fetch = fetch
        self._pace = pace
        self._clock = clock
        self._retire = retire
        self._seats: dict[object, weakref.ref[KeySink]] = {}
        self._content: bytes | None = None
        self._validator: Validator | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended_at: float | None = None
        self._asked_at: float | None = None
        self._not_before: float | None = None
        self._must_repeat = False

    def seat(self, watch: object, sink: weakref.ref[KeySink]) -> None:
        """Takes a sink in. It gets the set at hand at once; without one a fetch begins."""
        self._seats[watch] = sink
        if self._content is not None:
            fresh_until = self.figures.fresh_until or 0.0
            reason = self._hand_over(sink, self._content, fresh_until - self._clock())
            if reason is not None:
                self._tell((sink,), reason)
        elif self._ended_at is None:
            if self._task is None:
                self._begin()
        else:
            # An issuer that fails is not asked more often because guards are built.
            self.ask(self._clock())

    def leave(self, watch: object) -> None:
        """Lets a sink go, and ends with the last one."""
        self._seats.pop(watch, None)
        self._retire_if_unwatched()

    def ask(self, after: float) -> asyncio.Task[None] | None:
        """The fetch that an unknown key seen at `after` may wait for, begun if need be; None: it need not or may not."""
        if self._task is not None:
            return self._task
        # It was under way when the key was missed, or began later: had this come sooner, it would have been joined.
        if self._ended_at is not None and self._ended_at > after:
            return None
        now = self._clock()
        ends = [0.0 if self._asked_at is None else self._asked_at + self._pace.cool_down, self._not_before or 0.0]
        wait = max(0.0, max(ends) - now)
        # Every guard counts a cool-down of its own, from a moment before this one, and has one turn in it. A turn that is
        # refused here would leave its keys unknown for another cool-down: so a near end is awaited, a far one is planned for.
        if wait > self._pace.soon:
            self._bring_forward(now, wait)
            return None
        self._asked_at = now + wait
        return self._begin(wait)

    def refresh(self) -> None:
        """Begins a fetch now. One under way may have been answered already, so another follows it."""
        if self._task is None:
            self._begin()
        else:
            self._must_repeat = True

    def stop(self) -> None:
        """Ends all of it."""
        self._seats.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self, wait: float = 0.0) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
        self._task = asyncio.get_running_loop().create_task(self._run(wait))
        return self._task

    def _bring_forward(self, now: float, wait: float) -> None:
        due_at = now + wait
        if self._timer is None or self.figures.due_at is None or self.figures.due_at <= due_at:
            return
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait, self._due_for_unknown)
        self.figures = self.figures._replace(due_at=due_at)

    async def _run(self, wait: float) -> None:
        try:
            if wait:
                await asyncio.sleep(wait)
            self._arrived(await self._fetch(self.source, self._validator))
        except FetchError as error:
            self._failed(str(error), tuple(self._seats.values()), error.retry_after)
        except Exception as error:
            # Whatever fails, the old set stays and the fetch is tried again.
            logger.exception("fetching the keys of %s failed", self.source.issuer)
            self._failed(type(error).__name__, tuple(self._seats.values()))
        self._task, self._ended_at = None, self._clock()
        if self._must_repeat:
            self._must_repeat = False
            self._begin()

    def _arrived(self, fetched: Fetched) -> None:
        """Hands a set to every sink. One that is refused counts as not fetched: it is tried again, and not kept for others."""
        content = self._content if fetched.content is None else fetched.content
        if content is None:
            self._failed("a set was confirmed that is not at hand", tuple(self._seats.values()))
            return
        fresh = self._pace.freshness(fetched.fresh)
        refused: list[weakref.ref[KeySink]] = []
        reason = None
        for sink in tuple(self._seats.values()):
            # A set that is confirmed is handed over as well: it is fresh again.
            found = self._hand_over(sink, content, fresh)
            if found is not None:
                refused.append(sink)
                reason = found
        if reason is not None:
            self._failed(reason, refused)
            return
        self._content, self._validator, self._not_before = content, fetched.validator, None
        now = self._clock()
        self.figures = Figures(
            fetches=self.figures.fetches + 1,
            confirmed=self.figures.confirmed + (fetched.content is None),
            fetched_at=now,
            fresh_until=now + fresh,
            due_at=self._plan(self._pace.wait(fresh)),
        )

    def _hand_over(self, sink: weakref.ref[KeySink], content: bytes, fresh: float) -> str | None:
        """Gives the reason if the sink refuses."""
        found = sink()
        if found is None:
            return None
        try:
            found.replace_keys(self.source.issuer, content, fresh)
        except ValueError as error:
            return str(error)
        except Exception as error:
            # One guard that is broken must not take the keys of the others with it.
            logger.exception("the keys of %s could not be handed over", self.source.issuer)
            return type(error).__name__
        return None

    def _failed(self, reason: str, sinks: Sequence[weakref.ref[KeySink]], asked: float | None = None) -> None:
        failures = self.figures.failures + 1
        due_at = self._plan(self._pace.back_off(failures, asked))
        # Who asks for time gets it from unknown keys as well.
        self._not_before = due_at if asked else None
        self.figures = self.figures._replace(
            fetches=self.figures.fetches + 1, failures=failures, last_error=reason, due_at=due_at
        )
        logger.warning("keys of %s: %s; the set at hand stays in use", self.source.issuer, reason)
        self._tell(sinks, reason)

    def _tell(self, sinks: Sequence[weakref.ref[KeySink]], reason: str) -> None:
        due_at = self.figures.due_at
        retry_after = 0.0 if due_at is None else max(0.0, due_at - self._clock())
        for sink in sinks:
            found = sink()
            if found is not None:
                try:
                    found.keys_failed(self.source.issuer, reason, retry_after)
                except Exception:
                    logger.exception("a guard could not be told of the keys of %s", self.source.issuer)

    def _plan(self, wait: float) -> float:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait, self._due)
        return self._clock() + wait

    def _due_for_unknown(self) -> None:
        self._asked_at = self._clock()
        self._due()

    def _due(self) -> None:
        # Sinks are held weakly, so a guard that was dropped unclosed is noticed here.
        for watch, sink in tuple(self._seats.items()):
            if sink() is None:
                del self._seats[watch]
        if not self._retire_if_unwatched() and self._task is None:
            self._begin()

    def _retire_if_unwatched(self) -> bool:
        if self._seats:
            return False
        self.stop()
        self._retire(self)
        return True
