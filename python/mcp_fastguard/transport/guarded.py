"""The guarded path: what is decided, what the app sees of it, and what the client sees of the app (decision 8)."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import (
    CERTIFICATE_HEADERS,
    MAX_BODY_BYTES,
    MAX_BODY_BYTES_BEFORE_TOKEN,
    ToolRequest,
    whole_body,
)
from mcp_fastguard.call import Call
from mcp_fastguard.errors import GuardError, GuardFault, RequestDenied
from mcp_fastguard.transport.bodies import drain, replay, respond
from mcp_fastguard.transport.challenge import answer, log_refusal
from mcp_fastguard.transport.origins import Origins
from mcp_fastguard.transport.scope import is_preflight
from mcp_fastguard.transport.watch import OpenResponse, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from mcp_fastguard._fastguard import AllowedCall, Gate, ObservedCall, VerifiedToken
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.transport.scope import ASGIApp, Headers, Message, Receive, Scope, Send

__all__ = ["CALLS", "GuardedPath", "proved", "proved_call"]

#: Where a request's scope holds its calls, one per guard.
CALLS: Final = "mcp_fastguard.calls"

#: What the ASGI layer has proved in this context.
proved: ContextVar[OpenResponse | None] = ContextVar("fastguard_proved", default=None)


def proved_call(guard: Guard, scope: Mapping[str, Any] | None) -> Call | None:
    """The call that this guard's ASGI layer left in a request's scope."""
    calls: dict[Guard, Call] | None = None if scope is None else scope.get(CALLS)
    return None if calls is None else calls.get(guard)


class GuardedPath:
    """Decides what comes to the path of an MCP server, and hands on what passes.

    It has no attributes of the app's, so that every look at its own is a cheap one.

    Args:
        app: what is guarded.
        guard: whose decisions hold.
        origins: those whose pages may call; None where the layer says nothing of origins.
    """

    __slots__ = ("_app", "_guard", "_origins", "_watch", "gate")

    def __init__(self, app: ASGIApp, guard: Guard, origins: Origins | None) -> None:
        self._app = app
        self._guard = guard
        self._origins = origins
        self._watch = Watch(guard)
        #: The guard's.
        self.gate: Gate = guard.gate

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to the path."""
        if self._origins is not None or scope["method"] == "OPTIONS":
            told = await self._for_browsers(scope, receive, send)
            if told is None:
                return
            send = told
        body: bytes | None = None
        call: Call | None = None
        try:
            message = await receive()
            body = whole_body(message)
            if body is None:
                body = await self._read(message, path, scope, receive)
            call = Call(self._guard, ToolRequest.of_scope(path, scope, body), observes=True)
            if not call.authorize_at_once():
                await call.authorize()
            if call.needs_layer:
                self._require_layer(call.proof)
        except _ClientGoneError:
            return
        except GuardError as error:
            await self._refuse(error, call, body, scope, send)
            return
        found = self._enter(call, scope, send)
        try:
            await self._app(scope, replay(body, receive), found.sending)
        except asyncio.CancelledError:
            if not await found.ended_stream():
                raise
        finally:
            self._leave(found)

    async def _refuse(self, error: GuardError, call: Call | None, body: bytes | None, scope: Scope, send: Send) -> None:
        if call is not None:
            call.fail(error)
            call.close()
        log_refusal(error)
        await answer(error, body, scope, send, by_result=self.gate.tells_limits_by_result)

    def _enter(self, call: Call, scope: Scope, send: Send) -> OpenResponse:
        """What the app, and the layers in it, see of a call that passes."""
        proof = call.proof
        verified = proof.token
        scope.setdefault(CALLS, {})[self._guard] = call
        if call.request.has_proofs:
            scope["headers"] = self._without_proofs(scope, call.request, verified)
            if proof.dpop_nonce is not None:
                send = _with_nonce(send, proof.dpop_nonce)
        found = self._watch.enter(call, scope["headers"], send)
        found.tokens.append(proved.set(found))
        identity = _identity()
        if identity is not None and verified is not None:
            found.tokens.append(identity.as_user(scope, verified))
        return found

    def _leave(self, found: OpenResponse) -> None:
        self._watch.leave(found)
        for token in reversed(found.tokens):
            token.var.reset(token)
        if not found.call.is_taken:
            found.call.close()

    async def _for_browsers(self, scope: Scope, receive: Receive, send: Send) -> Send | None:
        """What pages of browsers may do is settled before anything else, since a preflight carries no token by design.

        Gives by what the answer is sent; None where it was.
        """
        if self._origins is None:
            # Without declared origins a preflight is the app's to answer. It is given no body, so that it carries no message.
            if not is_preflight(scope):
                return send
            await self._app(scope, replay(b"", receive), send)
            return None
        try:
            if is_preflight(scope):
                await respond(scope, send, 204, self._origins.preflight(scope["headers"]))
                return None
            added = self._origins.headers(scope["headers"])
        except RequestDenied as denied:
            log_refusal(denied)
            await drain(receive)
            await answer(denied, None, scope, send)
            return None
        return Origins.adding(added, send) if added else send

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
                await self._guard.authorize_head(ToolRequest.of_scope(path, scope, None))
                is_checked = True
            if len(body) > MAX_BODY_BYTES:
                with self._guard.listeners.telling():
                    raise RequestDenied("body_too_large", "the body is too large", 413)
            if not message.get("more_body", False):
                return bytes(body)
            message = await receive()

    def _without_proofs(self, scope: Scope, request: ToolRequest, verified: VerifiedToken | None) -> Headers:
        """The headers as the app may see them."""
        headers: Headers = scope["headers"]
        if request.speaks_of_certificates and not self.gate.passes_certificates_of(request.peer):
            # Of a peer that is no declared proxy; an app could believe them (RFC 9440).
            headers = [(name, value) for name, value in headers if name not in CERTIFICATE_HEADERS]
        if request.is_under_dpop and verified is not None:
            # A refusal of this room that is only observed lets the request pass as it came, never as a bearer's.
            headers = _as_bearer(headers)
        return headers

    def _require_layer(self, proof: AllowedCall | ObservedCall) -> None:
        if "http" not in self._guard.attached:
            with self._guard.listeners.telling(proof=proof):
                message = f"`{proof.method}` needs the message layer: add guard.mcp_middleware()"
                raise GuardFault("middleware_missing", message)


class _ClientGoneError(Exception):
    """The client left before its body was read."""


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


@cache
def _identity() -> ModuleType | None:
    """Names users as the MCP SDK does, where it is installed."""
    try:
        from mcp_fastguard.transport import identity  # noqa: PLC0415 - needs the `mcp` package
    except ImportError:
        return None
    return identity
