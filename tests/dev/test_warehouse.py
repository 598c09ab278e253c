"""The example server without a guard: what its own queries may do, and that the official client reaches it in both eras."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from transport_support import ERAS, run, served

EXAMPLE = Path(__file__).parents[2] / "examples" / "warehouse"


@pytest.fixture(scope="module", autouse=True)
def example_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        yield
    for name in ("server", "warehouse"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def warehouse(example_on_path):
    from warehouse import Warehouse

    return Warehouse()


@pytest.mark.parametrize("mode", list(ERAS))
def test_official_client_calls_every_tool(mode):
    from server import build_server

    async def scenario():
        async with (
            served(build_server().streamable_http_app()) as transport,
            httpx2.AsyncClient(transport=transport) as http,
        ):
            address = streamable_http_client("http://127.0.0.1:8766/mcp", http_client=http)
            async with Client(address, mode=ERAS[mode]) as client:
                tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
                calls = {
                    "list_schemas": {},
                    "list_tables": {"schema": "sales"},
                    "describe_table": {"table": "sales.orders"},
                    "run_query": {"sql": "SELECT count(*) AS orders FROM sales.orders"},
                    "get_lineage": {"table": "sales.orders"},
                    "trigger_pipeline": {"name": "load_shop"},
                }
                assert set(tools) == set(calls)
                assert [name for name, hints in tools.items() if not hints.read_only_hint] == ["trigger_pipeline"]
                results = {name: await client.call_tool(name, arguments) for name, arguments in calls.items()}
                assert [name for name, result in results.items() if result.is_error] == []
                assert results["run_query"].structured_content == {"result": [{"orders": 480}]}
                over = await client.call_tool("run_query", {"sql": "SELECT 1", "max_rows": 1001})
                assert over.is_error

    run(scenario())


def test_query_gives_at_most_the_rows_asked_for(warehouse):
    assert len(warehouse.query("SELECT * FROM sales.orders", 7)) == 7
    assert warehouse.query("SELECT name FROM sales.customers WHERE id = 1", 5) == [{"name": "Alder Bakery"}]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM sales.orders",
        "UPDATE ops.pipelines SET schedule = ''",
        "CREATE TEMP TABLE t (a)",
        "ATTACH '/etc/passwd' AS other",
        "VACUUM INTO '/tmp/copy.db'",
        "PRAGMA query_only = OFF",
        "SELECT 1; SELECT 2",
        # Another scope's: the catalog, and the schema.
        "SELECT * FROM catalog.lineage",
        "SELECT * FROM sales.sqlite_schema",
        'SELECT * FROM SALES."SQLITE_MASTER"',
        "SELECT * FROM pragma_table_info('orders', 'sales')",
        # Functions that do more than compute.
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT length(zeroblob(100000000))",
        # Tables that are not there, without SQLite's word on which are.
        "SELECT * FROM sales.secrets",
    ],
)
def test_query_that_does_not_read_known_tables_is_refused(warehouse, sql):
    with pytest.raises(ValueError, match=r"^not a query that reads known tables within 2 s$"):
        warehouse.query(sql, 5)


def test_query_without_an_end_is_stopped(warehouse, monkeypatch):
    monkeypatch.setattr("warehouse.MAX_SECONDS", 0.05)

    with pytest.raises(ValueError, match="within"):
        warehouse.query("WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT sum(n) FROM r", 1)


def test_writing_query_is_refused_while_others_run(warehouse):
    # Tools run in threads: what one call may do must not depend on when another one ends.
    def write(_):
        with pytest.raises(ValueError, match="not a query"):
            warehouse.query("DELETE FROM sales.orders", 1)

    with ThreadPoolExecutor(8) as threads:
        queries = [threads.submit(warehouse.query, "SELECT * FROM sales.orders", 100) for _ in range(40)]
        triggers = [threads.submit(warehouse.trigger, "load_crm") for _ in range(20)]
        list(threads.map(write, range(40)))
        assert all(len(query.result()) == 100 for query in queries)
        assert len({trigger.result() for trigger in triggers}) == 20
    assert warehouse.query("SELECT count(*) AS n FROM sales.orders", 1) == [{"n": 480}]


def test_lineage_goes_up_to_the_sources(warehouse):
    assert [(step["table"], step["reads"]) for step in warehouse.lineage("sales.orders")] == [
        ("sales.orders", "raw.shop_orders"),
        ("sales.orders", "sales.customers"),
        ("sales.customers", "raw.crm_contacts"),
    ]


@pytest.mark.parametrize("table", ["orders", "sales.secrets", "catalog.lineage", "sales.orders; --", ""])
def test_unknown_names_are_refused(warehouse, table):
    for operation in (warehouse.columns, warehouse.lineage, warehouse.tables, warehouse.trigger):
        with pytest.raises(ValueError, match="no "):
            operation(table)
