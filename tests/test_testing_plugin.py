"""The plugin in a project of a user, and the page that shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def user_environment(folder: Path) -> dict[str, str]:
    """Where Python finds the package, and beside it what an installer would have written."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *filter(None, sys.path)])}


def pytest_of_a_user(folder: Path, *options: str) -> str:
    """Runs pytest as in a project of a user that has the package installed, and gives its output."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = folder / "site" / "mcp_fastguard-0.0.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mcp-fastguard\nVersion: 0.0.0\n")
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["pytest11"].items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=user_environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plugin_of_an_installed_package_has_its_fixtures_and_loads_nothing_unasked(tmp_path):
    (tmp_path / "test_user.py").write_text(
        """
import sys

def test_nothing_is_loaded_unasked():
    assert not {"mcp", "fastmcp", "joserfc", "starlette"} & set(sys.modules)

def test_fixtures_are_found(fastguard_guard, fastguard_clock, fastguard_issuer, make_token):
    assert fastguard_guard.__name__ == "build"
"""
    )
    assert "2 passed" in pytest_of_a_user(tmp_path)


def test_page_of_the_docs_runs_as_it_is_written(tmp_path):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    # Each block that is a file follows a paragraph that names it.
    blocks = re.findall(r"([^\n]*)\n\n```(?:python|toml)\n(.*?)```", page, re.DOTALL)
    for before, text in blocks:
        named = re.findall(r"`(\w+\.(?:py|toml))`", before)
        (tmp_path / (named[-1] if named else "script.py")).write_text(text, encoding="utf-8")
    files = {"fastguard.toml", "server.py", "test_rules.py", "test_tokens.py", "test_http.py", "script.py"}
    assert {file.name for file in tmp_path.iterdir()} == files

    assert "8 passed" in pytest_of_a_user(tmp_path)
    subprocess.run(
        [sys.executable, "-W", "error", "script.py"], cwd=tmp_path, env=user_environment(tmp_path), check=True
    )
