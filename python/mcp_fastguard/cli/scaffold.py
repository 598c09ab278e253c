"""Writes a whole ``fastguard.toml`` for a server: its issuer by recipe, a rule for each tool by its own hints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mcp_fastguard.cli.toml import printable, toml_key, toml_text

if TYPE_CHECKING:
    from mcp_fastguard.transport.offers import Inventory, Offer

__all__ = ["bad_scopes", "proposed_scope", "scaffold"]

#: Scopes that say nothing of what they allow (MCP 2026-07-28, security best practices, scope minimisation).
_BAD_SCOPES: Final = frozenset(
    {
        "*",
        "admin",
        "all",
        "any",
        "api",
        "default",
        "everything",
        "full",
        "full-access",
        "full_access",
        "root",
        "superuser",
    }
)

#: First words of tools' names that say what they do, where the server gives no hints.
_READING: Final = frozenset(
    {
        "check",
        "count",
        "describe",
        "diff",
        "explain",
        "fetch",
        "find",
        "get",
        "inspect",
        "list",
        "look",
        "lookup",
        "preview",
    }
    | {"query", "read", "search", "show", "stat", "status", "view"}
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def bad_scopes(scopes: set[str]) -> list[str]:
    """Those that are too wide to be worth checking."""
    return sorted(scope for scope in scopes if scope.lower() in _BAD_SCOPES or "*" in scope)


def is_reading(tool: Offer) -> bool:
    """Whether a tool only reads: by its own hint, else by its first word."""
    if tool.is_read_only is not None:
        return tool.is_read_only
    words = _WORDS.findall(tool.name)
    return bool(words) and words[0].lower() in _READING


def proposed_scope(tool: Offer) -> str:
    """``resource:action``: what the name speaks of, without its verb, and whether it is read or written."""
    words = [word.lower() for word in _WORDS.findall(tool.name)]
    action = "read" if is_reading(tool) else "write"
    # `export_all` speaks of what it exports, and `all:write` would say nothing.
    about = [word for word in words[1:] if word not in _BAD_SCOPES] or words[:1] or ["tool"]
    # `list_tables` and `get_table` speak of the same thing.
    resource = about[-1]
    if len(resource) > 3 and resource.endswith("s") and not resource.endswith("ss"):  # noqa: PLR2004 - `bus` stays
        resource = resource[:-1]
    return f"{resource}:{action}"


def scaffold(resource_url: str, issuer: str, inventory: Inventory | None) -> str:
    """The whole file.

    Args:
        resource_url: the public URL of the MCP endpoint.
        issuer: the ``[[issuers]]`` table, as TOML.
        inventory: what the server offers; None leaves an example of a rule.
    """
    lines = [
        "# Every key: docs/configuration.md. `fastguard check-config` says what is wrong, `fastguard explain` what decides.",
        "version = 1",
        "",
        "[resource]",
        "# The public URL of the MCP endpoint: the guarded path, and the default audience.",
        f"url = {toml_text(resource_url)}",
        "# Other paths are refused unless they stand here.",
        'public = ["/health"]',
        "",
        issuer.rstrip(),
        "",
        "[limits]",
        "rules = [",
        "    # An agent's loop may be endless.",
        '    { per = "principal", quota = "1000/minute" },',
        '    { per = "tool", quota = "120/minute" },',
        "]",
        "",
        "[audit]",
        "# A record of each decision; `fastguard audit show` reads it.",
        'path = "audit"',
        "",
    ]
    lines += _rules(inventory) if inventory is not None else _example()
    return "\n".join(lines).rstrip() + "\n"


def _example() -> list[str]:
    return ["# A tool without a rule is refused.", '[tools."list_*"]', 'scopes = ["table:read"]']


def _rules(inventory: Inventory) -> list[str]:
    lines = ["# A tool without a rule is refused. The scopes are proposals: name them as your identity provider does."]
    for tool in inventory.tools:
        if tool.description:
            lines.append(f"# {printable(tool.description)[:110]}")
        lines.append(f"[tools.{toml_key(tool.name)}]")
        lines.append(f"scopes = [{toml_text(proposed_scope(tool))}]")
        if tool.is_destructive and not is_reading(tool):
            lines.append("# The server says that it destroys: `approve` waits for a human, `block` refuses.")
            lines.append('tier = "log"')
        lines.append("")
    for table, offers in (("prompts", inventory.prompts), ("resources", inventory.resources)):
        for offer in offers:
            lines.append(f"[{table}.{toml_key(offer.name)}]")
            lines.append("# Any verified caller.")
            lines.append("open = true")
            lines.append("")
    return lines
