"""The page on FastAPI, as it stands: its files are written, its command is run, and the official client calls the tool."""

from __future__ import annotations

import asyncio
import re

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from pages_support import commands_of, page_served
from support import Issuer

PAGE = "fastapi.md"


@pytest.fixture
def served(tmp_path):
    """The page's server, with the keys of a test's issuer in its configuration."""
    issuer = Issuer()
    [command] = commands_of(PAGE)
    with page_served(PAGE, command, tmp_path, issuer) as origin:
        yield issuer, origin, tmp_path


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
