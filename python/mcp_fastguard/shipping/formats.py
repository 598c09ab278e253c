"""What is written of a record: the line as it is, OCSF, or CEF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp_fastguard.shipping.cef import cef
from mcp_fastguard.shipping.ocsf import ocsf

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_fastguard.shipping.item import Item

__all__ = ["FORMATS"]


def _line(item: Item) -> str:
    return item.line


#: By name. Each makes one line of text.
FORMATS: Final[dict[str, Callable[[Item], str]]] = {"json": _line, "ocsf": ocsf, "cef": cef}
