"""What a server offers: its tools, prompts and resources, as its own object lists them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

__all__ = ["Inventory", "Offer", "inventory_of", "server_of"]

#: Layers of middleware that an endpoint is looked for behind.
_DEPTH: Final = 8


class Offer(NamedTuple):
    """One tool, prompt or resource.

    ``is_read_only`` and ``is_destructive`` are the server's own hints (MCP 2026-07-28, tool annotations), or None.
    """

    name: str
    description: str = ""
    is_read_only: bool | None = None
    is_destructive: bool | None = None


class Inventory(NamedTuple):
    """All that rules can name."""

    tools: list[Offer]
    prompts: list[Offer]
    resources: list[Offer]


async def inventory_of(server: Any) -> Inventory:
    """What a server offers."""
    import inspect  # noqa: PLC0415 - slow to import, and used once

    async def listed(method: str) -> list[Any]:
        ask = getattr(server, method, None)
        if ask is None:
            return []
        # FastMCP would run its middleware, and so the guard, which refuses what nobody has asked.
        has_middleware = "run_middleware" in inspect.signature(ask).parameters
        return list(await (ask(run_middleware=False) if has_middleware else ask()))

    templates = await listed("list_resource_templates")
    return Inventory(
        tools=sorted(map(_tool, await listed("list_tools"))),
        prompts=sorted(Offer(str(prompt.name), _first_line(prompt)) for prompt in await listed("list_prompts")),
        resources=sorted(
            [Offer(str(resource.uri), _first_line(resource)) for resource in await listed("list_resources")]
            + [Offer(_glob_of(template), _first_line(template)) for template in templates]
        ),
    )


def _tool(tool: Any) -> Offer:
    hints = getattr(tool, "annotations", None)
    # By the wire's names, which are the same in every version of the SDKs.
    found = {} if hints is None else hints.model_dump(by_alias=True, exclude_none=True)
    return Offer(str(tool.name), _first_line(tool), found.get("readOnlyHint"), found.get("destructiveHint"))


def _first_line(offer: Any) -> str:
    lines = (getattr(offer, "description", None) or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _glob_of(template: Any) -> str:
    """``db://{table}/rows`` as a rule names it: ``db://*/rows``."""
    uri = str(getattr(template, "uri_template", None) or getattr(template, "uriTemplate", ""))
    parts = []
    for index, part in enumerate(uri.split("{")):
        parts.append(part if index == 0 else "*" + part.partition("}")[2])
    return "".join(parts)


def server_of(app: Any) -> Any | None:
    """The server behind an ASGI app that an SDK has made, or None where it cannot be told.

    FastMCP names it in the app's state. The SDK's app has a route to its session manager, whose handlers are the server's.
    """
    found = getattr(getattr(app, "state", None), "fastmcp_server", None)
    if found is not None:
        return found
    for route in getattr(app, "routes", None) or ():
        endpoint = getattr(route, "endpoint", None)
        for _ in range(_DEPTH):
            manager = getattr(endpoint, "session_manager", None)
            if manager is not None:
                return _owner(getattr(manager, "app", None))
            endpoint = getattr(endpoint, "app", None)
    return None


def _owner(lowlevel: Any) -> Any | None:
    find = getattr(lowlevel, "get_request_handler", None)
    entry = find("tools/list") if find is not None else None
    server = getattr(getattr(entry, "handler", entry), "__self__", None)
    return server if hasattr(server, "list_tools") else None
