"""The outermost ASGI layer: the only place that can answer 401, 403 and 429 with their headers (decision 8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_fastguard._fastguard import (
    CERTIFICATE_HEADERS,
    MAX_BODY_BYTES,
    MAX_BODY_BYTES_BEFORE_TOKEN,
    ToolRequest,
)
from mcp_fastguard.call import Call
from mcp_fastguard.errors import Denied, GuardError, GuardFault, RequestDenied
from mcp_fastguard.transport.admin import AdminEndpoint
from mcp_fastguard.transport.bodies import drain, replay
from mcp_fastguard.transport.challenge import http_answer
from mcp_fastguard.transport.metadata import Metadata, metadata_paths
from mcp_fastguard.transport.offers import inventory_of, server_of
from mcp_fastguard.transport.origins import Origins

if TYPE_CHECKING:
    from types import ModuleType

    from mcp_fastguard._fastguard import AllowedCall, ObservedCall, VerifiedToken
    from mcp_fastguard.guard import Guard

__all__ = ["ASGIApp", "GuardASGI", "Proved", "proved_call"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("mcp_fastguard")

#: Where a request's scope holds its calls, one per guard.
CALLS: Final = "mcp_fastguard.calls"

#: A stream's token is looked at again every so many seconds (decision 3).
RECHECK_INTERVAL: Final = 5.0

#: A server's tools are awaited for so many seconds, to compare the rules with them.
COMPARE_WAIT: Final = 10.0

#: Lists are filtered by the message layer; without it they would show what the caller may not see.
_LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})


class Proved(NamedTuple):
    """A call that the ASGI layer has proved, and the headers that it came with."""

    call: Call
    headers: Headers


#: What the ASGI layer has proved in this context.
proved: ContextVar[Proved | None] = ContextVar("fastguard_proved", default=None)


def proved_call(guard: Guard, scope: Mapping[str, Any] | None) -> Call | None:
    """The call that this guard's ASGI layer left in a request's scope."""
    calls: dict[Guard, Call] = (scope or {}).get(CALLS, {})
    return calls.get(guard)


class GuardASGI:
    """Guards one path of ``app``, serves the resource's metadata, and refuses all paths that are not declared public.

    Attributes of ``app`` (``state``, ``router``, …) are handed through.

    Args:
        app: what is guarded.
        guard: whose decisions hold.
        cors_origins: see :meth:`Guard.asgi`.

    Raises:
        ValueError: an entry of ``cors_origins`` is no origin as browsers write them.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, cors_origins: Sequence[str] | None = None) -> None:
        self.app = app
        self.guard = guard
        self._origins = None if cors_origins is None else Origins(guard.config.resource_url, cors_origins)
        self._metadata_paths = metadata_paths(guard)
        self._metadata = Metadata(guard)
        self._admin = AdminEndpoint(guard, lambda scope, body: _request(public_path(scope), scope, body))
        self._watch = _Watch(guard)
        self._comparing: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server."""
        kind = scope["type"]
        if kind == "http":
            path = public_path(scope)
            if path != self.guard.gate.path:
                await self._elsewhere(path, scope, receive, send)
            elif self._origins is not None or scope["method"] == "OPTIONS":
                await self._for_browsers(path, scope, receive, send)
            else:
                await self._guarded(path, scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind == "websocket":
            # MCP has no WebSocket transport; a socket would carry messages that nobody has decided on.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _elsewhere(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path in self._metadata_paths or path.removeprefix(scope.get("root_path", "")) in self._metadata_paths:
            # A proxy or a mount may hand it on below the app's own prefix; it is the same document.
            await self._metadata(scope, receive, send)
        elif path == self.guard.gate.admin_path:
            await self._admin(scope, receive, send)
        elif path in self.guard.config.public_paths:
            await self.app(scope, receive, send)
        else:
            denied = RequestDenied("path_unknown", "the path is neither guarded nor declared public", 404)
            self.guard.listeners.telling().tell(denied)
            await drain(receive)
            await _answer(denied, None, scope, send)

    async def _for_browsers(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """What pages of browsers may do is settled before anything else, since a preflight carries no token by design."""
        is_preflight = _is_preflight(scope)
        if self._origins is None:
            # Without declared origins a preflight is the app's to answer. It is given no body, so that it carries no message.
            if is_preflight:
                await self.app(scope, replay(b"", receive), send)
            else:
                await self._guarded(path, scope, receive, send)
            return
        try:
            if is_preflight:
                granted = self._origins.preflight(scope["headers"])
                await send({"type": "http.response.start", "status": 204, "headers": granted})
                await send({"type": "http.response.body", "body": b""})
                return
            added = self._origins.headers(scope["headers"])
        except RequestDenied as denied:
            _log(denied)
            await drain(receive)
            await _answer(denied, None, scope, send)
            return
        await self._guarded(path, scope, receive, Origins.adding(added, send) if added else send)

    async def _guarded(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        authorized = await self._authorized(path, scope, receive, send)
        if authorized is None:
            return
        call, body = authorized
        proof = call.proof
        verified = proof.token
        scope.setdefault(CALLS, {})[self.guard] = call
        if call.request.has_proofs:
            scope["headers"] = self._without_proofs(scope, call.request, verified)
            if proof.dpop_nonce is not None:
                send = _with_nonce(send, proof.dpop_nonce)
        token = proved.set(Proved(call, scope["headers"]))
        found = self._watch.enter(call, send)
        identity = _identity()
        user = identity.as_user(scope, verified) if identity is not None and verified is not None else None
        try:
            await self.app(scope, replay(body, receive), found.sending)
        except asyncio.CancelledError:
            if not await found.ended_stream():
                raise
        finally:
            self._watch.leave(found)
            if identity is not None and user is not None:
                identity.forget_user(user)
            proved.reset(token)
            if not call.is_taken:
                call.close()

    async def _authorized(self, path: str, scope: Scope, receive: Receive, send: Send) -> tuple[Call, bytes] | None:
        """The call that a request carries, with its body; None where it was refused, and answered."""
        body: bytes | None = None
        call: Call | None = None
        try:
            message = await receive()
            body = _whole(message)
            if body is None:
                body = await self._read(message, path, scope, receive)
            call = Call(self.guard, _request(path, scope, body), observes=True)
            proof = call.proof if call.authorize_at_once() else await call.authorize()
            if proof.method in _LISTS or proof.owes:
                self._require_layer(proof)
        except _ClientGoneError:
            return None
        except GuardError as error:
            if call is not None:
                call.fail(error)
                call.close()
            _log(error)
            await _answer(error, body, scope, send)
            return None
        return call, body

    async def _read(self, message: Message, path: str, scope: Scope, receive: Receive) -> bytes:
        """Reads the body, at most 64 KiB of it before headers, token and binding were checked (decision 9)."""
        body = b""
        is_checked = False
        while True:
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            chunk = message.get("body", b"")
            body = body + chunk if body else chunk
            if len(body) > MAX_BODY_BYTES_BEFORE_TOKEN and not is_checked:
                await self.guard.authorize_head(_request(path, scope, None))
                is_checked = True
            if len(body) > MAX_BODY_BYTES:
                with self.guard.listeners.telling():
                    raise RequestDenied("body_too_large", "the body is too large", 413)
            if not message.get("more_body", False):
                return bytes(body)
            message = await receive()

    def _without_proofs(self, scope: Scope, request: ToolRequest, verified: VerifiedToken | None) -> Headers:
        """The headers as the app may see them."""
        headers: Headers = scope["headers"]
        if request.speaks_of_certificates and not self.guard.gate.passes_certificates_of(_peer(scope)):
            # Of a peer that is no declared proxy; an app could believe them (RFC 9440).
            headers = [(name, value) for name, value in headers if name not in CERTIFICATE_HEADERS]
        if request.is_under_dpop and verified is not None:
            # A refusal of this room that is only observed lets the request pass as it came, never as a bearer's.
            headers = _as_bearer(headers)
        return headers

    def _require_layer(self, proof: AllowedCall | ObservedCall) -> None:
        if "http" not in self.guard.attached:
            with self.guard.listeners.telling(proof=proof):
                message = f"`{proof.method}` needs the message layer: add guard.mcp_middleware()"
                raise GuardFault("middleware_missing", message)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[Any]:  # noqa: ARG002 - Starlette gives the outer app
        """The lifespan of ``app`` and of the guard, for where the layer is mounted: Starlette runs none of mounted apps.

        ``FastAPI(lifespan=guarded.lifespan)``, or entered in a lifespan of your own.
        """
        inner = getattr(self.app, "lifespan", None) or getattr(
            getattr(self.app, "router", None), "lifespan_context", None
        )
        self._start()
        try:
            if inner is None:
                yield None
            else:
                async with inner(self.app) as state:
                    yield state
        finally:
            await self._end()

    def _start(self, outer: Any = None) -> None:
        self.guard.start()
        server = server_of(self.app) or server_of(outer)
        if server is not None:
            # Its first list need not tell.
            self.guard.compared.update(_KINDS)
            self._comparing = asyncio.ensure_future(_compare(self.guard, server))

    async def _end(self) -> None:
        if self._comparing is not None:
            self._comparing.cancel()
        await self.guard.aclose()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begins to fetch keys at the start, and seals the log at the end."""
        has_begun = False

        async def received() -> Message:
            nonlocal has_begun
            has_begun = True
            return await receive()

        async def observed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._start(scope.get("app"))
            elif message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self._end()
            await send(message)

        try:
            await self.app(scope, received, observed)
        except Exception:
            # An app that knows no lifespan raises before it asks for anything (ASGI lifespan protocol).
            if has_begun:
                raise
        if not has_begun:
            await received()
            await observed({"type": "lifespan.startup.complete"})
            await received()
            await observed({"type": "lifespan.shutdown.complete"})


