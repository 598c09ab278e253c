"""A small data warehouse in SQLite: two schemas with rows, a catalog beside them, and pipelines."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
import weakref
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Warehouse"]

#: One database file per schema. The catalog has one of its own, so that no query can reach it: it needs another scope.
SCHEMAS: Final = ("ops", "sales")
CATALOG: Final = "catalog"

#: Functions that a query may call. Not all of SQLite's are harmless: one tells addresses of memory, one loads code.
AGGREGATES: Final = frozenset({"avg", "count", "group_concat", "max", "min", "rank", "row_number", "sum", "total"})
SCALARS: Final = frozenset(
    {"abs", "coalesce", "date", "length", "like", "lower", "round", "strftime", "substr", "upper"}
)

#: A query may take so many seconds, and build a value of so many bytes.
MAX_SECONDS: Final = 2.0
MAX_VALUE: Final = 10_000

TABLES: Final = """
CREATE TABLE sales.customers (id INTEGER PRIMARY KEY, name TEXT, country TEXT, since TEXT);
CREATE TABLE sales.orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product TEXT, amount REAL, placed_on TEXT);
CREATE TABLE ops.pipelines (name TEXT PRIMARY KEY, schedule TEXT);
CREATE TABLE ops.runs (id INTEGER PRIMARY KEY, pipeline TEXT, state TEXT, seconds REAL);
CREATE TABLE catalog.lineage (target TEXT, source TEXT, pipeline TEXT);
"""

NAMES: Final = ["Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Maple", "Oak", "Rowan"]
TRADES: Final = ["Bakery", "Books", "Cycles", "Foods", "Glass", "Tools"]
COUNTRIES: Final = ["AT", "BR", "CA", "DE", "JP", "KE", "NZ", "US"]
PRODUCTS: Final = ["chair", "desk", "lamp", "shelf", "stool"]
PIPELINES: Final = [("load_shop", "hourly"), ("load_crm", "daily"), ("refresh_sales", "nightly")]
LINEAGE: Final = [
    ("sales.orders", "raw.shop_orders", "load_shop"),
    ("sales.orders", "sales.customers", "refresh_sales"),
    ("sales.customers", "raw.crm_contacts", "load_crm"),
    ("ops.runs", "ops.pipelines", "refresh_sales"),
]


class Warehouse:
    """Its files are made at the start and go with the object. Each operation has a connection of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warehouse-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        with self._connected(*SCHEMAS, CATALOG, mode="rwc") as database:
            database.executescript(TABLES)
            _fill(database)

    def schemas(self) -> list[str]:
        """The names of the schemas."""
        return list(SCHEMAS)

    def tables(self, schema: str) -> list[str]:
        """The tables of a schema, as ``schema.table``.

        Raises:
            ValueError: there is no such schema.
        """
        if schema not in SCHEMAS:
            message = f"no schema {schema!r}"
            raise ValueError(message)
        with self._connected(schema) as database:
            names = database.execute(f"SELECT name FROM {schema}.sqlite_schema WHERE type = 'table' ORDER BY name")  # noqa: S608 - one of SCHEMAS
            return [f"{schema}.{name}" for (name,) in names]

    def columns(self, table: str) -> list[dict[str, str]]:
        """Names and types of a table's columns.

        Raises:
            ValueError: there is no such table.
        """
        schema, name = self._split(table)
        with self._connected(schema) as database:
            rows = database.execute("SELECT name, type FROM pragma_table_info(?, ?)", (name, schema))
            return [{"name": name, "type": kind} for name, kind in rows]

    def query(self, sql: str, max_rows: int) -> list[dict[str, Any]]:
        """The first rows of a query that reads.

        Raises:
            ValueError: it does something else, or takes too long. What SQLite says stays here: it can name tables and columns.
        """
        with self._connected(*SCHEMAS) as database:
            database.row_factory = sqlite3.Row
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            until = time.monotonic() + MAX_SECONDS
            database.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            database.set_authorizer(_only_reading)
            try:
                return [dict(row) for row in database.execute(sql).fetchmany(max_rows)]
            except sqlite3.Error:
                message = f"not a query that reads known tables within {MAX_SECONDS:.0f} s"
                raise ValueError(message) from None

    def lineage(self, table: str) -> list[dict[str, Any]]:
        """Where a table's rows come from, step by step up to the sources.

        Raises:
            ValueError: there is no such table.
        """
        self._split(table)
        with self._connected(CATALOG) as database:
            steps = database.execute(
                """
                WITH RECURSIVE upstream (target, source, pipeline, depth) AS (
                    SELECT target, source, pipeline, 1 FROM lineage WHERE target = ?
                    UNION
                    SELECT lineage.target, lineage.source, lineage.pipeline, depth + 1
                    FROM lineage JOIN upstream ON lineage.target = upstream.source WHERE depth < 10
                )
                SELECT target, source, pipeline FROM upstream ORDER BY depth, source
                """,
                (table,),
            )
            return [{"table": target, "reads": source, "by": pipeline} for target, source, pipeline in steps]

    def trigger(self, pipeline: str) -> int:
        """Queues a run of a pipeline and gives its number.

        Raises:
            ValueError: there is no such pipeline.
        """
        with self._connected("ops", mode="rw") as database:
            if database.execute("SELECT 1 FROM pipelines WHERE name = ?", (pipeline,)).fetchone() is None:
                message = f"no pipeline {pipeline!r}"
                raise ValueError(message)
            number = database.execute("INSERT INTO runs (pipeline, state) VALUES (?, 'queued')", (pipeline,)).lastrowid
            return int(number or 0)

    def _split(self, table: str) -> tuple[str, str]:
        schema, _, name = table.partition(".")
        if schema not in SCHEMAS or table not in self.tables(schema):
            message = f"no table {table!r}"
            raise ValueError(message)
        return schema, name

    @contextmanager
    def _connected(self, *schemas: str, mode: str = "ro") -> Iterator[sqlite3.Connection]:
        """A connection to some schemas, read-only unless said otherwise. Commits if nothing was raised."""
        with closing(sqlite3.connect("file::memory:", uri=True)) as database:
            for schema in schemas:
                file = (self._folder / f"{schema}.db").as_uri()
                database.execute(f"ATTACH ? AS {schema}", (f"{file}?mode={mode}",))
            if mode == "ro":
                database.execute("PRAGMA query_only = ON")
            with database:
                yield database


