"""What the scope of an ASGI connection says of a request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import Any

from mcp_fastguard._fastguard import ToolRequest

__all__ = [
    "ASGIApp",
    "Headers",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "is_preflight",
    "peer_of",
    "public_path",
    "request_of",
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


def request_of(path: str, scope: Scope, body: bytes | None) -> ToolRequest:
    """The core's request of what came under a path; without a body that of its head alone."""
    return ToolRequest.http(
        method=scope["method"],
        path=path,
        headers=scope["headers"],
        body=body,
        peer=peer_of(scope),
        query=scope.get("query_string"),
        certificate=_certificate(scope) if scope.get("extensions") else None,
    )


def is_preflight(scope: Scope) -> bool:
    """A CORS preflight carries no token by design, and reaches no tool."""
    if scope["method"] != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


def peer_of(scope: Scope) -> str | None:
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
