"""The rules of `fastguard.toml`, tested through the server that they guard: `pytest examples/warehouse`.

The guard reads the file itself. Of the test are its keys, its clock and its log; all else is what runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from server import build_server

from mcp_fastguard.testing import GuardUnderTest, as_caller, denied, guard

#: Every tool, arguments that it takes, and the one scope that opens it.
TOOLS: list[tuple[str, dict[str, Any], str]] = [
    ("list_schemas", {}, "warehouse:schema:read"),
    ("list_tables", {"schema": "sales"}, "warehouse:schema:read"),
    ("describe_table", {"table": "sales.orders"}, "warehouse:schema:read"),
    ("run_query", {"sql": "SELECT 1"}, "warehouse:query:read"),
    ("get_lineage", {"table": "sales.orders"}, "catalog:metadata:read"),
    ("trigger_pipeline", {"name": "load_shop"}, "pipeline:trigger:write"),
]
SCOPES = {scope for _, _, scope in TOOLS}

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def guarding() -> Iterator[GuardUnderTest]:
    with guard(Path(__file__).with_name("fastguard.toml")) as found:
        yield found


@pytest.fixture
def server(guarding: GuardUnderTest) -> MCPServer:
    return build_server(guarding)


@pytest.mark.parametrize(("tool", "arguments", "scope"), TOOLS)
async def test_tool_is_opened_by_its_scope(server: MCPServer, tool: str, arguments: dict[str, Any], scope: str) -> None:
    with as_caller(scopes=[scope]):
        async with Client(server) as client:
            assert not (await client.call_tool(tool, arguments)).is_error


@pytest.mark.parametrize(("tool", "arguments", "scope"), TOOLS)
async def test_tool_is_opened_by_no_other_scope(
    server: MCPServer, tool: str, arguments: dict[str, Any], scope: str
) -> None:
    with as_caller(scopes=sorted(SCOPES - {scope})):
        async with Client(server) as client:
            with denied("scope_insufficient") as refused:
                await client.call_tool(tool, arguments)
    # The client is told what to ask its user for.
    assert f'scope="{scope}"' in (refused.value.challenge or "")


@pytest.mark.parametrize("scope", sorted(SCOPES))
async def test_list_shows_a_caller_what_it_may_call(server: MCPServer, scope: str) -> None:
    with as_caller(scopes=[scope]):
        async with Client(server) as client:
            shown = {tool.name for tool in (await client.list_tools()).tools}
    assert shown == {name for name, _, needed in TOOLS if needed == scope}


async def test_tool_that_no_rule_names_is_refused(server: MCPServer) -> None:
    @server.tool()
    def drop_table(table: str) -> str:
        pytest.fail(f"{table} is gone")

    with as_caller(scopes=sorted(SCOPES)):
        async with Client(server) as client:
            with denied("target_unknown"):
                await client.call_tool("drop_table", {"table": "sales.orders"})


async def test_who_may_write_the_catalog_may_read_it(server: MCPServer) -> None:
    with as_caller(scopes=["catalog:metadata:write"]):
        async with Client(server) as client:
            assert not (await client.call_tool("get_lineage", {"table": "sales.orders"})).is_error


@pytest.mark.parametrize(
    ("tool", "arguments", "quota"),
    [("run_query", {"sql": "SELECT 1"}, 20), ("get_lineage", {"table": "sales.orders"}, 5)],
)
async def test_loop_of_an_agent_is_stopped_until_its_window_has_room(
    guarding: GuardUnderTest, server: MCPServer, tool: str, arguments: dict[str, Any], quota: int
) -> None:
    with as_caller(scopes=sorted(SCOPES), subject="looping"):
        async with Client(server) as client:
            for _ in range(quota):
                await client.call_tool(tool, arguments)
            with denied("quota_spent") as refused:
                await client.call_tool(tool, arguments)
            retry_after = refused.value.retry_after or 0

            with as_caller(scopes=sorted(SCOPES), subject="another"):
                await client.call_tool(tool, arguments)

            guarding.clock.advance(retry_after / 2)
            with denied("quota_spent"):
                await client.call_tool(tool, arguments)
            guarding.clock.advance(retry_after / 2)
            await client.call_tool(tool, arguments)


async def test_query_is_on_record_with_its_rows(guarding: GuardUnderTest, server: MCPServer) -> None:
    sql = "SELECT * FROM sales.orders"
    with as_caller(scopes=["warehouse:query:read"], subject="bob"):
        async with Client(server) as client:
            await client.call_tool("run_query", {"sql": sql, "max_rows": 7})

    decision, ending = (record for record in guarding.records() if record.get("tool_name") == "run_query")
    assert decision["authenticated_identity"]["subject"] == "bob"
    assert decision["input_params"]["sql"] == sql
    # What `log_arguments` does not name is recorded by its hash.
    assert set(decision["input_params"]["max_rows"]) == {"hash", "type"}
    assert (ending["status"], ending["output_summary"]["rows"]) == ("ok", 7)
