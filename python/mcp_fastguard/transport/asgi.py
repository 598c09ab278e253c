"""The outermost ASGI layer: the only place that can answer 401, 403 and 429 with their headers (decision 8)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import RequestDenied
from mcp_fastguard.transport.admin import AdminEndpoint
from mcp_fastguard.transport.bodies import drain
from mcp_fastguard.transport.challenge import answer
from mcp_fastguard.transport.guarded import GuardedPath
from mcp_fastguard.transport.metadata import Metadata, metadata_paths
from mcp_fastguard.transport.offers import inventory_of, server_of
from mcp_fastguard.transport.origins import Origins
from mcp_fastguard.transport.scope import public_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mcp_fastguard.guard import Guard
    from mcp_fastguard.transport.scope import ASGIApp, Message, Receive, Scope, Send

__all__ = ["GuardASGI"]

logger = logging.getLogger("mcp_fastguard")

#: A server's tools are awaited for so many seconds, to compare the rules with them.
COMPARE_WAIT: Final = 10.0


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
        origins = None if cors_origins is None else Origins(guard.config.resource_url, cors_origins)
        self._guarded = GuardedPath(app, guard, origins)
        self._metadata_paths = metadata_paths(guard)
        self._metadata = Metadata(guard)
        self._admin = AdminEndpoint(guard)
        self._comparing: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the server."""
        kind = scope["type"]
        if kind == "http":
            # One look: of a class that hands attributes through each is a slow one.
            guarded = self._guarded
            path = public_path(scope)
            if path == guarded.gate.path:
                await guarded(path, scope, receive, send)
            else:
                await self._elsewhere(path, scope, receive, send)
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
            await answer(denied, None, scope, send)

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
