"""The pages on the MCP SDK and FastMCP, as they stand: each command is run, and the official client calls at the public name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from support import RESOURCE, Issuer

DOCS = Path(__file__).parents[1] / "docs"


def commands_of(page):
    return re.findall(r"^\$ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


WAYS = [(page, command) for page in ("mcp-sdk.md", "fastmcp.md") for command in commands_of(page)]


def write_files(page, folder, issuer, port):
    """The page's files; the issuer's keys stand in the configuration, so that nothing is fetched."""
    text = (DOCS / page).read_text(encoding="utf-8")
    files = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL))
    assert sorted(files) == ["fastguard.toml", "server.py"]
    algorithms = 'algorithms = ["ES256"]'
    assert algorithms in files["fastguard.toml"]
    files["fastguard.toml"] = files["fastguard.toml"].replace(
        algorithms, f"{algorithms}\njwks = '{json.dumps(issuer.jwks)}'"
    )
    files["server.py"] = files["server.py"].replace("port=8000", f"port={port}")
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


@contextlib.contextmanager
def running(command, folder, port):
    words = command.split()
    words = words[1:] if words[0] == "python" else ["-m", *words, "--port", str(port)]
    quiet = {"FASTMCP_CHECK_FOR_UPDATES": "off", "FASTMCP_SHOW_SERVER_BANNER": "false"}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None, "it ended"
            assert time.monotonic() < until, "it did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(20)


async def call(url, token):
    """What the tool answers, or the guard's code."""
    # As a proxy hands it on: by the public name.
    headers = {"authorization": f"Bearer {token}", "host": "mcp.example.com"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        try:
            return (await client.call_tool("add", {"a": 1, "b": 2})).content[0].text
        except MCPError as refused:
            return refused.error.data["code"]


@pytest.mark.parametrize(("page", "command"), WAYS, ids=[f"{page}: {command}" for page, command in WAYS])
def test_page_works_as_it_stands(page, command, tmp_path):
    issuer = Issuer()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_files(page, tmp_path, issuer, port)

    with running(command, tmp_path, port) as url:
        assert httpx2.post(url, json={}, trust_env=False).status_code == 401
        assert asyncio.run(call(url, issuer.token(aud=RESOURCE, scope="sums:read"))) == "alice: 3"
        assert asyncio.run(call(url, issuer.token(aud=RESOURCE, scope="other:read"))) == "scope_insufficient"

    lines = [line for file in (tmp_path / "audit").rglob("*.jsonl") for line in file.read_text().splitlines()]
    decisions = [record for record in map(json.loads, lines) if record.get("tool_name") == "add"]
    # Two layers and one decision each: the allowed call with its ending, and the refused one.
    assert (
        sorted(record["event_type"] for record in decisions if record["event_type"] == "decision") == ["decision"] * 2
    )


def test_both_ways_of_fastmcp_and_the_one_of_the_sdk_are_run():
    assert [page for page, _ in WAYS] == ["mcp-sdk.md", "fastmcp.md", "fastmcp.md"]
