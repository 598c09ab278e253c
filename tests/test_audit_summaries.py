"""``fastguard audit summarise``: a file of each day's counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest

from mcp_fastguard.cli import summaries
from mcp_fastguard.cli.summaries import forget, summarise
from shipping_support import LOG, line, write_checkpoint

#: Two days after the first record below.
NOW = datetime(2026, 11, 30, 0, 10, tzinfo=UTC)
OTHER = "20261129T120000-8-00bb"


def log_of(base, name, *lines, changed=NOW):
    log = base / name
    log.mkdir(parents=True, exist_ok=True)
    file = log / "000001.jsonl"
    file.write_text("".join(f"{text}\n" for text in lines))
    os.utime(file, (changed.timestamp(), changed.timestamp()))
    return log


def decision(seq, day="2026-11-28", name=LOG, **members):
    who = {"authenticated_identity": {"issuer": "i", "subject": "alice"}, "client_id": "agent", "enforced": True}
    return line(seq, name, timestamp=f"{day}T10:00:00.000Z", **{**who, **members})


def ending(seq, day="2026-11-28", **members):
    given = {
        "event_type": "ending",
        "status": "ok",
        "result": None,
        "duration_ms": 1.5,
        "output_summary": {"rows": 3, "bytes": 10},
    }
    return decision(seq, day, **{**given, **members})


def summary(base, day="2026-11-28"):
    return json.loads((base / "summaries" / f"{day}.json").read_text())


def test_day_is_counted_by_tool_caller_and_code(tmp_path):
    counted = {"event_type": "refusals_counted", "counts": [{"code": "token_missing", "count": 7}], "other": 2}
    log = log_of(
        tmp_path,
        LOG,
        decision(0),
        decision(1),
        decision(2, result="denied", code="scope_insufficient"),
        decision(3, tool_name="add"),
        ending(4),
        ending(5),
        decision(6, result=None, **counted),
        decision(7, "2026-11-29"),
    )
    note = write_checkpoint(log, 8)

    assert summarise(tmp_path, NOW) == [date(2026, 11, 28), date(2026, 11, 29)]

    found = summary(tmp_path)
    call = {"kind": "tool", "target": "run_query", "issuer": "i", "subject": "alice", "client_id": "agent"}
    assert found["records"] == 7
    assert found["decisions"] == [
        {**call, "target": "add", "result": "allowed", "enforced": True, "calls": 1},
        {**call, "result": "allowed", "enforced": True, "calls": 2},
        {**call, "result": "denied", "code": "scope_insufficient", "enforced": True, "calls": 1},
    ]
    assert found["endings"] == [{**call, "status": "ok", "calls": 2, "duration_ms": 3, "rows": 6, "bytes": 20}]
    assert found["unverified"] == {"other": 2, "token_missing": 7}
    assert found["logs"] == [{"log": LOG, "first": 0, "last": 6, "checkpoint": note}]
    assert summary(tmp_path, "2026-11-29")["records"] == 1


def test_day_of_several_processes_is_one(tmp_path):
    log_of(tmp_path, LOG, decision(0, "2026-11-29"))
    log_of(tmp_path, OTHER, decision(0, "2026-11-29", OTHER), decision(1, "2026-11-29", OTHER))

    summarise(tmp_path, NOW)

    found = summary(tmp_path, "2026-11-29")
    assert [entry["calls"] for entry in found["decisions"]] == [3]
    assert [entry["log"] for entry in found["logs"]] == [LOG, OTHER]


def test_day_that_is_not_over_has_no_summary(tmp_path):
    log_of(tmp_path, LOG, decision(0, "2026-11-30"))

    assert date(2026, 11, 30) not in summarise(tmp_path, NOW)
    # Nor has one that ended a moment ago.
    assert summarise(tmp_path, datetime(2026, 12, 1, 0, 1, tzinfo=UTC)) == []
    assert summarise(tmp_path, datetime(2026, 12, 1, 0, 6, tzinfo=UTC)) == [date(2026, 11, 30)]


def test_day_is_summed_up_once_and_outlives_its_records(tmp_path):
    log = log_of(tmp_path, LOG, decision(0))
    summarise(tmp_path, NOW)
    before = summary(tmp_path)
    (log / "000001.jsonl").unlink()

    assert summarise(tmp_path, NOW) == []
    assert summary(tmp_path) == before


def test_names_that_callers_choose_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "MOST", 2)
    log_of(
        tmp_path, LOG, *(decision(seq, tool_name=f"tool_{seq}") for seq in range(5)), decision(5, tool_name="tool_0")
    )

    summarise(tmp_path, NOW)

    found = summary(tmp_path)
    assert {entry["target"]: entry["calls"] for entry in found["decisions"]} == {"tool_0": 2, "tool_1": 1}
    assert (found["omitted"], found["records"]) == (3, 6)


def test_summary_is_private_and_no_draft_stays(tmp_path):
    log_of(tmp_path, LOG, decision(0))

    summarise(tmp_path, NOW)

    files = list((tmp_path / "summaries").iterdir())
    assert {file.suffix for file in files} == {".json"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_old_summaries_are_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "summaries"
    folder.mkdir()
    for name in ("2025-11-27.json", "2025-11-28.json", "notes.json"):
        (folder / name).write_text("{}")

    assert [file.name for file in forget(tmp_path, date(2025, 11, 28))] == ["2025-11-27.json"]
    assert sorted(file.name for file in folder.iterdir()) == ["2025-11-28.json", "notes.json"]


@pytest.mark.parametrize(
    "text", ["not json", '{"seq":1,"timestamp":"yesterday"}', '{"seq":1}', '{"seq":1,"timestamp":7}']
)
def test_line_without_a_day_is_passed_over(tmp_path, text):
    log_of(tmp_path, LOG, decision(0), text, decision(2))

    summarise(tmp_path, NOW)

    assert summary(tmp_path)["records"] == 2


def test_command_sums_up_the_days_that_it_keeps_and_removes_older_ones(tmp_path):
    day = datetime.now(UTC) - timedelta(days=2)
    old = datetime.now(UTC) - timedelta(days=50)
    for at in (day, old):
        log_of(tmp_path, f"{at:%Y%m%d}T000000-7-00aa", decision(0, f"{at:%Y-%m-%d}"), changed=at)
    (tmp_path / "summaries").mkdir()
    (tmp_path / "summaries" / "2020-01-01.json").write_text("{}")
    command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", "summarise", str(tmp_path), "--keep", "30"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "1 days summed up, 1 summaries removed\n")
    assert [file.stem for file in (tmp_path / "summaries").iterdir()] == [f"{day:%Y-%m-%d}"]
