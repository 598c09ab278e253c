"""Protected resource metadata (RFC 9728): how a client finds out where to get a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mcp_fastguard.config import scopes_of_rules
from mcp_fastguard.errors import RequestDenied
from mcp_fastguard.transport.bodies import drain, respond
from mcp_fastguard.transport.challenge import http_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from mcp_fastguard.guard import Guard

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Metadata", "metadata", "metadata_paths", "metadata_routes"]

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def metadata(guard: Guard) -> dict[str, Any]:
    """The document (RFC 9728 section 2)."""
    config = json.loads(guard.gate.config_json())
    resource = config["resource"]
    document: dict[str, Any] = {
        "resource": resource["url"],
        "authorization_servers": resource.get("authorization_servers")
        or [issuer["issuer"] for issuer in config["issuers"]],
        "scopes_supported": sorted(scopes_of_rules(config) - {"offline_access"}),
        "bearer_methods_supported": ["header"],
    }
    algorithms = guard.gate.dpop_algorithms
    if algorithms:
        document["dpop_signing_alg_values_supported"] = algorithms
        document["dpop_bound_access_tokens_required"] = config["dpop"]["mode"] == "required"
    if config["certificates"]["source"] != "off":
        document["tls_client_certificate_bound_access_tokens"] = True
    if resource.get("name"):
        document["resource_name"] = resource["name"]
    if resource.get("documentation"):
        document["resource_documentation"] = resource["documentation"]
    return document


def metadata_paths(guard: Guard) -> frozenset[str]:
    """Where it stands: with the resource's path inserted, and at the root, where older clients look."""
    path = guard.gate.path
    return frozenset({WELL_KNOWN, WELL_KNOWN + ("" if path == "/" else path)})


def metadata_routes(guard: Guard) -> list[Any]:
    """Starlette routes that serve it. Where there are several guards, the path at the root is the first one's."""
    from starlette.routing import Route  # noqa: PLC0415 - needed only where an app is built of Starlette

    # The path with the resource's inserted comes first: it belongs to this guard alone.
    return [Route(path, Metadata(guard)) for path in sorted(metadata_paths(guard), key=len, reverse=True)]


class Metadata:
    """An ASGI app of the document alone, for pages of any origin: it holds nothing that a client must not know."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        method = scope["method"]
        headers = [
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-methods", b"GET, HEAD"),
            (b"access-control-allow-headers", b"*"),
        ]
        if method == "OPTIONS":
            await respond(scope, send, 204, headers)
            return
        if method in {"GET", "HEAD"}:
            status, content = 200, json.dumps(metadata(self._guard)).encode()
            headers += [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"cache-control", b"max-age=300"),
            ]
        else:
            await drain(receive)
            denied = RequestDenied("http_method_refused", "metadata is only read", 405)
            status, refused, content = http_answer(denied, None, allow=b"GET, HEAD, OPTIONS")
            headers += refused
        await respond(scope, send, status, headers, content)
