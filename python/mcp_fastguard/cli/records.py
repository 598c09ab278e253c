"""Reads the records of audit logs for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["logs", "records", "records_of", "table_of"]


def logs(path: Path) -> list[Path]:
    """The logs in a folder, oldest first; or the folder itself, if it is one."""
    if any(path.glob("*.jsonl")):
        return [path]
    return sorted(log for log in path.glob("*/") if any(log.glob("*.jsonl")))


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
    table = Table("time", "event", "who", "target", "result", "rule or code", "detail")
    for record in found:
        if record.get("event_type") not in {"decision", "ending"}:
            continue
        identity = record.get("authenticated_identity") or {}
        result = record.get("result") or record.get("status") or ""
        detail = record.get("detail") or _summary(record)
        table.add_row(
            str(record.get("timestamp", ""))[11:23],
            str(record["event_type"]),
            str(identity.get("subject") or record.get("client_id") or record.get("peer") or "-"),
            str(record.get("tool_name") or record.get("target") or record.get("method") or "-"),
            Text(str(result), style="green" if result in {"allowed", "ok"} else "red"),
            str(record.get("code") or record.get("rule") or ""),
            detail,
        )
    return table


def _summary(record: dict[str, Any]) -> str:
    parts = [f"{name}={value}" for name, value in (record.get("output_summary") or {}).items()]
    if "duration_ms" in record:
        parts.append(f"{record['duration_ms']:.1f} ms")
    for name, value in (record.get("input_params") or {}).items():
        if isinstance(value, str):
            parts.append(f"{name}={value!r}")
    return ", ".join(parts)
