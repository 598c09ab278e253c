"""An MCP server over the warehouse, and the guard in front of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field
from warehouse import Warehouse

from mcp_fastguard import Guard, current_call

if TYPE_CHECKING:
    from mcp_fastguard.transport.asgi import GuardASGI

#: Hints for clients. What a caller may do is decided by fastguard.toml.
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)


def build_server(guard: Guard | None = None) -> MCPServer:
    """The tools of the warehouse. None of them knows of tokens: the guard decides before they run.

    Without a guard, whoever reaches it may call everything: for tests.
    """
    warehouse = Warehouse()
    mcp = MCPServer("warehouse", middleware=[guard.mcp_middleware()] if guard else [], log_level="WARNING")

    @mcp.tool(annotations=READS)
    def list_schemas() -> list[str]:
        """The schemas of the warehouse."""
        return warehouse.schemas()

    @mcp.tool(annotations=READS)
    def list_tables(schema: str) -> list[str]:
        """The tables of a schema."""
        return warehouse.tables(schema)

    @mcp.tool(annotations=READS)
    def describe_table(table: str) -> list[dict[str, str]]:
        """The columns of a table, named like `sales.orders`."""
        return warehouse.columns(table)

    @mcp.tool(annotations=READS)
    def run_query(sql: str, max_rows: Annotated[int, Field(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """The rows of one SELECT in the SQL of SQLite, for instance: SELECT country, count(*) FROM sales.customers GROUP BY 1."""
        rows = warehouse.query(sql, max_rows)
        if guard:
            current_call().record(rows=len(rows))
        return rows

    @mcp.tool(annotations=READS)
    def get_lineage(table: str) -> list[dict[str, Any]]:
        """Where a table's rows come from, and by which pipelines."""
        return warehouse.lineage(table)

    @mcp.tool(annotations=STARTS)
    def trigger_pipeline(name: str) -> str:
        """Queues a run of a pipeline."""
        return f"run {warehouse.trigger(name)} of {name} is queued"

    return mcp


def build_app(guard: Guard) -> GuardASGI:
    """The guarded ASGI application."""
    return guard.asgi(build_server(guard).streamable_http_app())


def main() -> None:
    """Serves it. The authorization server of the configuration must run beside it: see `fastguard demo --serve`."""
    import uvicorn

    with Guard.from_file(Path(__file__).with_name("fastguard.toml")) as guard:
        # The guard decides whose address counts, so the server must not replace it.
        uvicorn.run(build_app(guard), host="127.0.0.1", port=8766, proxy_headers=False)


if __name__ == "__main__":
    main()
