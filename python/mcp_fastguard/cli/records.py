"""Reads the records of audit logs for people."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["REGISTRY", "Filter", "instant", "line_of", "logs", "records", "records_of", "table_of"]

_AGO: Final = re.compile(r"(\d+)(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

#: The folder of the log of logs.
REGISTRY: Final = "registry"

#: The columns of a followed log: heading, and width in cells; the last takes the rest.
COLUMNS: Final = (
    ("time", 12),
    ("event", 8),
    ("who", 20),
    ("target", 24),
    ("result", 9),
    ("rule or code", 24),
    ("detail", 0),
)


class Filter(NamedTuple):
    """Which records are shown; what is None filters nothing."""

    who: str | None = None
    tool: str | None = None
    result: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, record: dict[str, Any]) -> bool:
        """Whether a record is a decision or an ending that is asked for."""
        if record.get("event_type") not in {"decision", "ending"}:
            return False
        names = {record.get("client_id"), (record.get("authenticated_identity") or {}).get("subject")}
        return (
            (self.who is None or self.who in names)
            and (self.tool is None or record.get("tool_name") == self.tool)
            and (self.result is None or self.result in {record.get("result"), record.get("status")})
            and self._is_in_time(record)
        )

    def _is_in_time(self, record: dict[str, Any]) -> bool:
        if self.since is None and self.until is None:
            return True
        try:
            at = datetime.fromisoformat(str(record.get("timestamp")))
        except ValueError:
            return False
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def instant(text: str, now: datetime) -> datetime:
    """A time as people write it: ``15m`` ago, or RFC 3339; in UTC where it names no zone.

    Raises:
        ValueError: it is none.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"`{text}` is no time: write 15m, 24h, 7d, or 2026-11-28T08:00:00Z"
        raise ValueError(message) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def logs(path: Path) -> list[Path]:
    """The logs in a folder, oldest first, without their registry; or the folder itself, if it is one."""
    if any(path.glob("*.jsonl")):
        return [path]
    return sorted(log for log in path.glob("*/") if log.name != REGISTRY and any(log.glob("*.jsonl")))


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of all logs, in the order of each log. A torn last line is passed over."""
    for log in logs(path):
        yield from records_of(log)


def records_of(log: Path) -> Iterator[dict[str, Any]]:
    """The records of one log."""
    for file in sorted(log.glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def table_of(found: list[dict[str, Any]]) -> Table:
    """Decisions and endings, one line each."""
    table = Table(*(heading for heading, _ in COLUMNS))
    for record in found:
        time, event, who, target, result, rule, detail = _cells(record)
        table.add_row(time, event, who, target, Text(result, style=_style(result)), rule, detail)
    return table


def line_of(record: dict[str, Any] | None, width: int) -> Text:
    """A record as one line of columns, for a log that is followed; None gives the headings."""
    line = Text(no_wrap=True, overflow="ellipsis")
    cells = [heading for heading, _ in COLUMNS] if record is None else _cells(record)
    left = width
    for text, (heading, size) in zip(cells, COLUMNS, strict=True):
        room = size or max(10, left)
        cut = text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…"
        style = "bold" if record is None else _style(text) if heading == "result" else ""
        line.append(set_cell_size(cut, room) if size else cut, style=style)
        line.append("  " if size else "")
        left -= room + 2
    line.rstrip()
    return line


def _cells(record: dict[str, Any]) -> list[str]:
    identity = record.get("authenticated_identity") or {}
    cells = [
        str(record.get("timestamp", ""))[11:23],
        str(record["event_type"]),
        str(identity.get("subject") or record.get("client_id") or record.get("peer") or "-"),
        str(record.get("tool_name") or record.get("target") or record.get("method") or "-"),
        str(record.get("result") or record.get("status") or ""),
        str(record.get("code") or record.get("rule") or ""),
        str(record.get("detail") or _summary(record)),
    ]
    # A terminal obeys what it is shown; the log's own lines have none of it, but a line may be anybody's.
    return ["".join(character if character.isprintable() else "\ufffd" for character in cell) for cell in cells]


def _style(result: str) -> str:
    return "green" if result in {"allowed", "ok", "input_required"} else "red"


def _summary(record: dict[str, Any]) -> str:
    parts = [f"{name}={value}" for name, value in (record.get("output_summary") or {}).items()]
    if "duration_ms" in record:
        parts.append(f"{record['duration_ms']:.1f} ms")
    for name, value in (record.get("input_params") or {}).items():
        if isinstance(value, str):
            parts.append(f"{name}={value!r}")
    return ", ".join(parts)
