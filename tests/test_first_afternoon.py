"""The tutorial's way, by its commands: a server of forty tools goes from no guard to an enforced one, and no caller breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

TOPICS = ["order", "customer", "invoice", "shipment", "product", "supplier", "ticket", "report", "user", "branch"]
VERBS = ["list", "get", "create", "delete"]
PAGE = Path(__file__).parents[1] / "docs" / "first-afternoon.md"


def server():
    """An ordinary FastMCP server, written by somebody who has never heard of a guard."""
    lines = ["from fastmcp import FastMCP", "mcp = FastMCP('shop')"]
    for topic in TOPICS:
        for verb in VERBS:
            lines += ["@mcp.tool", f"def {verb}_{topic}(id: int = 0) -> str:", f"    return '{verb} {topic}'"]
    return "\n".join(lines)


class Afternoon:
    """A person's folder, and the commands that were typed in it."""

    def __init__(self, folder, port):
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.port = port
        self.typed = []

    def fastguard(self, *arguments):
        self.typed.append(arguments)
        command = [sys.executable, "-m", "mcp_fastguard.cli", *arguments]
        environment = {**os.environ, "COLUMNS": "250"}
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, env=environment)

    @contextlib.contextmanager
    def dev(self):
        arguments = ("dev", "server:mcp", "--config", "fastguard.toml", "--port", str(self.port))
        self.typed.append(arguments)
        process = subprocess.Popen(
            [sys.executable, "-m", "mcp_fastguard.cli", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert any(line.startswith("records") for line in process.stdout), "it did not start"
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()

    def use(self, token, *tools):
        """What a client sees in the list, and of each call: its text, or the guard's code."""

        async def walk():
            headers = {"authorization": f"Bearer {token}"} if token else {}
            async with (
                httpx2.AsyncClient(headers=headers, trust_env=False) as http,
                Client(streamable_http_client(self.url, http_client=http)) as client,
            ):
                listed = [tool.name for tool in (await client.list_tools()).tools]
                seen = []
                for tool in tools:
                    try:
                        seen.append((await client.call_tool(tool, {})).content[0].text)
                    except MCPError as refused:
                        seen.append((refused.error.data or {}).get("code"))
                return listed, seen

        return asyncio.run(asyncio.wait_for(walk(), 60))


@pytest.fixture
def afternoon(tmp_path, free_ports):
    (tmp_path / "server.py").write_text(server())
    return Afternoon(tmp_path, free_ports)


def test_forty_tools_are_guarded_in_twelve_commands_and_nobody_breaks(afternoon):
    configuration = afternoon.folder / "fastguard.toml"
    written = afternoon.fastguard("init", "--issuer", "https://auth.example.com", "--app", "server:mcp")
    assert written.returncode == 0, written.stderr
    assert configuration.read_text().count("[tools.") == 40
    assert afternoon.fastguard("check-config", "--app", "server:mcp").returncode == 0

    until = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
    enforced = configuration.read_text()
    configuration.write_text(f'{enforced}\n[observe]\nrooms = ["token", "limits", "policy"]\nuntil = {until}\n')
    with afternoon.dev():
        # Callers as they were before: one has no token at all, one has too narrow a one. Nothing breaks.
        listed, seen = afternoon.use(None, "delete_order")
        assert (len(listed), seen) == (40, ["delete order"])
        narrow = afternoon.fastguard("token", "issue", "--as", "alice", "--scope", "order:read").stdout.strip()
        listed, seen = afternoon.use(narrow, "list_order", "delete_order")
        assert (len(listed), seen) == (40, ["list order", "delete order"])

    told = afternoon.fastguard("report", "observed", ".fastguard/audit")
    assert told.returncode == 0, told.stderr
    assert "token_missing" in told.stdout
    assert re.search(r"tool delete_order.*scope_insufficient.*order:write", told.stdout)

    configuration.write_text(enforced)
    with afternoon.dev():
        granted = afternoon.fastguard(
            "token", "issue", "--as", "alice", "--scope", "order:read", "--scope", "order:write"
        ).stdout.strip()
        listed, seen = afternoon.use(granted, "list_order", "delete_order")
        assert sorted(listed) == ["create_order", "delete_order", "get_order", "list_order"]
        assert seen == ["list order", "delete order"]
        narrow = afternoon.fastguard("token", "issue", "--as", "bob", "--scope", "order:read").stdout.strip()
        listed, _ = afternoon.use(narrow)
        assert sorted(listed) == ["get_order", "list_order"]
        refused = httpx2.post(afternoon.url, json={})
        assert refused.status_code == 401

    assert len(afternoon.typed) <= 12
    documented = {
        " ".join(words.split()[:2]) for words in re.findall(r"fastguard ((?:\w|-)+ (?:\w|-)+)", PAGE.read_text())
    }
    typed = {" ".join(arguments[:2]) for arguments in afternoon.typed}
    assert {words for words in typed if words.split()[0] not in {"init", "dev", "check-config"}} <= documented
    assert {"init", "dev", "check-config"} <= {words.split()[0] for words in documented}
