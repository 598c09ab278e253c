"""``fastguard audit prune``: what goes, what stays, and what the registry and ``verify`` say of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from audit_support import toml_of
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.audit import record_schema
from mcp_fastguard.cli.prune import last_to_go
from mcp_fastguard.shipping import Shipper, ShipSettings
from mcp_fastguard.shipping.follow import Place
from shipping_support import line, write_log

BEFORE = datetime(2026, 11, 29, tzinfo=UTC)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def base(config):
    return Path(config["audit"]["path"])


@pytest.fixture
def file(config, tmp_path):
    """The configuration as a file; logs have files of a few records."""
    config["audit"]["max_file_bytes"] = 65_536
    config["limits"] = {"rules": [{"per": "principal", "quota": "100000/minute"}]}
    return tmp_path / "fastguard.toml"


def one_log(config, issuer, file, calls=200):
    file.write_text(toml_of(config))
    with Guard.from_dict(config) as guard:
        request = ToolRequest.direct(tool="run_query", token=issuer.token(), arguments={"sql": "select 1"})
        for _ in range(calls):
            guard.check(request)
        return guard.audit_folder


def put_back(log: Path, days: int) -> None:
    """Has the records of a log be so old, as far as pruning looks; the log itself no longer verifies."""
    old = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT")
    for found in log.glob("*.jsonl"):
        found.write_text(found.read_text().replace(datetime.now(UTC).strftime("%Y-%m-%dT"), old))


def test_records_that_are_old_are_pruned_and_the_log_still_verifies(config, issuer, base, file):
    log = one_log(config, issuer, file)
    proof = command("verify", base).stdout

    done = command("prune", "--keep", "0s", "--config", file)
    assert (done.returncode, "is not how long" in done.stderr) == (1, True)
    # The youngest record is some milliseconds old.
    done = wait_and_prune(file)

    assert done.returncode == 0, done.stderr
    assert f"{log.name}: " in done.stdout
    assert list(log.glob("*.jsonl")) == []
    assert (log / "checkpoint").exists()
    verified = command("verify", base)
    assert verified.returncode == 0, verified.stdout
    assert "pruned by the rule --keep 1s" in verified.stdout
    [before] = [row.rpartition("root ")[2] for row in proof.splitlines() if row.startswith(log.name)]
    assert before in verified.stdout, "the root is that of all records"


def wait_and_prune(file):
    """Prunes what is a second old, once everything is."""
    done = command("prune", "--keep", "1s", "--config", file)
    while done.returncode == 0 and not done.stdout:
        done = command("prune", "--keep", "1s", "--config", file)
    return done


def test_young_records_and_open_logs_stay(config, issuer, base, file):
    log = one_log(config, issuer, file)
    with Guard.from_dict(config) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
        guard.flush()

        done = command("prune", "--config", file)

        assert (done.returncode, done.stdout) == (0, "")
        assert list(guard.audit_folder.glob("*.jsonl"))
    assert list(log.glob("*.jsonl"))
    assert command("verify", base).returncode == 0


def test_what_a_place_has_not_taken_stays(config, issuer, base, file, tmp_path):
    config["audit"]["ship"] = [{"name": "out", "sink": "file", "path": str(tmp_path / "out")}]
    log = one_log(config, issuer, file)
    # A second later than the seal.
    other = one_log({**config, "audit": {**config["audit"], "path": str(tmp_path / "other")}}, issuer, tmp_path / "x")
    while datetime.now(UTC).timestamp() - (log / "checkpoint").stat().st_mtime < 1.1:
        other.stat()
    assert command("prune", "--keep", "1s", "--config", file).stdout == ""
    assert list(log.glob("*.jsonl"))

    Shipper(base, ShipSettings("out", "file", path=tmp_path / "out")).drain()

    assert f"{log.name}: " in command("prune", "--keep", "1s", "--config", file).stdout
    assert list(log.glob("*.jsonl")) == []


def test_log_that_does_not_verify_is_not_pruned(config, issuer, file):
    log = one_log(config, issuer, file)
    put_back(log, 100)

    done = command("prune", "--config", file)

    assert done.returncode == 1
    assert f"{log.name}: " in done.stderr
    assert "does not verify" in done.stderr
    assert list(log.glob("*.jsonl"))


def test_days_are_summed_up_before_anything_goes(config, issuer, base, file):
    one_log(config, issuer, file, calls=1)
    day = datetime.now(UTC) - timedelta(days=3)
    old = write_log(base, name=f"{day:%Y%m%d}T000000-7-00aa")
    os.utime(old / "000001.jsonl", (day.timestamp(), day.timestamp()))

    assert command("prune", "--config", file).returncode == 0

    assert [found.stem for found in (base / "summaries").iterdir()] == [f"{day:%Y-%m-%d}"]
    # The registry does not know it, so nothing of it goes.
    assert (old / "000001.jsonl").exists()


def test_entries_of_removals_fit_the_schema(config, issuer, base, file):
    log = one_log(config, issuer, file, calls=1)
    wait_and_prune(file)
    assert command("forget", log.name, "--reason", "a test", "--config", file).returncode == 0

    lines = [
        json.loads(text) for found in (base / "registry").glob("*.jsonl") for text in found.read_text().splitlines()
    ]

    assert [entry["event_type"] for entry in lines if entry.get("log") == log.name] == [
        "log_registered",
        "log_ended",
        "log_pruned",
        "log_forgotten",
    ]
    validator = Draft202012Validator(record_schema())
    assert [error.message for entry in lines for error in validator.iter_errors(entry)] == []
    assert not log.exists()


def test_log_of_another_place_is_not_forgotten(config, issuer, file):
    one_log(config, issuer, file, calls=1)

    done = command("forget", "../elsewhere", "--reason", "a test", "--config", file)

    assert done.returncode == 1
    assert "is no log here" in done.stderr


def files_of(base, *days):
    """A log with a file for each day, each of one record."""
    for number, day in enumerate(days):
        log = write_log(base, records=0, file=number + 1)
        text = line(number, timestamp=f"2026-11-{day:02}T00:00:00.000Z")
        (log / f"{number + 1:06}.jsonl").write_text(text + "\n")
    return log


def test_file_goes_once_the_next_one_begins_before_the_day(tmp_path):
    log = files_of(tmp_path, 26, 27, 30)

    # The second has records until the third begins.
    assert last_to_go(log, BEFORE, []) == 1
    assert last_to_go(log, datetime(2026, 12, 1, tzinfo=UTC), []) == 3


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([None], 0),
        ([Place(file=1)], 0),
        ([Place(file=3, records=3)], 2),
        ([Place(file=3, records=3, is_sealed=True, checkpoint=2)], 2),
        ([Place(file=3, records=3, is_sealed=True, checkpoint=3)], 3),
        ([Place(file=3, records=3, is_sealed=True, checkpoint=3), Place(file=2)], 1),
    ],
)
def test_file_goes_once_every_place_is_past_it(tmp_path, places, expected):
    log = files_of(tmp_path, 26, 27, 28)

    assert last_to_go(log, BEFORE, places) == expected


def test_file_whose_time_cannot_be_read_stays(tmp_path):
    log = files_of(tmp_path, 26, 27)
    (log / "000002.jsonl").write_text("torn")

    assert last_to_go(log, BEFORE, []) == 0
