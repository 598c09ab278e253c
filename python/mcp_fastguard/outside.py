"""What a guard needs from outside the core: keys, what issuers and verifiers say of tokens, and the word of other processes."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import GuardFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_fastguard._fastguard import Agreeing, Attested, Gate, Waiting
    from mcp_fastguard.config import GuardConfig
    from mcp_fastguard.keys import Introspector, Watch
    from mcp_fastguard.limits import AppliedLimit
    from mcp_fastguard.revocations.entry import Entry
    from mcp_fastguard.revocations.feed import RevocationFeed
    from mcp_fastguard.state.deployment import Answer, Deployment
    from mcp_fastguard.verifier import OutsideVerifier, TokenVerifierProtocol

__all__ = ["Outside"]

#: A key set is awaited for this long, in seconds: the fetch's own total deadline.
KEYS_WAIT: Final = 5.0

logger = logging.getLogger("mcp_fastguard")


class Outside:
    """For one guard. No network, no thread is started before :meth:`start`.

    Args:
        gate: the core.
        config: what the file says.
        verifier: proves identities in the place of ``[[issuers]]``.

    Raises:
        GuardConfigError: what the configuration shares needs a package that is not installed.
    """

    def __init__(self, gate: Gate, config: GuardConfig, verifier: TokenVerifierProtocol | None) -> None:
        self._gate = gate
        #: Whether this process fetches keys: a child of it does not yet.
        self.is_started = False
        self.is_closed = False
        self.watch: Watch | None = None
        self.deployment: Deployment | None = None
        self.feed: RevocationFeed | None = None
        self._introspector: Introspector | None = None
        self._verifier: OutsideVerifier | None = None
        if verifier is not None:
            from mcp_fastguard.verifier import OutsideVerifier  # noqa: PLC0415 - brings asyncio

            self._verifier = OutsideVerifier(verifier, gate, resource=config.resource_url)
        self._share()

    # --- answers ----------------------------------------------------------------------------------

    async def answer(self, waiting: Waiting) -> Attested | None:
        """Waits for what a call needs. Whether it came, the gate will see."""
        vouches = self._verifier or self._introspector
        if waiting.credential is not None and vouches is not None:
            return await vouches.attested(waiting.credential)
        if waiting.issuer is not None and self.watch is not None:
            await self.watch.fetched(waiting.issuer, timeout=KEYS_WAIT)
        return None

    async def agree(self, agreeing: Agreeing) -> Answer:
        """Asks what other processes must agree on."""
        if self.deployment is None:
            raise GuardFault("internal", "no store is known to ask other processes by")
        with _having():
            return await self.deployment.agree(agreeing.claims, agreeing.charges, agreeing.places, agreeing.ticket)

    def collect(self) -> None:
        """Takes in the calls that have ended and of which other processes must be told."""
        if self.deployment is not None:
            self.deployment.collect()

    async def told(self) -> None:
        """Waits until other processes can know of the calls that have ended, for at most the budget of the store."""
        if self.deployment is not None:
            await self.deployment.told()

    async def look(self, limits: list[AppliedLimit]) -> list[AppliedLimit]:
        """The same as they stand in all processes, where those share them."""
        if self.deployment is None or self.deployment.settings.mode == "local":
            return limits
        with _having():
            return [await self.deployment.look(limit) for limit in limits]

    @property
    def tells_others(self) -> bool:
        """Whether what operators say in this process reaches others."""
        return self.feed is not None and self.feed.tells_others

    def tell(self, entry: Entry) -> None:
        """Tells the other processes.

        Raises:
            GuardFault: they could not be told.
        """
        if self.feed is None:
            raise GuardFault("revocation_untold", "nothing that tells other processes has begun")
        self.feed.tell(entry)

    def status(self) -> dict[str, Any]:
        """See :meth:`Guard.state_status`."""
        found: dict[str, Any] = {"answers": {}, "asked": 0, "seconds": 0.0}
        if self.deployment is not None:
            found = self.deployment.status()
        return found | {"heard": {} if self.feed is None else self.feed.ages()}

    # --- life -------------------------------------------------------------------------------------

    def start(self, config: GuardConfig) -> None:
        """Begins to fetch keys and to learn what was revoked elsewhere. May come again, and does after it has failed.

        Raises:
            GuardFault: the system gives no thread or no file (``start_failed``).
        """
        if not self.is_closed:
            with _having():
                self._start(config)
        self.is_started = True

    def _start(self, config: GuardConfig) -> None:
        if self.feed is None and self._gate.learns_revocations:
            self._learn(config)
        if self.watch is not None:
            self.watch.revive()
            return
        from mcp_fastguard.keys import Introspector, key_service  # noqa: PLC0415 - half of the import's time

        self.watch = key_service().watch(self._gate.key_sources(), self._gate)
        self._introspector = Introspector(key_service(), self.watch, self._gate)

    def reload(self, config: GuardConfig) -> None:
        """Follows a configuration that the gate has taken already."""
        self._share()
        feed, self.feed = self.feed, None
        before, self.watch = self.watch, None
        # What is new is there before the old goes, so that it is given the key sets at hand.
        if before is not None or self._gate.learns_revocations:
            self.is_started = False
            try:
                self.start(config)
            except GuardFault as fault:
                # The configuration is in force already; the next call tries again.
                logger.error("%s", fault)  # noqa: TRY400 - the fault says it all
        if feed is not None:
            feed.close()
        if before is not None:
            before.close()

    def after_fork(self) -> None:
        """In a child process: threads and connections are the parent's."""
        self.is_started = False
        self.feed = None
        if self.deployment is not None:
            self.deployment.after_fork()

    def close(self) -> None:
        """Ends all of it."""
        self.is_closed = True
        for part in (self.watch, self.deployment, self.feed):
            if part is not None:
                part.close()

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        if self.deployment is not None:
            await self.deployment.aclose()

    def _share(self) -> None:
        """Knows the store of ``[state]``, if the configuration in force has one."""
        found = self._gate.state_settings()
        if found is None:
            self.deployment = None
            return
        from mcp_fastguard.state.deployment import Deployment  # noqa: PLC0415 - only where it is used
        from mcp_fastguard.state.settings import StateSettings  # noqa: PLC0415

        settings = StateSettings.of(found)
        if self.deployment is None or self.deployment.settings != settings:
            self.deployment = Deployment(settings, self._gate.take_ended, self._gate.permits)

    def _learn(self, config: GuardConfig) -> None:
        from mcp_fastguard.revocations import RevocationSettings  # noqa: PLC0415 - only where it is used
        from mcp_fastguard.revocations.feed import RevocationFeed  # noqa: PLC0415 - brings asyncio

        settings = RevocationSettings.of(config)
        if settings is None:
            raise GuardFault("internal", "the gate learns of revocations, and nothing says from where")
        feed = RevocationFeed(settings, self._gate)
        feed.start()
        self.feed = feed


@contextlib.contextmanager
def _having() -> Iterator[None]:
    """What the system does not give now, it may give to the next call."""
    try:
        yield
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        reason = f"what asks issuers and other processes could not be started: {type(error).__name__}: {error}"
        raise GuardFault("start_failed", reason) from error
