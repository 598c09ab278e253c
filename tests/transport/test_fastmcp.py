"""FastMCP 4: lists, calls, nested calls, mounted servers, its own auth."""

from __future__ import annotations

import httpx2
import pytest
from fastmcp import Context, FastMCP
from mcp.shared.exceptions import MCPError

from support import RESOURCE, records
from transport_support import client, headers, message, run, served


def build(guard, *, auth=False):
    extra = {"auth": guard.fastmcp_auth()} if auth else {}
    mcp = FastMCP("test", middleware=[guard.fastmcp_middleware()], **extra)
    child = FastMCP("child")

    @mcp.tool
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool
    def secret() -> str:
        return "the secret"

    @mcp.tool
    async def run_query(sql: str, ctx: Context) -> str:
        """Calls another tool of the same server, as code-mode tools do."""
        result = await ctx.fastmcp.call_tool(sql, {})
        return str(result)

    @child.tool
    def list_tables() -> str:
        return "tables"

    @child.tool
    def hidden() -> str:
        return "hidden"

    mcp.mount(child, namespace="child")
    return mcp


@pytest.fixture
def rules(config):
    config["tools"]["child_list_tables"] = {"open": True}
    return config


@pytest.mark.parametrize("mode", ["modern", "legacy"])
@pytest.mark.parametrize("auth", [False, True], ids=["alone", "with auth"])
def test_client_lists_and_calls_what_it_may(make_guard, rules, issuer, mode, auth):
    guard = make_guard()
    app = guard.asgi(build(guard, auth=auth).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, issuer.token(), mode) as found:
            names = sorted(tool.name for tool in (await found.list_tools()).tools)
            assert names == ["add", "child_list_tables", "run_query"]
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
            assert (await found.call_tool("child_list_tables", {})).content[0].text == "tables"
            for name in ("secret", "child_hidden"):
                with pytest.raises(MCPError):
                    await found.call_tool(name, {})

    run(walk())


def test_nested_call_of_a_tool_is_refused_under_its_own_name(make_guard, rules, issuer):
    guard = make_guard()
    app = guard.asgi(build(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, issuer.token(), "modern") as found:
            try:
                result = await found.call_tool("run_query", {"sql": "secret"})
                assert result.is_error
                assert "the secret" not in str(result)
            except MCPError as refused:
                assert refused.data["code"] == "scope_insufficient"

    run(walk())
    denied = [record for record in records(guard) if record.get("result") == "denied"]
    assert [record["tool_name"] for record in denied] == ["secret"]


def test_synthetic_lists_are_neither_limited_nor_recorded(make_guard, rules, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "2/minute", "method": "tools/*"}]})
    app = guard.asgi(build(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport) as http:
            for expected in (200, 200, 429):
                body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
                answer = await http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", "add"))
                assert answer.status_code == expected

    run(walk())
    methods = [
        record["method"]
        for record in records(guard)
        if record["event_type"] == "decision" and record["method"].startswith("tools/")
    ]
    assert methods == ["tools/call"] * 3
