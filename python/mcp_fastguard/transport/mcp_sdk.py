"""The message layer for the official SDK (``mcp`` 2.x): sees the exact parameters that a tool gets, and the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcp.shared.exceptions import MCPError

from mcp_fastguard.errors import GuardError
from mcp_fastguard.transport.asgi import proved
from mcp_fastguard.transport.challenge import rpc_error
from mcp_fastguard.transport.identity import access_token
from mcp_fastguard.transport.messages import MessageLayer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.auth.provider import AccessToken
    from mcp.server.context import ServerRequestContext

    from mcp_fastguard.guard import Call, Guard

__all__ = ["GuardMiddleware", "ProvedTokenVerifier"]

#: Method of a list -> (member of the result, kind, member of an element that rules name it by).
LISTS: Final = {
    "tools/list": ("tools", "tool", "name"),
    "prompts/list": ("prompts", "prompt", "name"),
    "resources/list": ("resources", "resource", "uri"),
    "resources/templates/list": ("resourceTemplates", "resource", "uriTemplate"),
}


class GuardMiddleware:
    """For ``MCPServer(middleware=[...])``: the first of the list, so that nothing runs before the decision."""

    def __init__(self, guard: Guard, *, transport: str = "http") -> None:
        self._layer = MessageLayer(guard, transport)
        self._guard = guard

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """One message, request or notification."""
        scope = ctx.request.scope if ctx.request is not None else None
        try:
            call = await self._layer.begin(ctx.method, ctx.params, ctx.request_id, scope)
        except GuardError as error:
            raise MCPError(*rpc_error(error)) from error
        if call is None:
            return await call_next(ctx)

        async def handle() -> Any:
            return await call_next(ctx)

        try:
            result = await self._layer.walk(call, handle)
        except GuardError as error:
            raise MCPError(*rpc_error(error)) from error
        return self._filtered(ctx, call, result)

    def _filtered(self, ctx: ServerRequestContext[Any, Any], call: Call, result: Any) -> Any:
        """Leaves out what the caller may not use: the agent never learns that it exists."""
        found = LISTS.get(ctx.method)
        if found is None or not isinstance(result, dict):
            return result
        member, kind, name = found
        may_see, proof = self._guard.may_see, call.proof
        shown = [element for element in result.get(member, ()) if may_see(kind, str(element.get(name, "")), proof)]
        filtered = {**result, member: shown}
        if "cacheScope" in result or ctx.protocol_version >= "2026-07-28":
            # A list made for one caller must not be shown to another (MCP 2026-07-28, caching).
            filtered["cacheScope"] = "private"
        return filtered


class ProvedTokenVerifier:
    """For the SDK's own auth: accepts the token that this request's ASGI layer has proved, and no other."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def verify_token(self, token: str) -> AccessToken | None:
        """The proved token, or None: a token that came round the guard is refused."""
        found = proved.get()
        if found is None or found.call.is_closed or found.call.guard is not self._guard:
            return None
        presented = f"bearer {token}".encode()
        if not any(name == b"authorization" and _lower_scheme(value) == presented for name, value in found.headers):
            return None
        proved_token = found.call.proof.token
        return None if proved_token is None else access_token(proved_token, token)


def _lower_scheme(value: bytes) -> bytes:
    scheme, _, token = value.partition(b" ")
    return scheme.lower() + b" " + token
