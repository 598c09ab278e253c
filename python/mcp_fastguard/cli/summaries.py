"""``fastguard audit summarise``: what each day's records come to, in a file of a day, which outlives them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.shipping.follow import Place, checkpoint_of, log_folders, read_on

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Day", "forget", "missing_days", "summarise"]

FORMAT: Final = 1

#: A day counts at most so many different calls and endings; those beyond are counted together. Callers choose names.
MOST: Final = 50_000

#: How long after its end a day is complete: records are on disk within seconds, and not all clocks are alike.
GRACE: Final = timedelta(minutes=5)

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_OPENED: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T\d{6}-.*")

#: What endings are summed up by.
_SUMS: Final = ("calls", "duration_ms", "rows", "bytes")


class Day:
    """Counts of one day."""

    def __init__(self) -> None:
        self.records = 0
        self.decisions: Counter[tuple[Any, ...]] = Counter()
        self.endings: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0.0] * len(_SUMS))
        self.unverified: Counter[str] = Counter()
        self.omitted = 0
        #: The first and last `seq` of each log that were counted.
        self.logs: dict[str, list[int]] = {}

    def add(self, log: str, seq: int, record: dict[str, Any]) -> None:
        """Counts a record."""
        self.records += 1
        self.logs.setdefault(log, [seq, seq])[1] = seq
        event = record.get("event_type")
        if event == "decision":
            key = (*_call(record), record.get("result"), record.get("code"), record.get("enforced", True))
            if self._has_room(key, self.decisions):
                self.decisions[key] += 1
        elif event == "ending":
            key = (*_call(record), record.get("status"))
            if self._has_room(key, self.endings):
                summary = record.get("output_summary") or {}
                values = (1, record.get("duration_ms"), summary.get("rows"), summary.get("bytes"))
                self.endings[key] = [
                    total + (value or 0) for total, value in zip(self.endings[key], values, strict=True)
                ]
        elif event == "refusals_counted":
            for counted in record.get("counts") or ():
                self.unverified[str(counted.get("code"))] += int(counted.get("count") or 0)
            self.unverified["other"] += int(record.get("other") or 0)

    def _has_room(self, key: tuple[Any, ...], counts: Any) -> bool:
        has_room = key in counts or len(counts) < MOST
        self.omitted += not has_room
        return has_room

    def written(self, day: date, notes: dict[str, str]) -> dict[str, Any]:
        """The day as its file has it.

        Args:
            day: which.
            notes: the newest checkpoint of each log, which covers the records that were counted, or will.
        """
        named = ("kind", "target", "issuer", "subject", "client_id")
        decisions = [
            _given(zip((*named, "result", "code", "enforced", "calls"), (*key, count), strict=True))
            for key, count in sorted(self.decisions.items(), key=_by_text)
        ]
        endings = [
            _given(zip((*named, "status", *_SUMS), (*key, *map(_short, sums)), strict=True))
            for key, sums in sorted(self.endings.items(), key=_by_text)
        ]
        logs = [
            _given({"log": log, "first": first, "last": last, "checkpoint": notes.get(log)}.items())
            for log, (first, last) in sorted(self.logs.items())
        ]
        return {
            "format": FORMAT,
            "day": day.isoformat(),
            "records": self.records,
            "decisions": decisions,
            "endings": endings,
            "unverified": {code: count for code, count in sorted(self.unverified.items()) if count},
            "omitted": self.omitted,
            "logs": logs,
        }


def missing_days(base: Path, now: datetime, since: date = date.min) -> dict[Path, set[date]]:
    """For each log the days from ``since`` on that are over, that it may have records of, and that have no summary."""
    today = (now - GRACE).astimezone(UTC).date()
    found: dict[Path, set[date]] = {}
    for log in log_folders(base):
        opened = _OPENED.fullmatch(log.name)
        if opened is None:
            continue
        day = date(int(opened[1]), int(opened[2]), int(opened[3]))
        written = max(file.stat().st_mtime for file in log.glob("*.jsonl"))
        last = min(datetime.fromtimestamp(written, UTC).date(), today - timedelta(days=1))
        days = {day + timedelta(days=number) for number in range((last - day).days + 1)}
        days = {day for day in days if day >= since and not _file(base, day).exists()}
        if days:
            found[log] = days
    return found


def summarise(base: Path, now: datetime, since: date = date.min) -> list[date]:
    """Writes a summary of each day that is over and has none. A day without a record gets an empty one; which were written."""
    missing = missing_days(base, now, since)
    days: dict[date, Day] = {day: Day() for of_log in missing.values() for day in of_log}
    notes = {}
    for log in missing:
        checkpoint = checkpoint_of(log)
        if checkpoint is not None:
            notes[log.name] = checkpoint.note
        _count(log, days)
    for day, counts in sorted(days.items()):
        _write(_file(base, day), counts.written(day, {log: notes[log] for log in counts.logs if log in notes}))
    return sorted(days)


def forget(base: Path, before: date) -> list[Path]:
    """Removes the summaries of days before a day; which they were."""
    old = [
        file
        for file in sorted((base / "summaries").glob("*.json"))
        if _DAY.fullmatch(file.stem) and file.stem < before.isoformat()
    ]
    for file in old:
        file.unlink()
    return old


def _count(log: Path, days: dict[date, Day]) -> None:
    place = Place()
    while True:
        lines, place = read_on(log, place, 10_000, 8 * 1024 * 1024)
        if not lines:
            return
        for line in lines:
            try:
                record = json.loads(line.text)
                day = days.get(date.fromisoformat(str(record["timestamp"])[:10]))
            except (ValueError, KeyError, TypeError):
                continue
            if day is not None:
                day.add(log.name, line.seq, record)


def _call(record: dict[str, Any]) -> tuple[Any, ...]:
    identity = record.get("authenticated_identity") or {}
    return (
        record.get("kind"),
        record.get("tool_name") or record.get("target"),
        identity.get("issuer"),
        identity.get("subject"),
        record.get("client_id"),
    )


def _by_text(item: tuple[tuple[Any, ...], Any]) -> list[str]:
    return [str(part) for part in item[0]]


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else round(number, 3)


def _given(members: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in members if value is not None}


def _file(base: Path, day: date) -> Path:
    return base / "summaries" / f"{day.isoformat()}.json"


def _write(file: Path, summary: dict[str, Any]) -> None:
    """Whole or not at all, and on disk."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    draft = file.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        json.dump(summary, opened, ensure_ascii=False, indent=1)
        opened.write("\n")
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)
