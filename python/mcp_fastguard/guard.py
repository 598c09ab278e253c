"""The guard of one MCP server: built once, from ``fastguard.toml``. Its calls walk the corridor in :mod:`mcp_fastguard.call`."""

from __future__ import annotations

import functools
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mcp_fastguard import audit
from mcp_fastguard._fastguard import Agreeing, AllowedCall, Gate, ObservedCall, Waiting
from mcp_fastguard.call import Call
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import Denied, GuardFault, RequestDenied, TokenDenied
from mcp_fastguard.listeners import Listeners
from mcp_fastguard.outside import Outside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mcp_fastguard._fastguard import Attested, ToolRequest, VerifiedToken
    from mcp_fastguard.audit import ResultSummary
    from mcp_fastguard.errors import GuardError
    from mcp_fastguard.limits import AppliedLimit
    from mcp_fastguard.listeners import Listener, Telling, TimedListener
    from mcp_fastguard.revocations.entry import Entry
    from mcp_fastguard.transport.asgi import GuardASGI
    from mcp_fastguard.transport.scope import ASGIApp, Receive, Scope, Send
    from mcp_fastguard.verifier import TokenVerifierProtocol

    #: What lets a call run, and what the gate says of one.
    Proof = AllowedCall | ObservedCall
    Decision = Proof | Waiting | Agreeing

__all__ = ["Guard"]

T = TypeVar("T")
Server = TypeVar("Server")
Decorated = TypeVar("Decorated", bound="Callable[..., Any]")

logger = logging.getLogger("mcp_fastguard")

#: A full queue of the audit log is awaited for this long, in seconds (decision 11).
AUDIT_WAIT = 0.05

#: A call waits for at most this many needs in a row: discovery may lead to one more fetch, and shared windows come last. Never
#: for a loop.
MAX_WAITS = 3


