"""Who is told of decisions, and how long they took. Costs nothing while nobody listens."""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

from mcp_fastguard.errors import ApprovalDenied, GuardError, LimitDenied, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_fastguard._fastguard import AllowedCall, ObservedCall, ToolRequest

    #: What lets a call run.
    Ran = AllowedCall | ObservedCall
    Listener = Callable[[Ran | GuardError], None]
    TimedListener = Callable[[Ran | GuardError, "Timing"], None]

__all__ = ["Listeners", "Telling", "Timing"]

T = TypeVar("T")

logger = logging.getLogger("mcp_fastguard")

#: Rooms that a caller reaches only with a verified token. What others asked for is not told, as it is not recorded: strangers
#: would write what they like into logs and metrics.
_AFTER_TOKEN = (LimitDenied, PolicyDenied, ApprovalDenied)


class Timing(NamedTuple):
    """How long a decision took.

    Attributes:
        duration: seconds of work in the gate; None where it did none, as in room approval.
        waited: seconds before that work, for keys or for room in the queue of the audit log; mostly 0.0.
    """

    duration: float | None
    waited: float


class Listeners:
    """Those who are told. What they raise is logged and changes nothing."""

    def __init__(self) -> None:
        self.plain: list[Listener] = []
        self.timed: list[TimedListener] = []
        #: Whether anybody listens.
        self.are_there = False

    def add(self, listener: Listener) -> None:
        """Has it told of every decision."""
        self.plain.append(listener)
        self.are_there = True

    def add_timed(self, listener: TimedListener) -> None:
        """The same with how long each took."""
        self.timed.append(listener)
        self.are_there = True

    def telling(
        self,
        request: ToolRequest | None = None,
        *,
        caller: Ran | None = None,
        proof: Ran | None = None,
    ) -> Telling:
        """What leaves the ``with`` block of this, as ``decided`` or as an error of the guard, is told.

        Args:
            request: what is decided.
            caller: an earlier call by the same caller.
            proof: the decision of this very call, where it was allowed before.
        """
        return Telling(self, request, caller or proof, proof) if self.are_there else _NOBODY


class Telling:
    """One decision on its way to the listeners."""

    __slots__ = ("_began", "_caller", "_decision", "_ended", "_first", "_listeners", "_proof", "_request")

    def __init__(
        self,
        listeners: Listeners,
        request: ToolRequest | None,
        caller: Ran | None,
        proof: Ran | None,
    ) -> None:
        self._listeners = listeners
        self._request = request
        self._caller = caller
        self._proof = proof
        self._decision: AllowedCall | None = None
        #: Nanoseconds: where the gate's first piece of work began, and its last one began and ended.
        self._first = self._began = self._ended = 0

    def measured(self, work: Callable[[], T]) -> T:
        """Does a piece of the gate's work. The last piece is the decision's; what lies between them was waited for."""
        if not self._listeners.timed:
            return work()
        self._began = perf_counter_ns()
        self._first = self._first or self._began
        try:
            return work()
        finally:
            self._ended = perf_counter_ns()

    def decided(self, decision: T) -> T:
        """Takes note of a decision."""
        self._decision = decision  # type: ignore[assignment] # the gate gives nothing else
        return decision

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, GuardError):
            self.tell(error)
        elif error is None and self._decision is not None:
            self.tell(self._decision)

    def tell(self, decision: Ran | GuardError) -> None:
        """Tells it now; for what is answered and not raised."""
        if isinstance(decision, GuardError):
            self._told(lambda: self._describe(decision))
        for listener in self._listeners.plain:
            self._told(lambda listener=listener: listener(decision))  # type: ignore[misc]
        if self._listeners.timed:
            timing = self._timing()
            for timed in self._listeners.timed:
                self._told(lambda timed=timed: timed(decision, timing))  # type: ignore[misc]

    @staticmethod
    def _told(tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:
            logger.exception("a listener of decisions failed")

    def _timing(self) -> Timing:
        if not self._ended:
            return Timing(None, 0.0)
        return Timing((self._ended - self._began) / 1e9, (self._began - self._first) / 1e9)

    def _describe(self, error: GuardError) -> None:
        """Puts into an error what is known of the call. What the gate has put there stays."""
        if self._caller is not None:
            error.subject = error.subject or self._caller.subject
            error.client_id = error.client_id or self._caller.client_id
            error.issuer = error.issuer or self._caller.issuer
        if self._proof is not None:
            error.method, error.target = self._proof.method, self._proof.target or None
            error.record = error.record or self._proof.record
        elif error.method is None and self._request is not None and isinstance(error, _AFTER_TOKEN):
            error.method, error.target = self._request.asked() or (None, None)


class _Silence(Telling):
    """What is told where nobody listens: nothing. One serves every call, so that they pay for none of their own."""

    __slots__ = ()

    def measured(self, work: Callable[[], T]) -> T:
        return work()

    def decided(self, decision: T) -> T:
        return decision

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        pass

    def tell(self, decision: Ran | GuardError) -> None:
        pass


_NOBODY: Final = _Silence(Listeners(), None, None, None)