#: What rules name, in the order of :class:`Inventory`.
_KINDS: Final = ("tool", "prompt", "resource")


async def _compare(guard: Guard, server: Any) -> None:
    """Holds the rules against what a server offers, beside its first calls: a proxy asks other servers for its list."""
    try:
        async with asyncio.timeout(COMPARE_WAIT):
            inventory = await inventory_of(server)
    except Exception as error:  # noqa: BLE001 - whatever a server raises, its calls are decided as ever
        guard.compared.difference_update(_KINDS)
        logger.warning("the rules were not compared with the server's tools: %s", type(error).__name__)
        return
    for kind, offers in zip(_KINDS, inventory, strict=True):
        for gap in guard.rule_gaps(kind, [offer.name for offer in offers]):
            logger.warning("%s", gap)


class _ClientGoneError(Exception):
    """The client left before its body was read."""


class _Open:
    """A response that is under way."""

    __slots__ = ("call", "has_ended", "has_started", "next_look", "send", "task")

    def __init__(self, call: Call, send: Send, task: asyncio.Task[Any] | None) -> None:
        self.call = call
        self.send = send
        self.task = task
        #: Unknown until the first look around: most responses have ended before it.
        self.next_look: float | None = None
        self.has_started = False
        self.has_ended = False

    def sending(self, message: Message) -> Awaitable[None]:
        """Hands on, and notes that the client has seen something."""
        self.has_started = True
        return self.send(message)

    async def ended_stream(self) -> bool:
        """After a cancellation: whether it was ours. Then the stream is ended for the client."""
        if not self.has_ended or self.task is None:
            return False
        self.task.uncancel()
        if self.has_started:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            denied = Denied("token_revoked", "the token died while the call ran", 401)
            await _answer(denied, None, None, self.send)
        return True


