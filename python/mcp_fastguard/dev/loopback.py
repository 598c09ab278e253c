"""What keeps the development servers on this machine."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LoopbackOnly", "is_loopback", "require_loopback"]


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine's loopback: ``localhost``, or an address of 127.0.0.0/8 or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> str:
    """Gives the host back, if it is this machine's loopback.

    Raises:
        ValueError: it is not. Keys and secrets of this package live in memory and are printed; they are for nobody else.
    """
    if not is_loopback(host):
        message = f"the development server runs on loopback only, not on `{host}`"
        raise ValueError(message)
    return host


class LoopbackOnly:
    """Refuses requests from other machines, however the application behind it was started.

    A server that was told to listen everywhere would show the peer's address. A web page that made its own name point to
    127.0.0.1 (DNS rebinding) would come from loopback, but shows its name in ``Host``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on if its peer and each of its hosts are loopback."""
        if scope["type"] == "lifespan" or _is_local(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await JSONResponse({"error": "loopback_only"}, status_code=403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def _is_local(scope: Scope) -> bool:
    peer, _ = scope.get("client") or (None, None)
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return is_loopback(peer) and len(hosts) == 1 and is_loopback(_hostname(hosts[0]))


def _hostname(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None
