"""The message layer for FastMCP 3.4 and 4."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from fastmcp.server.auth import AccessToken, AuthProvider
from fastmcp.server.middleware import Middleware
from fastmcp.tools.base import ToolResult
from mcp.types import TextContent
from starlette.middleware import Middleware as ASGIMiddleware

from mcp_fastguard.errors import GuardError
from mcp_fastguard.transport.asgi import GuardASGI
from mcp_fastguard.transport.guarded import CALLS, proved, proved_call
from mcp_fastguard.transport.identity import hold_tokens_as
from mcp_fastguard.transport.mcp_sdk import ProvedTokenVerifier
from mcp_fastguard.transport.messages import MessageLayer
from mcp_fastguard.transport.sdk_error import sdk_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastmcp.server.middleware import CallNext, MiddlewareContext

    from mcp_fastguard.call import Call
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.transport.scope import ASGIApp, Receive, Scope, Send

__all__ = ["GuardAuthProvider", "GuardFastMCPMiddleware"]

hold_tokens_as(AccessToken)

#: Method of a list -> (kind, attribute of an element that rules name it by).
LISTS: Final = {
    "tools/list": ("tool", "name"),
    "prompts/list": ("prompt", "name"),
    "resources/list": ("resource", "uri"),
    "resources/templates/list": ("resource", "uri_template"),
}

#: Members of a message that decide, by FastMCP's name -> the wire's.
_DECIDING: Final = {
    "name": "name",
    "arguments": "arguments",
    "uri": "uri",
    "ref": "ref",
    "argument": "argument",
    "notifications": "notifications",
    "task_id": "taskId",
}


class GuardFastMCPMiddleware(Middleware):
    """For ``FastMCP(middleware=[...])``: the first of the list, outside caches. Nested calls and those of mounted servers
    come here again, and are decided under their own names.
    """

    def __init__(self, guard: Guard, *, transport: str = "http") -> None:
        self._layer = MessageLayer(guard, transport)
        self._guard = guard

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """Runs once a message, whatever its phase."""
        method = context.method or ""
        request_context = getattr(context.fastmcp_context, "request_context", None)
        request = getattr(request_context, "request", None)
        request_id = getattr(request_context, "request_id", None) if context.type == "request" else None
        scope = request.scope if request is not None else _handshake_scope(method)
        try:
            params = {**_params(context.message), **_brought(context.fastmcp_context)}
            call = await self._layer.begin(method, params, request_id, scope)
            if call is None:
                return await call_next(context)
            result = await call.run_to_end(partial(call_next, context))
        except GuardError as error:
            told = self._layer.told(error, method, request_id)
            if told is None:
                raise sdk_error(error) from error
            return _result(told)
        return self._filtered(method, call, result)

    def _filtered(self, method: str, call: Call, result: Any) -> Any:
        found = LISTS.get(method)
        if found is None:
            return result
        kind, name = found
        may_see, proof = self._guard.may_see, call.proof
        self._layer.warn_of_gaps(kind, (str(getattr(element, name)) for element in result))
        return [element for element in result if may_see(kind, str(getattr(element, name)), proof)]


def _result(told: dict[str, Any]) -> ToolResult:
    """A result as FastMCP's middleware has it."""
    content = [TextContent(type="text", text=block["text"]) for block in told["content"]]
    return ToolResult(content=content, meta=told["_meta"], is_error=True)


def _handshake_scope(method: str) -> dict[str, Any] | None:
    """FastMCP 3 hands on the handshake without its request. It runs in the task that this request has started for its session, so
    the proof stands in the context; no other message is believed by it.
    """
    found = proved.get() if method == "initialize" else None
    return None if found is None else {CALLS: {found.call.guard: found.call}}


def _params(message: Any) -> Mapping[str, Any]:
    """The members of a parsed message that decide, as the wire names them."""
    kind: type = type(message)
    attributes = _deciding(kind)
    if extra := getattr(message, "model_extra", None):
        attributes += tuple(attribute for attribute in _DECIDING if attribute in extra)
    params: dict[str, Any] = {}
    for attribute in attributes:
        value = getattr(message, attribute, None)
        if value is None:
            continue
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
        params[_DECIDING[attribute]] = value if isinstance(value, dict | list | str) else str(value)
    return params