class _Watch:
    """Looks at the tokens of open responses again and again, and ends those whose token has died (decision 3).

    One timer per loop serves all responses, so that a short one costs nothing but its entry in a set.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._open: set[_Open] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, call: Call, send: Send) -> _Open:
        task = asyncio.current_task()
        found = _Open(call, send, task)
        self._open.add(found)
        loop = asyncio.get_running_loop() if task is None else task.get_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(RECHECK_INTERVAL / 5, self._look)
        return found

    def leave(self, found: _Open) -> None:
        self._open.discard(found)

    def _look(self) -> None:
        if self._loop is None or not self._open:
            self._loop = None
            return
        now = self._loop.time()
        for found in list(self._open):
            if found.next_look is None:
                # It began since the last look around, a fifth of the interval ago at most.
                found.next_look = now + RECHECK_INTERVAL * 4 / 5
            if found.next_look > now:
                continue
            found.next_look = now + RECHECK_INTERVAL
            try:
                with self._guard.listeners.telling(proof=found.call.proof):
                    self._guard.gate.recheck(found.call.proof)
            except GuardError as error:
                _log(error)
                found.has_ended = True
                if found.task is not None:
                    found.task.cancel()
        self._loop.call_later(RECHECK_INTERVAL / 5, self._look)


def _as_bearer(headers: Headers) -> Headers:
    """The headers as an app wants them that knows no DPoP: after the proof the token passes as ``Bearer``, and the proof, which
    is used up, is left out.
    """
    return [
        (name, b"Bearer " + value[5:]) if name == b"authorization" else (name, value)
        for name, value in headers
        if name != b"dpop"
    ]


def _with_nonce(send: Send, nonce: str) -> Send:
    """Gives the next nonce along where the client's is about to end (RFC 9449 section 8.2), so that no call fails for it. No
    cache may keep it for another.
    """
    more = [(b"dpop-nonce", nonce.encode("ascii")), (b"cache-control", b"no-store")]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending


def _whole(message: Message) -> bytes | None:
    """The body of a message that holds all of it, if it is one that may be read before the token was checked; mostly it is."""
    body = message.get("body", b"")
    is_whole = message["type"] == "http.request" and not message.get("more_body", False)
    return body if is_whole and type(body) is bytes and len(body) <= MAX_BODY_BYTES_BEFORE_TOKEN else None


def _request(path: str, scope: Scope, body: bytes | None) -> ToolRequest:
    return ToolRequest.http(
        method=scope["method"],
        path=path,
        headers=scope["headers"],
        body=body,
        peer=_peer(scope),
        query=scope.get("query_string"),
        certificate=_certificate(scope) if scope.get("extensions") else None,
    )


def _is_preflight(scope: Scope) -> bool:
    """A CORS preflight carries no token by design, and reaches no tool."""
    if scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


def public_path(scope: Scope) -> str:
    """The path that the client asked for, with the prefix that a proxy or a mount has taken off.

    Servers and frameworks differ in whether ``path`` still has it; the rule is that of Starlette's routing, so that the layer and
    the app never see two paths.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root:
        return path
    root = root.rstrip("/")
    return path if not root or path == root or path.startswith(f"{root}/") else root + path


