"""The outermost ASGI layer: the only place that can answer 401, 403 and 429 with their headers (decision 8)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_fastguard._fastguard import MAX_BODY_BYTES, MAX_BODY_BYTES_BEFORE_TOKEN, ToolRequest
from mcp_fastguard.errors import Denied, GuardError, GuardFault, RequestDenied
from mcp_fastguard.guard import Call
from mcp_fastguard.transport.challenge import http_answer
from mcp_fastguard.transport.metadata import metadata, metadata_paths

if TYPE_CHECKING:
    from types import ModuleType

    from mcp_fastguard.guard import Guard

__all__ = ["ASGIApp", "GuardASGI", "Proved", "proved_call"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("mcp_fastguard")

#: Where a request's scope holds its calls, one per guard.
CALLS: Final = "mcp_fastguard.calls"

#: A stream's token is looked at again every so many seconds (decision 3).
RECHECK_INTERVAL: Final = 5.0

#: Lists are filtered by the message layer; without it they would show what the caller may not see.
_LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})


class Proved(NamedTuple):
    """A call that the ASGI layer has proved, and the headers that it came with."""

    call: Call
    headers: list[tuple[bytes, bytes]]


#: What the ASGI layer has proved in this context.
proved: ContextVar[Proved | None] = ContextVar("fastguard_proved", default=None)


def proved_call(guard: Guard, scope: Scope | None) -> Call | None:
    """The call that this guard's ASGI layer left in a request's scope."""
    calls: dict[Guard, Call] = (scope or {}).get(CALLS, {})
    return calls.get(guard)


class GuardASGI:
    """Guards one path of ``app``, serves the resource's metadata, and refuses all paths that are not declared public.

    Attributes of ``app`` (``state``, ``router``, …) are handed through.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app = app
        self.guard = guard
        self._metadata_paths = metadata_paths(guard)
        self._watch = _Watch(guard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind == "websocket":
            # MCP has no WebSocket transport; a socket would carry messages that nobody has decided on.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == self.guard.gate.path and not _is_preflight(scope):
            await self._guarded(scope, receive, send)
        elif path in self._metadata_paths:
            await self._serve_metadata(scope, send)
        elif _is_preflight(scope) or path in self.guard.config.public_paths:
            await self.app(scope, receive, send)
        else:
            denied = RequestDenied("path_unknown", "the path is neither guarded nor declared public", 404)
            await _answer(denied, None, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: bytes | None = None
        call: Call | None = None
        try:
            body = await self._read(scope, receive)
            call = Call(self.guard, self._request(scope, body), observes=True)
            proof = await call.authorize()
            self._require_layer(proof.method)
        except _ClientGoneError:
            return
        except GuardError as error:
            if call is not None:
                call.fail(error)
                call.close()
            _log(error)
            await _answer(error, body, send)
            return
        scope.setdefault(CALLS, {})[self.guard] = call
        token = proved.set(Proved(call, scope["headers"]))
        found = self._watch.enter(call, send)
        identity = _identity()
        verified = proof.token
        user = identity.as_user(scope, verified) if identity is not None and verified is not None else None
        try:
            await self.app(scope, _replay(body, receive), found.sending)
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

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Reads the body, at most 64 KiB of it before headers, token and binding were checked (decision 9)."""
        body = b""
        is_checked = False
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            chunk = message.get("body", b"")
            body = body + chunk if body else chunk
            if len(body) > MAX_BODY_BYTES_BEFORE_TOKEN and not is_checked:
                await self.guard.authorize_head(self._request(scope, None))
                is_checked = True
            if len(body) > MAX_BODY_BYTES:
                raise RequestDenied("body_too_large", "the body is too large", 413)
            if not message.get("more_body", False):
                return bytes(body)

    def _request(self, scope: Scope, body: bytes | None) -> ToolRequest:
        client = scope.get("client")
        return ToolRequest.http(
            method=scope["method"],
            path=scope["path"],
            headers=scope["headers"],
            body=body,
            peer=_address(client[0]) if client else None,
        )

    def _require_layer(self, method: str) -> None:
        if method in _LISTS and "http" not in self.guard.attached:
            raise GuardFault("middleware_missing", f"`{method}` needs the message layer: add guard.mcp_middleware()")

    async def _serve_metadata(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD", "OPTIONS"}:
            denied = RequestDenied("http_method_refused", "metadata is only read", 405)
            await _answer(denied, None, send, allow=b"GET, HEAD, OPTIONS")
            return
        content = json.dumps(metadata(self.guard)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-headers", b"*"),
            (b"cache-control", b"max-age=300"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content if scope["method"] == "GET" else b""})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begins to fetch keys at the start, and seals the log at the end."""

        async def observed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.guard.start()
            elif message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await asyncio.to_thread(self.guard.close)
            await send(message)

        await self.app(scope, receive, observed)


class _ClientGoneError(Exception):
    """The client left before its body was read."""


class _Open:
    """A response that is under way."""

    __slots__ = ("call", "has_ended", "has_started", "next_look", "send", "task")

    def __init__(self, call: Call, send: Send, now: float) -> None:
        self.call = call
        self.send = send
        self.task = asyncio.current_task()
        self.next_look = now + RECHECK_INTERVAL
        self.has_started = False
        self.has_ended = False

    async def sending(self, message: Message) -> None:
        """Hands on, and notes that the client has seen something."""
        self.has_started = True
        await self.send(message)

    async def ended_stream(self) -> bool:
        """After a cancellation: whether it was ours. Then the stream is ended for the client."""
        if not self.has_ended or self.task is None:
            return False
        self.task.uncancel()
        if self.has_started:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _answer(Denied("token_revoked", "the token died while the call ran", 401), None, self.send)
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
        loop = asyncio.get_running_loop()
        found = _Open(call, send, loop.time())
        self._open.add(found)
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(RECHECK_INTERVAL, self._look)
        return found

    def leave(self, found: _Open) -> None:
        self._open.discard(found)

    def _look(self) -> None:
        if self._loop is None or not self._open:
            self._loop = None
            return
        now = self._loop.time()
        for found in list(self._open):
            if found.next_look > now:
                continue
            found.next_look = now + RECHECK_INTERVAL
            try:
                self._guard.gate.recheck(found.call.proof)
            except GuardError as error:
                _log(error)
                found.has_ended = True
                if found.task is not None:
                    found.task.cancel()
        self._loop.call_later(RECHECK_INTERVAL / 5, self._look)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was decided on, whole, and after it only what the server says."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_preflight(scope: Scope) -> bool:
    """A CORS preflight carries no token by design, and reaches no tool."""
    if scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


def _address(host: str) -> str | None:
    """The peer's address; None where the server listens on a Unix socket."""
    return host if "." in host or ":" in host else None


def _log(error: GuardError) -> None:
    if isinstance(error, Denied):
        # Names the check, the value that was refused, and the key to look at; never a token.
        logger.info("refused: %s (see `%s`)", error, error.config_key or "docs/codes.md")
    else:
        logger.error("not decided: %s", error)


async def _answer(error: GuardError, body: bytes | None, send: Send, *, allow: bytes = b"GET, POST, DELETE") -> None:
    status, headers, content = http_answer(error, body, allow=allow)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@cache
def _identity() -> ModuleType | None:
    """Names users as the MCP SDK does, where it is installed."""
    try:
        from mcp_fastguard.transport import identity  # noqa: PLC0415 - needs the `mcp` package
    except ImportError:
        return None
    return identity
