"""The page on FastAPI, as it stands: its files are written, its command is run, and the official client calls the tool."""

from __future__ import annotations

import asyncio
import json
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

from support import Issuer

PAGE = Path(__file__).parents[1] / "docs" / "fastapi.md"


@pytest.fixture
def served(tmp_path):
    """The page's server in a process of its own, with the keys of a test's issuer in its configuration."""
    issuer = Issuer()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL))
    assert sorted(files) == ["fastguard.toml", "server.py"]
    for name, text in files.items():
        here = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        keys = f"algorithms = [\"ES256\"]\njwks = '{json.dumps(issuer.jwks)}'"
        (tmp_path / name).write_text(here.replace('algorithms = ["ES256"]', keys))
    command = re.search(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE).group(1).split()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port), "--log-level", "critical"], cwd=tmp_path
    )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.1)
        yield issuer, f"http://127.0.0.1:{port}", tmp_path
    finally:
        process.terminate()
        process.wait(10)


def test_page_works_as_it_stands(served):
    issuer, base, folder = served

    def token(scope):
        return issuer.token(aud=f"{base}/api/mcp", scope=scope)

    async def call(scope):
        headers = {"authorization": f"Bearer {token(scope)}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"{base}/api/mcp", http_client=http)) as client,
        ):
            return (await client.call_tool("add", {"a": 1, "b": 2})).content[0].text

    with httpx2.Client(base_url=base) as http:
        assert http.get("/health").json() == {"well": True}
        refused = http.post("/api/mcp", json={})
        assert refused.status_code == 401
        metadata = re.search(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"]).group(1)
        assert http.get(metadata).json()["resource"] == f"{base}/api/mcp"
    assert asyncio.run(call("sums:read")) == "alice: 3"
    with pytest.raises((MCPError, httpx2.HTTPStatusError, ExceptionGroup)):
        asyncio.run(call("other:read"))
    assert list((folder / "audit").rglob("*.jsonl"))
