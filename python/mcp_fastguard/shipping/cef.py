"""The Common Event Format, version 0: a header of seven parts and an extension of pairs."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_fastguard.shipping.item import Item

__all__ = ["cef"]

#: 0 to 10.
_SEVERITY: Final = {"info": 3, "warning": 6, "error": 8}

#: A value of the extension is cut to so many characters: most fields of receivers hold 1,023.
MAX_VALUE: Final = 1_023

#: Keys of CEF's dictionary, and where their values stand in a record.
_MEMBERS: Final[tuple[tuple[str, str], ...]] = (
    ("externalId", "id"),
    ("reason", "code"),
    ("requestMethod", "method"),
    ("sourceServiceName", "client_id"),
    ("msg", "detail"),
)

#: Custom strings, each with its label.
_STRINGS: Final[tuple[tuple[str, str, Callable[[Item], Any]], ...]] = (
    ("cs1", "log", lambda item: item.log),
    ("cs2", "target", lambda item: item.target),
    ("cs3", "rule", lambda item: item.record.get("rule")),
    ("cs4", "policy", lambda item: item.record.get("policy")),
    ("cs5", "decision", lambda item: item.record.get("decision")),
    ("cs6", "checkpoint", lambda item: item.record.get("note")),
)

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def cef(item: Item) -> str:
    """A record as CEF has it: the essentials. The whole record is in the log that ``cs1`` and ``cn1`` name."""
    record = item.record
    name = " ".join(filter(None, (item.event_type, item.outcome if item.outcome != item.event_type else None)))
    signature = str(record.get("code") or item.event_type)
    head = ["CEF:0", "mcp-fastguard", "mcp-fastguard", __version__, signature, name, str(_SEVERITY[item.weight])]
    pairs: list[tuple[str, Any]] = [
        ("rt", item.milliseconds),
        ("outcome", item.outcome),
        ("suser", item.subject),
        ("dproc", record.get("kind")),
        *_address(record.get("peer")),
        *((key, record.get(member)) for key, member in _MEMBERS),
    ]
    if item.seq is not None:
        pairs += [("cn1Label", "seq"), ("cn1", item.seq)]
    for key, label, value_of in _STRINGS:
        value = value_of(item)
        if value:
            pairs += [(f"{key}Label", label), (key, value)]
    extension = " ".join(f"{key}={_value(value)}" for key, value in pairs if value is not None and value != "")
    return "|".join([*(_head(part) for part in head), extension])


def _address(peer: Any) -> list[tuple[str, str]]:
    """CEF has one key for IPv4 and another for IPv6."""
    if not isinstance(peer, str):
        return []
    try:
        version = ipaddress.ip_address(peer).version
    except ValueError:
        # A pseudonym: it names the source, and is no address.
        return [("shost", peer)]
    return [("src", peer)] if version == 4 else [("c6a2Label", "source"), ("c6a2", peer)]  # noqa: PLR2004 - IPv4


def _head(text: str) -> str:
    """In the header, backslashes and bars are escaped; nothing may end the line."""
    return _CONTROLS.sub(" ", text).replace("\\", "\\\\").replace("|", "\\|")


def _value(value: Any) -> str:
    """In the extension, backslashes and equals signs are escaped, and the ends of lines are written as two characters."""
    text = str(value)[:MAX_VALUE].replace("\\", "\\\\").replace("=", "\\=").replace("\r\n", "\n").replace("\n", "\\n")
    return _CONTROLS.sub(" ", text)
