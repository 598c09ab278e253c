"""``fastguard limits show``: whose limits are nearest, by name, as the records of decisions tell."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from mcp_fastguard.cli.records import instant, logs, records_of
from mcp_fastguard.cli.said import console, fail
from mcp_fastguard.cli.toml import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Near", "limits_app", "nearest"]

limits_app = typer.Typer(no_args_is_help=True, help="The limits.")

#: Callers and rules that are held at once. Of more, those who have most left are forgotten.
MOST: Final = 100_000


class Near(NamedTuple):
    """How one limit stood for one caller at its last decision."""

    #: What it had left; the smallest of all processes.
    left: int
    #: How many calls it refused.
    refused: int
    rule: str
    who: str
    target: str
    timestamp: str
    #: Whose word it is that this is who; two issuers may name two people alike.
    issuer: str = ""


@limits_app.callback()
def _limits() -> None:
    """The limits."""


@limits_app.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="The folder of the logs, or one log.")] = Path("audit"),
    since: Annotated[
        str, typer.Option(help="Only decisions from this time on: 15m, 24h, or a time of RFC 3339.")
    ] = "15m",
    rule: Annotated[str | None, typer.Option(help="Only this rule.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1_000, help="How many lines at most.")] = 20,
) -> None:
    """Shows who was nearest to a limit at the last decision: callers by name, with what their tightest limit left."""
    try:
        begin = instant(since, datetime.now(UTC))
    except ValueError as error:
        raise fail(error) from error
    found = logs(path)
    if not found:
        raise fail(f"{path}: no log there")
    near, others = nearest(((log.name, record) for log in found for record in records_of(log)), begin, rule, top)
    if not near:
        console.print(f"no limit has counted a call since {since}", markup=False)
        return
    table = Table("left", "refused", "rule", "who", "last target", "last decision")
    are_many = len({one.issuer for one in near}) > 1
    for one in near:
        # One issuer goes without saying.
        who = f"{one.who} of {one.issuer}" if are_many else one.who
        # As text: names may look like markup.
        names = (Text(printable(name)) for name in (one.rule, who, one.target, one.timestamp))
        table.add_row(str(one.left), str(one.refused or ""), *names, style="red" if one.left == 0 else "")
    console.print(table)
    if others:
        console.print(f"and {others} more", markup=False)


def nearest(
    records: Iterable[tuple[str, dict[str, Any]]], begin: datetime, rule: str | None, top: int
) -> tuple[list[Near], int]:
    """Those with the least left first, and how many others there are.

    Args:
        records: each with the name of its log.
        begin: older ones do not count.
        rule: only this one; None for all.
        top: how many at most.
    """
    last: dict[tuple[str, str, str, str], Near] = {}
    forgotten = 0
    for log, record in records:
        limit = record.get("limit")
        if record.get("event_type") != "decision" or not isinstance(limit, dict) or not _is_since(record, begin):
            continue
        name, left = str(limit.get("rule")), int(limit.get("remaining") or 0)
        if rule not in {None, name}:
            continue
        identity = record.get("authenticated_identity") or {}
        who = str(identity.get("subject") or record.get("client_id") or "-")
        issuer = str(identity.get("issuer") or "")
        before = last.get((name, issuer, who, log))
        refused = (before.refused if before else 0) + (record.get("room") == "limits")
        target = str(record.get("tool_name") or record.get("target") or record.get("method") or "-")
        last[name, issuer, who, log] = Near(left, refused, name, who, target, str(record.get("timestamp")), issuer)
        if len(last) > MOST:
            kept = heapq.nsmallest(MOST // 2, last.items(), key=lambda item: item[1].left)
            forgotten += len(last) - len(kept)
            last = dict(kept)
    together: dict[tuple[str, str, str], Near] = {}
    for (*names, _), near in last.items():
        key = (names[0], names[1], names[2])
        other = together.get(key)
        together[key] = near if other is None else _of_both(near, other)
    order = attrgetter("rule", "who", "issuer")
    shown = heapq.nsmallest(top, together.values(), key=lambda near: (near.left, -near.refused, *order(near)))
    return shown, len(together) - len(shown) + forgotten


def _of_both(one: Near, other: Near) -> Near:
    """Of two processes, whose windows are their own: the later call, the smaller rest."""
    later = max(one, other, key=lambda near: near.timestamp)
    return later._replace(left=min(one.left, other.left), refused=one.refused + other.refused)


def _is_since(record: dict[str, Any], begin: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(record.get("timestamp"))) >= begin
    except ValueError:
        return False