class Guard:
    """Decides every call of one MCP server.

    Build it by :meth:`from_file` or :meth:`from_dict`; close it by :meth:`close`, by ``with guard:``, or by the lifespan of the
    ASGI layer. All methods may be used from any thread.
    """

    def __init__(self, config: GuardConfig, *, verifier: TokenVerifierProtocol | None = None) -> None:
        """Compiles the configuration; no network, no thread is started before the first need. Audit logs of killed processes
        in the same folder are repaired first.

        Args:
            config: what the file says.
            verifier: proves identities in the place of ``[[issuers]]``: any ``TokenVerifier`` of the MCP SDK, any auth provider
                of FastMCP. Default: None.

        Raises:
            GuardConfigError: the configuration cannot be used.
            GuardFault: the audit log cannot be written.
        """
        self._config = config
        #: The Rust corridor; for transports.
        self.gate = Gate(
            config.text,
            folder=config.folder,
            file=config.file,
            is_json=config.is_json,
            has_verifier=verifier is not None,
        )
        self._outside = Outside(self.gate, config, verifier)
        self._keeps_each = self.gate.keeps_each
        self._keeper = audit.Keeper(self.gate)
        # One crossing and not one frame of Python: this instance's `check` is the gate's own, until somebody listens.
        self.check = self.gate.check  # type: ignore[method-assign]
        if self.gate.learns_revocations:
            self.check = self._first_check  # type: ignore[method-assign]
        #: Who is told of decisions; for transports.
        self.listeners = Listeners()
        #: Tools that have a rule beside their code.
        self.ruled_tools: set[str] = set()
        #: What tools say of their own results.
        self.summaries: dict[str, ResultSummary] = {}
        #: Kinds of targets whose rules were held against what the server offers; for transports.
        self.compared: set[str] = set()
        self.attached: set[str] = set()
        for key, message in self.gate.warnings():
            if key != "issuers" or verifier is None:
                logger.warning("%s: %s", key, message)
        for log, is_left, what in self.gate.repaired_logs():
            logger.log(logging.ERROR if is_left else logging.WARNING, "audit log %s: %s", log, what)
        config.warn_of_observation()
        audit.keep_through_fork(self)

    @classmethod
    def from_file(cls, path: str | Path, *, verifier: TokenVerifierProtocol | None = None) -> Self:
        """Builds a guard from a TOML file. Relative paths in it start at its folder.

        Args:
            path: the file.
            verifier: proves identities in the place of ``[[issuers]]``; see :class:`Guard`.

        Raises:
            GuardConfigError: the file cannot be read or used; the text names file, line, key and the nearest right key.
        """
        return cls(GuardConfig.from_file(path), verifier=verifier)

    @classmethod
    def from_dict(
        cls,
        config: Mapping[str, Any],
        *,
        folder: str | Path = ".",
        verifier: TokenVerifierProtocol | None = None,
    ) -> Self:
        """Builds a guard from a dict of the same shape as the file. Relative paths start at ``folder``."""
        return cls(GuardConfig.from_dict(config, folder=folder), verifier=verifier)

    # --- decisions ------------------------------------------------------------------------------

    def check(self, request: ToolRequest, now: float | None = None) -> AllowedCall:
        """Decides at once: microseconds, no network, no waiting.

        With ``audit.durability = "each"`` it blocks until the record is on disk, for at most two seconds. Nothing else of it
        waits for the disk, the intent of a call that writes neither: that is :meth:`authorize`'s, or :meth:`flush`'s.

        Args:
            request: what came.
            now: seconds since the epoch; left out, the system's clocks are read. A guard takes one or the other, never both.

        Raises:
            Denied: a room refused; the child class names the room.
            GuardFault: the call could not be decided; ``needs_authorize`` where something must be waited for.
        """
        if self.gate.learns_revocations and not self._outside.is_started:
            self.start()
        with self.listeners.telling(request) as telling:
            return telling.decided(telling.measured(lambda: self.gate.check(request, now)))

    async def authorize(self, request: ToolRequest, now: float | None = None) -> AllowedCall:
        """Decides like :meth:`check`, and waits for what it needs: keys, a verifier, or room in the queue of the audit log.

        It returns once the record of a call that writes is on disk, and with ``audit.durability = "each"`` that of any other.

        Args:
            request: what came.
            now: as of :meth:`check`.
        """
        decision = await self._authorized(request, now)
        if isinstance(decision, ObservedCall):
            raise GuardFault("internal", "an observed call is none that was allowed")
        return decision

    async def _authorized(  # noqa: PLR0913 - all but the request are options, given by name
        self,
        request: ToolRequest,
        now: float | None = None,
        *,
        observes: bool = False,
        ends: bool = False,
        attested: Attested | None = None,
        decision: Decision | None = None,
    ) -> AllowedCall | ObservedCall:
        """``observes``: a server's layer asks, which lets pass what observed rooms refuse. ``ends``: the ending will be told.
        ``attested``: who calls on stdio. ``decision``: what :meth:`_at_once` gave.
        """
        if not self._outside.is_started:
            self.start()
        agreed = functools.partial(self._agreed, observes=observes, now=now)
        look = functools.partial(self.gate.decide, request, observes=observes, ends=ends, now=now)
        decide: Callable[[], Decision] = functools.partial(look, attested=attested)
        with self.listeners.telling(request) as telling:
            for _ in range(MAX_WAITS):
                found = decision or await self._measured(decide, telling)
                decision = None
                if isinstance(found, Agreeing):
                    decide = await agreed(found)
                elif isinstance(found, Waiting):
                    decide = functools.partial(look, has_waited=True, attested=await self._outside.answer(found))
                else:
                    return telling.decided(await self._kept(found))
            raise GuardFault("internal", "the call waited for too much")

    def _ended(self) -> None:
        """A call has ended, whose places and counts others may share."""
        self._outside.collect()

    async def _told(self) -> None:
        """Waits until others can know of the calls that have ended: a client that has its answer may call them at once."""
        await self._outside.told()

    @property
    def _decides_at_once(self) -> bool:
        """Whether nobody must be told of decisions and nothing be waited for before one; for the corridor."""
        return not (self.listeners.are_there or self._keeps_each) and self._outside.is_started

    async def _nested(self, proof: Proof, request: ToolRequest, *, observes: bool) -> Proof:
        """Another message of a caller whose token and binding are proved: it waits for other processes alone."""
        decide = functools.partial(self.gate.check_nested, proof, request, observes=observes)
        with self.listeners.telling(request, caller=proof) as telling:
            decision = await self._measured(decide, telling)
            if isinstance(decision, Agreeing):
                decision = await self._measured(await self._agreed(decision, observes=observes), telling)
            if isinstance(decision, Agreeing | Waiting):
                raise GuardFault("internal", "the nested call waited for too much")
            return telling.decided(await self._kept(decision))

    def _recheck(self, proof: Proof) -> None:
        """Looks again at a call that was let through, whose token may have died since.

        Raises:
            Denied: it has.
        """
        with self.listeners.telling(proof=proof):
            self.gate.recheck(proof)

    async def _kept(self, proof: Proof) -> Proof:
        """Waits until the record of a call that passed is on disk, where it must be."""
        if self.gate.must_keep(proof):
            await self._keeper.keep()
        return proof

    async def _agreed(
        self, agreeing: Agreeing, *, observes: bool, now: float | None = None
    ) -> Callable[[], AllowedCall | ObservedCall | Agreeing]:
        """Asks what other processes must agree on; gives what decides by the answer."""
        answer = await self._outside.agree(agreeing)
        decide = functools.partial(self.gate.agreed, agreeing, **answer._asdict(), observes=observes, now=now)
        return decide if agreeing.ticket is None else functools.partial(self._or_ended, decide)

    def _or_ended(self, decide: Callable[[], T]) -> T:
        """What a later room refuses gives its place back."""
        try:
            return decide()
        except Denied:
            self._outside.collect()
            raise

    async def _measured(self, decide: Callable[[], Decision], telling: Telling) -> Decision:
        """Decides, and waits for room in the queue of the audit log, and for a refusal that must be on disk."""
        try:
            try:
                return telling.measured(decide)
            except GuardFault as fault:
                if fault.code != "audit_queue_full":
                    raise
                return await self._decide_with_room(decide, telling)
        except Denied as denied:
            # Strangers have a budget of records, and make nobody wait for the disk.
            if self._keeps_each and not isinstance(denied, RequestDenied | TokenDenied):
                await self._keeper.keep()
            raise

    async def _decide_with_room(self, decide: Callable[[], Decision], telling: Telling) -> Decision:
        """Decides once there is room in the queue of the audit log, which is awaited for a short while."""
        import asyncio  # noqa: PLC0415 - a third of the package's import; whoever awaits this has it

        until = time.monotonic() + AUDIT_WAIT
        while True:
            await asyncio.sleep(AUDIT_WAIT / 10)
            try:
                return telling.measured(decide)
            except GuardFault as fault:
                if fault.code != "audit_queue_full" or time.monotonic() > until:
                    raise

    async def authorize_head(self, request: ToolRequest, now: float | None = None) -> None:
        """Checks headers, token and binding alone, before a long body is read. Charges nothing."""
        self.start()
        if self.gate.is_observed("token") or self.gate.is_observed("binding"):
            # Whoever would be refused here passes anyhow; the whole decision records it.
            return
        attested: Attested | None = None
        has_waited = False
        with self.listeners.telling(request) as telling:
            for _ in range(MAX_WAITS):
                look = functools.partial(
                    self.gate.check_head, request, has_waited=has_waited, attested=attested, now=now
                )
                waiting = telling.measured(look)
                if waiting is None:
                    return
                attested = await self._outside.answer(waiting)
                has_waited = True
            raise GuardFault("internal", "the call waited for too much")

    async def limits_of(self, request: ToolRequest) -> list[AppliedLimit]:
        """How every rule of ``[limits]`` stands that counts a call: in the server of ``[state]`` where processes share it, else
        in this process. Charges nothing.

        Raises:
            Denied: a room before the limits refuses the call.
            GuardFault: it could not be decided.
        """
        from mcp_fastguard.limits import AppliedLimit  # noqa: PLC0415 - only whoever explains a decision needs it

        await self.authorize_head(request)
        found = [AppliedLimit.of(fields) for fields in self.gate.applied_limits(request)]
        return await self._outside.look(found)

    def call(self, request: ToolRequest) -> Call:
        """One call through all rooms: ``async with guard.call(request) as call:``. See :meth:`authorize`."""
        return Call(self, request)

    def may_see(self, kind: str, name: str, caller: AllowedCall | ObservedCall | VerifiedToken) -> bool:
        """Whether a list may show a ``"tool"``, ``"prompt"`` or ``"resource"`` to a caller. Nothing is hidden while the policy is
        only observed.
        """
        return self.gate.may_see(kind, name, caller) or self.gate.is_observed("policy")

    def rule_gaps(self, kind: str, names: Sequence[str]) -> list[str]:
        """What does not fit between the rules and a server: one line for each name without a rule, and for each rule without one.

        Args:
            kind: ``"tool"``, ``"prompt"`` or ``"resource"``.
            names: all that the server offers of it.
        """
        keys = {name: self.gate.rule_keys(kind, name) for name in names}
        used = {key for found in keys.values() for key in found}
        table = f"{kind}s"
        rules = json.loads(self.gate.config_json()).get(table) or {}
        unused = [name for name in rules if f'{table}."{name}"' not in used]
        return [
            *(f"{kind} `{name}` has no rule: it is refused" for name, found in keys.items() if not found),
            *(f'{table}."{name}" speaks of no {kind} of this server' for name in unused),
        ]

    # --- rules and keys -------------------------------------------------------------------------

    def tool(  # noqa: PLR0913 - the keys of a rule
        self,
        *,
        scopes: Sequence[str] = (),
        any_scopes: Sequence[str] = (),
        open: bool = False,
        tier: str | None = None,
        read_only: bool = False,
        name: str | None = None,
        result_summary: ResultSummary | None = None,
    ) -> Callable[[Decorated], Decorated]:
        """A rule beside the tool. It holds in addition to the configuration's: the stricter wins.

        Args:
            scopes: the token must have all of these.
            any_scopes: the token must have one of these.
            open: any verified caller may; only without scopes.
            tier: ``"auto"`` (default), ``"log"``, ``"approve"`` or ``"block"``.
            read_only: the tool changes nothing, so that its calls need not wait until their record is on disk. Default: False.
                A tool that does write and says so can change something of which no record is left.
            name: the tool's name; default: the function's.
            result_summary: what the records of its calls say of the result, as of :meth:`summarise`. Default: the usual counts.

        Raises:
            ValueError: neither scopes nor ``open``, or both; an unknown tier.
        """

        def decorate(function: Decorated) -> Decorated:
            tool: str = name or str(getattr(function, "__name__", ""))
            self.gate.add_rule(
                "tool",
                tool,
                scopes=list(scopes),
                any_scopes=list(any_scopes),
                is_open=open,
                tier=tier or "auto",
                is_read_only=read_only,
            )
            self.ruled_tools.add(tool)
            if result_summary is not None:
                self.summaries[tool] = result_summary
            return function

        return decorate

    def summarise(self, tool: str, result_summary: ResultSummary) -> None:
        """Has the records of a tool's calls say of the result what ``result_summary`` counts.

        By default they count items and bytes of the content, and rows where the structured content has a list under ``rows`` or
        ``result``. What the tool counts itself by ``current_call().record`` comes before both.

        Args:
            tool: its name.
            result_summary: takes the result as the server sends it, and gives a mapping of ``rows``, ``bytes`` and ``items``, or
                of some. It runs on the call's thread, so it must be quick. What it raises is logged by its class and changes
                nothing for the caller; the record then has ``summary_failed``.
        """
        self.summaries[tool] = result_summary

    def revoke(  # noqa: PLR0913 - what a token can be named by
        self,
        *,
        issuer: str | None = None,
        token_id: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        key_id: str | None = None,
        issued_before: float | None = None,
    ) -> None:
        """Refuses, from the next call on, the tokens that have all of these values and were issued until now.

        It holds until the last such token has expired, is recorded, and ends open streams. A token issued later is not hit: to
        keep a client out, revoke its grant at the authorization server as well, or :meth:`block` it.

        Args:
            issuer: ``iss``.
            token_id: ``jti``; for tokens without one, what ``VerifiedToken.token_id`` gives.
            subject: ``sub``.
            client_id: the OAuth client.
            session: ``sid``.
            key_id: ``kid``, as the tokens' headers name their key. ``denied_keys`` of the issuer keeps a key out for good.
            issued_before: seconds since the epoch; only tokens whose ``iat`` is before. Default: the end of this second.

        With ``revocations.shared`` all processes are told, which may take up to 2 s.

        Raises:
            ValueError: nothing is named, or the table of revocations is full.
            GuardFault: the revocation holds, and could not be recorded, or no other process could be told
                (``revocation_untold``).
        """
        named: dict[str, Any] = {
            "issuer": issuer,
            "token_id": token_id,
            "subject": subject,
            "client_id": client_id,
            "session": session,
            "key_id": key_id,
        }
        if not self.tells_others:
            self.gate.revoke(**named, issued_before=issued_before)
            return
        from mcp_fastguard.revocations import Entry  # noqa: PLC0415 - only where others are told

        self._say(Entry.revoke(**named, issued_before=issued_before))

    def block(
        self,
        *,
        tool: str | None = None,
        issuer: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
        until: float | None = None,
    ) -> None:
        """Refuses, from the next call on, the calls that have all of these values, whatever their tokens and the rules say.

        The code is ``blocked``, with 403. Enforced where room policy is only observed, too; kept through :meth:`reload`; told to
        all processes with ``revocations.shared``, like a revocation. Recorded, and open streams end.

        Args:
            tool: its name.
            issuer: ``iss``.
            subject: ``sub``.
            client_id: the OAuth client.
            until: seconds since the epoch, when it ends by itself. Default: until :meth:`unblock`. The same block again takes the
                new end.

        Raises:
            ValueError: nothing is named, or 10,000 blocks are in force.
            GuardFault: the block holds, and could not be recorded, or no other process could be told (``revocation_untold``).
        """
        named: dict[str, Any] = {"tool": tool, "issuer": issuer, "subject": subject, "client_id": client_id}
        if not self.tells_others:
            self.gate.block(**named, until=until)
            return
        from mcp_fastguard.revocations import Entry  # noqa: PLC0415 - only where others are told

        self._say(Entry("block", time.time(), **named, until=until))

    def unblock(
        self,
        *,
        tool: str | None = None,
        issuer: str | None = None,
        subject: str | None = None,
        client_id: str | None = None,
    ) -> bool:
        """Lifts the block that names exactly this; whether there was one in this process.

        Raises:
            GuardFault: no other process could be told (``revocation_untold``).
        """
        named: dict[str, Any] = {"tool": tool, "issuer": issuer, "subject": subject, "client_id": client_id}
        was_blocked = self.gate.unblock(**named)
        if self.tells_others:
            from mcp_fastguard.revocations import Entry  # noqa: PLC0415 - only where others are told

            self._outside.tell(Entry("unblock", time.time(), **named))
        return was_blocked

    def _say(self, entry: Entry) -> None:
        entry.apply(self.gate)
        self._outside.tell(entry)

    @property
    def tells_others(self) -> bool:
        """Whether what operators say in this process reaches all others (``revocations.shared``). It takes a thread that speaks
        to them, which this starts.
        """
        if self.gate.learns_revocations:
            self.start()
        return self._outside.tells_others

    def act(self, entry: Entry, *, by: AllowedCall) -> bool:
        """Does what an administrator has asked for by the endpoint of ``[admin]``; for transports. Whether it changed anything.

        Raises:
            ValueError: no more is remembered, as of :meth:`revoke` and :meth:`block`.
            GuardFault: it holds, and could not be recorded, or no other process could be told (``revocation_untold``).
        """
        tells_others = self.tells_others
        had_effect = entry.apply(self.gate, by)
        if tells_others:
            self._outside.tell(entry.said_by(by))
        return had_effect

    def refresh_keys(self) -> None:
        """Has the key sets of all issuers fetched now, in the background."""
        self.start()
        if self._outside.watch is not None:
            self._outside.watch.refresh()

    def key_status(self) -> dict[str, dict[str, Any]]:
        """Figures of the key set of each issuer that is fetched.

        ``age``: seconds since the set came or was confirmed; ``stale``: seconds since it should have been replaced; ``usable``:
        whether it is not older than ``max_stale`` allows; ``fetches`` that ended, ``confirmed``: how many of these brought no
        new set; ``failures`` in a row, ``last_error``; ``due_in``: seconds to the next fetch; ``misses``: tokens refused
        because their key was not there.
        """
        status: dict[str, dict[str, Any]] = {} if self._outside.watch is None else self._outside.watch.status()
        for issuer, misses, is_usable in self.gate.key_figures():
            if issuer in status:
                status[issuer] |= {"misses": misses, "usable": is_usable}
        return status

    def state_status(self) -> dict[str, Any]:
        """Figures of what is shared with other processes, and of this one alone.

        ``asked``: how many calls waited for the server of ``[state]``; ``seconds``: for how long in all; ``answers``: how often
        it gave which answer, by ``("limits", mode)`` and ``("proofs", "new" | "used" | "unknown")``; ``heard``: for how many
        seconds the file and the server of ``[revocations]`` were not heard.
        """
        return self._outside.status()

    def reload(self) -> None:
        """Reads the configuration again. It is swapped whole; on any error the old one stays in force.

        Raises:
            GuardConfigError: the new configuration cannot be used. Nothing has changed.
        """
        config = self._config.again()
        self.gate.reload(config.text, file=config.file, is_json=config.is_json)
        self._config = config
        config.warn_of_observation()
        self._outside.reload(config)

    def start(self) -> None:
        """Begins to fetch the keys that the configuration does not hold, and to learn what was revoked elsewhere. Called by
        itself at the first need.

        Raises:
            GuardFault: the system gives no thread or no file (``start_failed``); the next call tries again.
        """
        self._outside.start(self._config)

    def after_fork(self) -> None:
        """In a child process: a log of its own at once, a key thread of its own at its first call."""
        self.gate.after_fork()
        self._keeper.after_fork()
        self._outside.after_fork()
        if (self._outside.watch is not None or self.gate.learns_revocations) and "check" in vars(self):
            self.check = self._first_check  # type: ignore[method-assign]

    def _first_check(self, request: ToolRequest, now: float | None = None) -> AllowedCall:
        self.start()
        self.check = self.gate.check  # type: ignore[method-assign]
        return self.gate.check(request, now)

    def on_decision(self, listener: Listener) -> None:
        """Has ``listener`` called with every decision: an ``AllowedCall``, a ``Denied`` or a ``GuardFault``; in servers that only
        observe a room, an ``ObservedCall`` too.

        A call that passed and is refused later, for instance because its token died, is told twice. The listener runs on
        the thread of the call, so it must be quick; what it raises is logged.
        """
        self.listeners.add(listener)
        vars(self).pop("check", None)

    def on_timed_decision(self, listener: TimedListener) -> None:
        """Like :meth:`on_decision`; ``listener`` gets the decision and its :class:`~mcp_fastguard.listeners.Timing`."""
        self.listeners.add_timed(listener)
        vars(self).pop("check", None)

    # --- servers --------------------------------------------------------------------------------

    def asgi(self, app: ASGIApp, *, cors_origins: Sequence[str] | None = None) -> GuardASGI:
        """The outermost ASGI layer in front of ``app``. Serves the resource's metadata (RFC 9728) too.

        Args:
            app: what is guarded.
            cors_origins: origins whose pages may call, such as ``"https://app.example.com"``; ``["*"]`` for all. The layer then
                answers preflights of the guarded path, lets those pages read refusals, and refuses other origins with 403. Left
                out (default), the layer says nothing of origins: preflights go to ``app``, and a page cannot read a refusal.

        Raises:
            ValueError: an entry of ``cors_origins`` is no origin as browsers write them.
        """
        from mcp_fastguard.transport.asgi import GuardASGI  # noqa: PLC0415 - only servers need it

        return GuardASGI(app, self, cors_origins=cors_origins)

    def mcp_middleware(self, *, transport: str = "http") -> Any:
        """The message layer for ``mcp.server.mcpserver.MCPServer(middleware=[...])``.

        Args:
            transport: ``"http"`` (default): every message needs the proof of the ASGI layer. ``"stdio"``: the caller is the one
                that ``[stdio]`` names.
        """
        from mcp_fastguard.transport.mcp_sdk import GuardMiddleware  # noqa: PLC0415 - needs the `mcp` package

        return GuardMiddleware(self, transport=transport)

    def mcp_server(self, server: Server, *, transport: str = "http") -> Server:
        """Puts the message layer into a server of the MCP SDK, and gives it back. For ``mcp`` 1.x, whose servers take no
        middleware, the only way; 2.x has :meth:`mcp_middleware` too.

        Raises:
            TypeError: it is no server of the SDK.
            ValueError: it has a message layer already, or the transport is not known.
        """
        from mcp_fastguard.transport.mcp_sdk import guard_server  # noqa: PLC0415 - needs the `mcp` package

        guard_server(self, server, transport=transport)
        return server

    def fastmcp_middleware(self, *, transport: str = "http") -> Any:
        """The message layer for ``FastMCP(middleware=[...])``; it must be the first. See :meth:`mcp_middleware`."""
        from mcp_fastguard.transport.fastmcp import GuardFastMCPMiddleware  # noqa: PLC0415 - needs `fastmcp`

        return GuardFastMCPMiddleware(self, transport=transport)

    def fastmcp_auth(self, inner: Any = None) -> Any:
        """An auth provider for ``FastMCP(auth=...)``. It brings the ASGI layer along, so that FastMCP's own runner is guarded.

        Args:
            inner: FastMCP's own provider of the login, whose routes stay public; give it to the guard as ``verifier`` too.
                Default: None.
        """
        from mcp_fastguard.transport.fastmcp import GuardAuthProvider  # noqa: PLC0415 - needs `fastmcp`

        return GuardAuthProvider(self, inner)

    def token_verifier(self) -> Any:
        """A ``TokenVerifier`` for the SDK's own auth: it accepts the token that the ASGI layer has proved in this request."""
        from mcp_fastguard.transport.mcp_sdk import ProvedTokenVerifier  # noqa: PLC0415 - needs the `mcp` package

        return ProvedTokenVerifier(self)

    def stand_in_token(self) -> str | None:
        """The token of a message that no HTTP request carried: None, for what is unproved is refused.

        Guards of ``mcp_fastguard.testing`` alone have one, so that in-memory clients can be tested. The message is decided by all
        rooms with it.
        """
        return None

    def metadata_routes(self) -> list[Any]:
        """Starlette routes for the resource's metadata, where the guarded app is mounted in another."""
        from mcp_fastguard.transport.metadata import metadata_routes  # noqa: PLC0415 - needs starlette

        return metadata_routes(self)

    def admin_routes(self) -> list[Any]:
        """Starlette routes for the endpoint of ``[admin]``, where the guarded app is mounted in another."""
        from starlette.routing import Route  # noqa: PLC0415 - needed only where an app is built of Starlette

        path = self.gate.admin_path
        return [] if path is None else [Route(path, self.asgi(_no_app))]

    # --- life -----------------------------------------------------------------------------------

    @property
    def config(self) -> GuardConfig:
        """The configuration in force."""
        return self._config

    @property
    def audit_folder(self) -> Path | None:
        """Where this process writes its audit log."""
        return self.gate.audit_folder

    def record_id(self, decided: AllowedCall | ObservedCall | GuardError) -> str | None:
        """The ``id`` of a decision's record, by which it can be quoted: ``fastguard explain`` and ``fastguard audit prove`` take
        it. None where the decision has no record of its own. Of this process's decisions, unless an error brings it along.
        """
        folder, brought = self.audit_folder, getattr(decided, "record_id", None)
        return brought or (f"{folder.name}-{decided.record}" if folder is not None and decided.record else None)

    def flush(self, timeout: float = 2.0) -> None:
        """Waits until everything decided so far is on disk.

        Raises:
            GuardFault: it is not after ``timeout`` seconds, or the log cannot be written.
        """
        self.gate.flush(timeout)

    def close(self) -> None:
        """Ends the fetching of keys, flushes and seals the audit log. Calls after it are refused."""
        if self._outside.is_closed:
            return
        # First, for calls that wait for a store would go on without it once their connection is cut.
        self.gate.refuse()
        self._outside.close()
        unknown = self.gate.close()
        if unknown is not None:
            logger.warning("audit log: the registry was not told of its end, and the next start will: %s", unknown)

    async def aclose(self) -> None:
        """Like :meth:`close`, and closes this event loop's connections to the store of ``[state]``. The ASGI layer does so at the
        end of its lifespan.
        """
        import asyncio  # noqa: PLC0415 - a third of the package's import; whoever awaits this has it

        self.gate.refuse()
        await self._outside.aclose()
        # The log is sealed on disk.
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _no_app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Stands behind a layer that serves its own paths alone."""
    raise GuardFault("internal", "no app is guarded here")
