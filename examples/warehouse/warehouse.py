"""A small data warehouse: SQLite in memory, with schemas, rows and lineage."""

from __future__ import annotations

import sqlite3
from typing import Any

TABLES = {
    "sales.customers": "id INTEGER PRIMARY KEY, name TEXT, country TEXT",
    "sales.orders": "id INTEGER PRIMARY KEY, customer_id INTEGER, amount REAL, placed_on TEXT",
    "ops.pipelines": "name TEXT PRIMARY KEY, state TEXT, runs INTEGER",
}

LINEAGE = {
    "sales.orders": ["raw.shop_orders", "sales.customers"],
    "sales.customers": ["raw.crm_contacts"],
    "ops.pipelines": [],
}

#: What a query may do. Everything else, `ATTACH` and `PRAGMA` among it, is refused by SQLite itself.
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


class Warehouse:
    """Tables and rows. SQLite has no schemas, so tables are named ``schema.table``."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        for name, columns in TABLES.items():
            self._database.execute(f'CREATE TABLE "{name}" ({columns})')
        countries = ["AT", "BR", "CA", "DE", "JP", "KE", "NZ", "US"]
        customers = [(n, f"Customer {n}", countries[n % len(countries)]) for n in range(1, 41)]
        orders = [
            (n, 1 + n * 7 % 40, round(n * 17.5 % 900, 2), f"2026-{1 + n % 12:02}-{1 + n % 28:02}")
            for n in range(1, 301)
        ]
        self._database.executemany('INSERT INTO "sales.customers" VALUES (?, ?, ?)', customers)
        self._database.executemany('INSERT INTO "sales.orders" VALUES (?, ?, ?, ?)', orders)
        self._database.executemany(
            'INSERT INTO "ops.pipelines" VALUES (?, ?, 0)', [("nightly", "idle"), ("hourly", "idle")]
        )
        self._database.commit()

    def schemas(self) -> list[str]:
        return sorted({name.split(".")[0] for name in TABLES})

    def tables(self, schema: str) -> list[str]:
        return sorted(name for name in TABLES if name.startswith(f"{schema}."))

    def columns(self, table: str) -> list[dict[str, str]]:
        self._known(table)
        rows = self._database.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
        return [{"name": name, "type": kind} for name, kind in rows]

    def query(self, sql: str, max_rows: int) -> list[dict[str, Any]]:
        """Runs a query that reads, and gives at most ``max_rows`` rows."""
        self._database.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY
        )
        try:
            cursor = self._database.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(max_rows)]
        finally:
            self._database.set_authorizer(None)

    def lineage(self, table: str) -> list[str]:
        self._known(table)
        return LINEAGE[table]

    def trigger(self, pipeline: str) -> int:
        """Counts one more run and gives the count."""
        row = self._database.execute(
            'UPDATE "ops.pipelines" SET runs = runs + 1 WHERE name = ? RETURNING runs', (pipeline,)
        ).fetchone()
        self._database.commit()
        if row is None:
            message = f"no pipeline {pipeline!r}"
            raise ValueError(message)
        return int(row[0])

    @staticmethod
    def _known(table: str) -> None:
        if table not in TABLES:
            message = f"no table {table!r}"
            raise ValueError(message)