def _only_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """What SQLite asks while it compiles a query. `ATTACH`, `PRAGMA` and all that writes has no place here."""
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
            may = True
        case sqlite3.SQLITE_READ:
            # SQLite's own tables show the schema, which is for holders of another scope.
            may = not (first or "").lower().startswith("sqlite_")
        case sqlite3.SQLITE_FUNCTION:
            may = (second or "").lower() in AGGREGATES | SCALARS
        case _:
            may = False
    return sqlite3.SQLITE_OK if may else sqlite3.SQLITE_DENY


def _fill(database: sqlite3.Connection) -> None:
    customers = [
        (number, f"{name} {trade}", COUNTRIES[number * 5 % len(COUNTRIES)], f"20{18 + number % 8}-0{1 + number % 9}-01")
        for number, (name, trade) in enumerate(((name, trade) for name in NAMES for trade in TRADES), start=1)
    ]
    orders = [
        (
            number,
            1 + number * 7 % len(customers),
            PRODUCTS[number * 3 % len(PRODUCTS)],
            round(20 + number * 17.5 % 900, 2),
            f"2026-{1 + number % 12:02}-{1 + number % 28:02}",
        )
        for number in range(1, 481)
    ]
    runs = [
        (PIPELINES[number % len(PIPELINES)][0], "failed" if number % 17 == 0 else "done", 3.0 + number % 40)
        for number in range(1, 121)
    ]
    database.executemany("INSERT INTO sales.customers VALUES (?, ?, ?, ?)", customers)
    database.executemany("INSERT INTO sales.orders VALUES (?, ?, ?, ?, ?)", orders)
    database.executemany("INSERT INTO ops.pipelines VALUES (?, ?)", PIPELINES)
    database.executemany("INSERT INTO ops.runs (pipeline, state, seconds) VALUES (?, ?, ?)", runs)
    database.executemany("INSERT INTO catalog.lineage VALUES (?, ?, ?)", LINEAGE)
