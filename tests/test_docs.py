"""The pages against what they describe."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import sys
import threading
import tomllib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.config import json_schema
from support import chromium, skip_aloud

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


def test_site_has_nothing_that_asks_another_host() -> None:
    """With ``repo_url`` the theme's script asks GitHub's API on every visit; the font option loads from Google."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    assert "repo_url" not in project
    assert project["theme"]["font"] is False


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


def made_by(name: str) -> ModuleType:
    """A script that makes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_reference_is_what_the_code_says() -> None:
    page = made_by("reference").page()
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == page, "run make docs"
    # Every attribute says what it is.
    assert not re.findall(r"^\| `\w+` \| .* \|  \|$", page, re.MULTILINE)


def test_page_of_the_records_is_what_the_schema_says() -> None:
    assert (DOCS / "audit-records.md").read_text(encoding="utf-8") == made_by("records").page(), "run make docs"


def test_picture_shows_the_rooms_in_their_order() -> None:
    drawn = made_by("picture")
    assert (DOCS / "path.svg").read_text(encoding="utf-8") == drawn.picture(), "run make docs"
    table = re.findall(r"^\| \[(\w+)\]\(rooms/", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [*(room.word for room in drawn.ROOMS), "audit"] == table


def test_every_page_fits_a_phone_and_a_desktop_without_an_error(tmp_path: Path) -> None:
    """Built strictly, and opened in a real browser: no script fails, nothing is asked of another host, nothing scrolls sideways."""
    browser = chromium()
    from playwright import sync_api as playwright

    zensical = Path(sys.executable).with_name("zensical")
    if not zensical.is_file():
        skip_aloud("zensical is not installed")
    for name in ("docs", "zensical.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    site = tmp_path / "site"
    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, playwright.sync_playwright() as started:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        found = [fault for width in (390, 1440) for fault in faults_of(opened, base, site, width)]
        opened.close()
        server.shutdown()
    assert not found


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def faults_of(opened: Any, base: str, site: Path, width: int) -> list[str]:
    found: list[str] = []
    page = opened.new_page(viewport={"width": width, "height": 900})
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))
    page.on("console", lambda line: found.append(f"{page.url}: {line.text}") if line.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((base, "data:")) else found.append(request.url))
    for file in sorted(site.rglob("index.html")):
        page.goto(base + file.parent.relative_to(site).as_posix().removeprefix(".").strip("/"))
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append(f"{page.url} scrolls sideways at {width} px")
    page.close()
    return found
