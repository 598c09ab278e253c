"""The message layer for ``mcp`` 1.x, which has no middleware: it stands in the table of the server's handlers.

The handshake and notifications never reach that table. Over HTTP the ASGI layer has decided on them; on standard input and output
they are not decided: they run no tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_fastguard.errors import GuardError
from mcp_fastguard.transport.mcp_sdk import LISTS
from mcp_fastguard.transport.messages import MessageLayer
from mcp_fastguard.transport.sdk_error import sdk_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_fastguard.call import Call
    from mcp_fastguard.guard import Guard

    Handler = Callable[[Any], Awaitable[Any]]

__all__ = ["guard_handlers"]


def guard_handlers(guard: Guard, server: Any, *, transport: str) -> None:
    """Puts the message layer into a low-level server of ``mcp`` 1.x. Handlers that are registered later are guarded too.

    Raises:
        ValueError: it has a message layer already, or the transport is not known.
    """
    from mcp.server.lowlevel import server as module  # noqa: PLC0415 - `mcp` 1.x

    handlers: dict[type, Handler] = server.request_handlers
    if type(handlers) is not dict:
        raise ValueError("the server has a message layer already")
    server.request_handlers = GuardedHandlers(handlers, guard, vars(module)["request_ctx"], transport=transport)


class GuardedHandlers(dict[type, "Handler"]):
    """A server's handlers by type of request; who gets one to run a client's request gets it guarded.

    ``handlers[kind]`` gives the handler itself: so the SDK looks up its own list of tools, which no client has asked for.
    """

    def __init__(self, handlers: dict[type, Handler], guard: Guard, context: Any, *, transport: str) -> None:
        super().__init__(handlers)
        self._guard = guard
        self._layer = MessageLayer(guard, transport)
        self._context = context

    def get(self, kind: Any, default: Any = None) -> Any:
        """The guarded handler: what the server runs for a request of a client."""
        handler = super().get(kind)
        if handler is None:
            return default

        async def guarded(request: Any) -> Any:
            try:
                return await self._handle(handler, request)
            except GuardError as error:
                request_id = getattr(self._context.get(None), "request_id", None)
                told = self._layer.told(error, request.method, request_id)
                if told is None:
                    raise sdk_error(error) from error
                return _result(told)

        return guarded

    async def _handle(self, handler: Handler, request: Any) -> Any:
        context = self._context.get(None)
        http = getattr(context, "request", None)
        params = getattr(request, "params", None)
        call = await self._layer.begin(
            request.method,
            params.model_dump(mode="json", by_alias=True, exclude_none=True) if params is not None else None,
            getattr(context, "request_id", None),
            http.scope if http is not None else None,
        )
        if call is None:
            return await handler(request)
        result = await call.run_to_end(lambda: handler(request))
        return self._filtered(request.method, call, result)

    def _filtered(self, method: str, call: Call, result: Any) -> Any:
        """Leaves out what the caller may not use: the agent never learns that it exists."""
        found = LISTS.get(method)
        if found is None:
            return result
        member, kind, name = found
        may_see, proof = self._guard.may_see, call.proof
        root = result.root
        self._layer.warn_of_gaps(kind, (str(getattr(element, name)) for element in getattr(root, member)))
        shown = [element for element in getattr(root, member) if may_see(kind, str(getattr(element, name)), proof)]
        return type(result)(root.model_copy(update={member: shown}))


def _result(told: dict[str, Any]) -> Any:
    """A result as handlers of 1.x give it."""
    from mcp import types  # noqa: PLC0415 - `mcp` 1.x

    known = vars(types)
    return known["ServerResult"](known["CallToolResult"].model_validate(told))
