"""The pages on the MCP SDK and FastMCP, as they stand: each command is run, and the official client calls at the public name."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from pages_support import commands_of, page_served
from support import RESOURCE, Issuer

WAYS = [(page, command) for page in ("mcp-sdk.md", "fastmcp.md") for command in commands_of(page)]


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
    with page_served(page, command, tmp_path, issuer) as origin:
        url = f"{origin}/mcp"
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
