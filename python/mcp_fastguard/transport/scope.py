"""What the scope of an ASGI connection says of a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

__all__ = [
    "ASGIApp",
    "Headers",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "is_preflight",
    "public_path",
    "say_rewritten",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("mcp_fastguard")


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


def is_preflight(scope: Scope) -> bool:
    """A CORS preflight carries no token by design, and reaches no tool."""
    if scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


@cache
def say_rewritten() -> None:
    """Says once that peers' addresses count as unknown."""
    logger.warning(
        "the server takes the peer's address from X-Forwarded-For, so it counts as unknown: "
        "turn that off (uvicorn --no-proxy-headers) and declare the proxies in [proxies]"
    )
