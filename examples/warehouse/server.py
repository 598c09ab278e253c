"""An MCP server over the warehouse, and the guard in front of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import MCPServer
from mcp_fastguard import Guard, current_call
from warehouse import Warehouse

if TYPE_CHECKING:
    from mcp_fastguard.transport.asgi import GuardASGI


def build_server(guard: Guard) -> MCPServer:
    """The tools of the warehouse. None of them knows of tokens: the guard decides before they run."""
    warehouse = Warehouse()
    mcp = MCPServer("warehouse", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def list_schemas() -> list[str]:
        """The schemas of the warehouse."""
        return warehouse.schemas()

    @mcp.tool()
    def list_tables(schema: str) -> list[str]:
        """The tables of a schema."""
        return warehouse.tables(schema)

    @mcp.tool()
    def describe_table(table: str) -> list[dict[str, str]]:
        """The columns of a table."""
        return warehouse.columns(table)

    @mcp.tool()
    def run_query(sql: str, max_rows: int = 100) -> list[dict[str, Any]]:
        """The rows of a query that reads. Tables are quoted: SELECT * FROM "sales.orders"."""
        rows = warehouse.query(sql, max_rows)
        current_call().record(rows=len(rows))
        return rows

    @mcp.tool()
    def get_lineage(table: str) -> list[str]:
        """Where a table's rows come from."""
        return warehouse.lineage(table)

    @mcp.tool()
    def trigger_pipeline(name: str) -> str:
        """Starts a pipeline."""
        return f"run {warehouse.trigger(name)} of {name} started by {current_call().subject}"

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