@cache
def _deciding(kind: type) -> tuple[str, ...]:
    """The attributes that decide, of those that messages of a class have: to ask pydantic's for another takes it 10 µs."""
    fields = getattr(kind, "model_fields", None)
    return tuple(_DECIDING) if fields is None else tuple(attribute for attribute in _DECIDING if attribute in fields)


def _brought(context: Any) -> dict[str, Any]:
    """What a client brings that was asked for something (MCP 2026-07-28, multi round-trip requests). FastMCP 3 has no such."""
    found = {"requestState": "request_state", "inputResponses": "input_responses"}
    values = ((name, getattr(context, attribute, None)) for name, attribute in found.items())
    # That something was answered is all that is looked at.
    return {name: value if name == "requestState" else {} for name, value in values if value is not None}


class GuardAuthProvider(AuthProvider):
    """For ``FastMCP(auth=...)``: the identity is the one that the ASGI layer has proved.

    The layer comes with it, so that ``mcp.run(transport="http")`` is guarded as it is. An app that stands behind ``guard.asgi``
    besides is decided there, once.
    """

    def __init__(self, guard: Guard, inner: AuthProvider | None = None) -> None:
        super().__init__(
            base_url=guard.config.resource_url if inner is None else inner.base_url,
            required_scopes=None if inner is None else inner.required_scopes,
            resource_base_url=None if inner is None else inner.resource_base_url,
        )
        self._guard = guard
        self._inner = inner
        self._verifier = ProvedTokenVerifier(guard)
        self._routes: list[Any] = []

    async def verify_token(self, token: str) -> Any:
        """The proved token, or None."""
        found = await self._verifier.verify_token(token)
        return None if found is None else AccessToken(**{**found.model_dump(), "original_client_id": found.client_id})

    def get_middleware(self) -> list[Any]:
        """The ASGI layer, outermost, then FastMCP's own."""
        layer = ASGIMiddleware(_GuardLayer, guard=self._guard, login=self)
        inner = [] if self._inner is None else self._inner.get_middleware()[len(AuthProvider.get_middleware(self)) :]
        return [layer, *super().get_middleware(), *inner]

    def get_routes(self, mcp_path: str | None = None) -> list[Any]:
        """The routes of the login that stands before the guard, which are public by their nature."""
        self.set_mcp_path(mcp_path)
        self._routes = [] if self._inner is None else list(self._inner.get_routes(mcp_path))
        return self._routes

    def get_well_known_routes(self, mcp_path: str | None = None) -> list[Any]:
        """Those of the login."""
        return [] if self._inner is None else list(self._inner.get_well_known_routes(mcp_path))

    @property
    def scopes_supported(self) -> list[str]:
        """Those of the login."""
        return [] if self._inner is None else list(self._inner.scopes_supported)

    def get_challenge_scopes(self, required_scopes: list[str] | None = None) -> list[str]:
        """Those of the login."""
        if self._inner is None:
            return list(super().get_challenge_scopes(required_scopes))
        return list(self._inner.get_challenge_scopes(required_scopes))

    def is_of_login(self, path: str) -> bool:
        """Whether a path is one of the login's own routes, and not the guarded one."""
        if path == self._guard.gate.path:
            return False
        regexes = (getattr(route, "path_regex", None) for route in self._routes)
        return any(regex is not None and regex.fullmatch(path) is not None for regex in regexes)


class _GuardLayer(GuardASGI):
    """The ASGI layer as FastMCP's auth brings it along."""

    def __init__(self, app: ASGIApp, guard: Guard, login: GuardAuthProvider) -> None:
        super().__init__(app, guard)
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        if is_http and (proved_call(self.guard, scope) is not None or self._login.is_of_login(scope["path"])):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
