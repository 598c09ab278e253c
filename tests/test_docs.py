"""The pages against what they describe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.config import json_schema

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")


def leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    members = nav.values() if isinstance(nav, dict) else nav
    return [leaf for member in members for leaf in leaves(member)]


def test_navigation_names_every_page_once() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(leaves(site["project"]["nav"])) == sorted(pages)


def keys_of_page() -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", CONFIGURATION, re.MULTILINE))


def keys_of_schema() -> set[str]:
    """Keys of all tables; tables themselves are headings of the page."""
    schema = json_schema()
    tables = [definition for definition in schema["$defs"].values() if "properties" in definition]
    return {key for table in tables for key in table["properties"]}


def test_page_of_the_configuration_lists_the_keys_of_the_schema() -> None:
    assert keys_of_page() == keys_of_schema()


def test_page_of_the_configuration_has_a_heading_for_each_table() -> None:
    headings = "\n".join(re.findall(r"^## .*$", CONFIGURATION, re.MULTILINE))
    tables = set(json_schema()["properties"]) - {"version"}
    assert {table for table in tables if f"`[{table}" not in headings and f"`[[{table}" not in headings} == set()


def test_example_of_the_configuration_can_be_used() -> None:
    example = CONFIGURATION.split("```toml\n")[1].split("```")[0]
    assert config_warnings(example) == []


def commands(group: Any, prefix: str = "fastguard") -> list[str]:
    if not hasattr(group, "commands"):
        return [prefix]
    return [name for word, command in group.commands.items() for name in commands(command, f"{prefix} {word}")]


def test_page_of_the_command_line_lists_every_command() -> None:
    from mcp_fastguard.cli.commands import app

    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(fastguard [a-z -]+[a-z])", page, re.MULTILINE)
    assert sorted(listed) == sorted(commands(get_command(app)))


@pytest.mark.parametrize(
    "room", ["request", "token", "binding", "limits", "policy", "approval", "execute", "mask", "audit"]
)
def test_every_room_has_a_page_of_its_name(room: str) -> None:
    assert (DOCS / "rooms" / f"{room}.md").read_text(encoding="utf-8").startswith(f"# {room}\n")
