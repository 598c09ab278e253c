"""Protected resource metadata (RFC 9728): how a client finds out where to get a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_fastguard.guard import Guard

__all__ = ["metadata", "metadata_paths", "metadata_routes"]

WELL_KNOWN = "/.well-known/oauth-protected-resource"


def metadata(guard: Guard) -> dict[str, Any]:
    """The document (RFC 9728 section 2)."""
    config = json.loads(guard.gate.config_json())
    resource = config["resource"]
    tables = (config.get(name) or {} for name in ("tools", "prompts", "resources", "methods"))
    rules = [rule for table in tables for rule in table.values()]
    scopes = {scope for rule in rules for key in ("scopes", "any_scopes") for scope in rule.get(key) or ()}
    document: dict[str, Any] = {
        "resource": resource["url"],
        "authorization_servers": resource.get("authorization_servers")
        or [issuer["issuer"] for issuer in config["issuers"]],
        "scopes_supported": sorted(scopes - {"offline_access"}),
        "bearer_methods_supported": ["header"],
    }
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
    """Starlette routes that serve it."""
    from starlette.responses import JSONResponse  # noqa: PLC0415 - needed only where an app is built of Starlette
    from starlette.routing import Route  # noqa: PLC0415

    async def serve(_: object) -> JSONResponse:
        return JSONResponse(metadata(guard), headers={"access-control-allow-origin": "*"})

    return [Route(path, serve, methods=["GET"]) for path in sorted(metadata_paths(guard))]
