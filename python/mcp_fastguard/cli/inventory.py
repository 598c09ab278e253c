"""Finds the user's server by its place, and what it offers."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

from mcp_fastguard.transport.offers import Inventory, inventory_of

__all__ = ["load_inventory", "load_server"]


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
