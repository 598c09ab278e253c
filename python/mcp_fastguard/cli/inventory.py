"""What a server offers: its tools, prompts and resources, as its own object lists them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Inventory", "Offer", "load_inventory", "load_server"]


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


def load_server(place: str) -> Any:
    """The object at ``module:attribute``, looked up from the present folder as uvicorn does.

    Raises:
        ValueError: there is none, or its module cannot be imported.
    """
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        message = f"`{place}` is not module:attribute, as in server:mcp"
        raise ValueError(message)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        message = f"`{module_name}` cannot be imported: {type(error).__name__}: {error}"
        raise ValueError(message) from error
    for name in attribute.split("."):
        found = getattr(found, name, None)
        if found is None:
            message = f"`{module_name}` has no `{attribute}`"
            raise ValueError(message)
    return found


def load_inventory(place: str) -> Inventory:
    """What the server at ``module:attribute`` offers. It is asked in this process; no message layer runs.

    Raises:
        ValueError: it is no ``MCPServer`` or ``FastMCP``, or cannot be imported.
    """
    server = load_server(place)
    if not all(hasattr(server, name) for name in ("list_tools", "list_prompts", "list_resources")):
        message = f"`{place}` is no MCPServer or FastMCP: {type(server).__name__}"
        raise ValueError(message)
    return asyncio.run(inventory_of(server))


async def inventory_of(server: Any) -> Inventory:
    """What a server offers."""

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