def _peer(scope: Scope) -> str | None:
    """The peer's address; None where there is none, or where it is only the server's word (decision 14)."""
    client = scope.get("client")
    if not client:
        return None
    host: str = client[0]
    if not _is_address(host):
        return None
    if not client[1] and any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
        # No connection has port 0: uvicorn writes it where it took the address from the header.
        _say_rewritten()
        return None
    return host


def _certificate(scope: Scope) -> str | None:
    """The client's certificate, where the server itself has ended TLS and verified it (the ``tls`` extension of ASGI)."""
    tls = scope["extensions"].get("tls")
    if not tls or tls.get("client_cert_error"):
        return None
    return next(iter(tls.get("client_cert_chain") or ()), None)


@lru_cache(maxsize=1_024)
def _is_address(host: str) -> bool:
    try:
        # A link-local address may carry the interface it was seen on (RFC 4007 section 11).
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@cache
def _say_rewritten() -> None:
    logger.warning(
        "the server takes the peer's address from X-Forwarded-For, so it counts as unknown: "
        "turn that off (uvicorn --no-proxy-headers) and declare the proxies in [proxies]"
    )


def _log(error: GuardError) -> None:
    if isinstance(error, Denied):
        # Names the check, the value that was refused, and the key to look at; never a token.
        logger.info("refused: %s (see `%s`)", error, error.config_key or "docs/codes.md")
    else:
        logger.error("not decided: %s", error)


async def _answer(error: GuardError, body: bytes | None, scope: Scope | None, send: Send) -> None:
    status, headers, content = http_answer(error, body)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    # RFC 9110 section 9.3.2: the headers of an answer to HEAD are those of GET's, its body is empty.
    is_head = scope is not None and scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else content})


@cache
def _identity() -> ModuleType | None:
    """Names users as the MCP SDK does, where it is installed."""
    try:
        from mcp_fastguard.transport import identity  # noqa: PLC0415 - needs the `mcp` package
    except ImportError:
        return None
    return identity
