"""The message layer for the official SDK: sees the exact parameters that a tool gets, and the results."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import GuardError
from mcp_fastguard.transport.guarded import proved
from mcp_fastguard.transport.identity import access_token
from mcp_fastguard.transport.messages import MessageLayer
from mcp_fastguard.transport.sdk_error import sdk_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.auth.provider import AccessToken
    from mcp.server.context import ServerRequestContext

    from mcp_fastguard.call import Call
    from mcp_fastguard.guard import Guard

__all__ = ["GuardMiddleware", "ProvedTokenVerifier", "guard_server", "without_guard"]

#: Method of a list -> (member of the result, kind, member of an element that rules name it by).
LISTS: Final = {
    "tools/list": ("tools", "tool", "name"),
    "prompts/list": ("prompts", "prompt", "name"),
    "resources/list": ("resources", "resource", "uri"),
    "resources/templates/list": ("resourceTemplates", "resource", "uriTemplate"),
}


def guard_server(guard: Guard, server: Any, *, transport: str) -> None:
    """Puts the message layer into a server of either version of the SDK, high-level or low-level.

    Raises:
        TypeError: it is no server of the SDK.
        ValueError: it has a message layer already, or the transport is not known.
    """
    lowlevel = getattr(server, "_lowlevel_server", None) or getattr(server, "_mcp_server", None) or server
    if isinstance(getattr(lowlevel, "middleware", None), list):
        if any(isinstance(found, GuardMiddleware) for found in lowlevel.middleware):
            raise ValueError("the server has a message layer already")
        # Before all but the SDK's own: telemetry, and the boundary that unseals what the arguments come from.
        place = next((place for place, found in enumerate(lowlevel.middleware) if not _is_of_sdk(found)), None)
        lowlevel.middleware.insert(
            len(lowlevel.middleware) if place is None else place, GuardMiddleware(guard, transport=transport)
        )
    elif isinstance(getattr(lowlevel, "request_handlers", None), dict):
        from mcp_fastguard.transport.mcp_handlers import guard_handlers  # noqa: PLC0415 - `mcp` 1.x

        guard_handlers(guard, lowlevel, transport=transport)
    else:
        raise TypeError(f"`{type(server).__name__}` is no server of the MCP SDK")


def without_guard(server: Any) -> None:
    """Takes the message layers of guards out of a server that takes middleware: for `fastguard dev`, which puts its own there."""
    layers = getattr(getattr(server, "_lowlevel_server", None) or server, "middleware", None)
    if isinstance(layers, list):
        layers[:] = [layer for layer in layers if not isinstance(layer, GuardMiddleware)]


def _is_of_sdk(middleware: object) -> bool:
    module = getattr(middleware, "__module__", None) or type(middleware).__module__
    return module.partition(".")[0] == "mcp"


class GuardMiddleware:
    """For ``MCPServer(middleware=[...])``: the first of the list, so that nothing runs before the decision.

    Raises:
        RuntimeError: ``mcp`` 1.x is installed, which has no middleware.
    """

    def __init__(self, guard: Guard, *, transport: str = "http") -> None:
        if find_spec("mcp.server.mcpserver") is None:
            raise RuntimeError("mcp 1.x has no middleware: put the layer in by guard.mcp_server(server)")
        self._layer = MessageLayer(guard, transport)
        self._guard = guard

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """One message, request or notification."""
        layer, method, request = self._layer, ctx.method, ctx.request
        scope = None if request is None else request.scope
        try:
            call = layer.taken(method, ctx.params, scope)
            if call is None:
                call = await layer.begin(method, ctx.params, ctx.request_id, scope)
                if call is None:
                    return await call_next(ctx)
            elif not call.settle_at_once():
                await layer.settle(call)
            result = await call.run_to_end(partial(call_next, ctx))
        except GuardError as error:
            told = layer.told(error, method, ctx.request_id)
            if told is None:
                raise sdk_error(error) from error
            return told
        return result if method not in LISTS else self._filtered(ctx, call, result)

    def _filtered(self, ctx: ServerRequestContext[Any, Any], call: Call, result: Any) -> Any:
        """Leaves out what the caller may not use: the agent never learns that it exists."""
        if not isinstance(result, dict):
            return result
        member, kind, name = LISTS[ctx.method]
        may_see, proof = self._guard.may_see, call.proof
        self._layer.warn_of_gaps(kind, (str(element.get(name, "")) for element in result.get(member, ())))
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
