"""Holds what a server offers against the rules: tools without a rule, rules without a tool, scopes that say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard.cli.inventory import load_inventory
from mcp_fastguard.cli.scaffold import bad_scopes
from mcp_fastguard.cli.unlogged import unlogged
from mcp_fastguard.config import scopes_of_rules

if TYPE_CHECKING:
    from mcp_fastguard.config import GuardConfig

__all__ = ["gaps_of"]


def gaps_of(config: GuardConfig, app: str) -> list[str]:
    """One line for each gap.

    Raises:
        ValueError: the server cannot be imported, or is none.
    """
    inventory = load_inventory(app)
    with unlogged(config) as guard:
        found = [
            *guard.rule_gaps("tool", [tool.name for tool in inventory.tools]),
            *guard.rule_gaps("prompt", [prompt.name for prompt in inventory.prompts]),
            *guard.rule_gaps("resource", [resource.name for resource in inventory.resources]),
        ]
    found += [
        f"scope `{scope}` says nothing of what it allows: name it resource:action"
        for scope in bad_scopes(scopes_of_rules(config.tables))
    ]
    return found
