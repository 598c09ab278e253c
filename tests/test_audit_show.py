"""``fastguard audit show``: filters, and logs that are followed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from mcp_fastguard import Denied, ToolRequest
from mcp_fastguard.cli.records import Filter, instant, line_of
from mcp_fastguard.cli.show import LAST, RECENT, Tail
from shipping_support import LOG, line, write_log

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def request(token, tool="run_query", **arguments):
    return ToolRequest.direct(tool=tool, arguments=arguments, token=token)


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Filter(), True),
        (Filter(who="alice"), True),
        (Filter(who="agent"), True),
        (Filter(who="bob"), False),
        (Filter(tool="run_query"), True),
        (Filter(tool="add"), False),
        (Filter(result="allowed"), True),
        (Filter(result="denied"), False),
        (Filter(since=NOW - timedelta(hours=12)), True),
        (Filter(since=NOW), False),
        (Filter(until=NOW), True),
        (Filter(until=NOW - timedelta(hours=12)), False),
    ],
)
def test_filter_takes_the_records_that_are_asked_for(wanted, fits):
    record = json.loads(
        line(
            0,
            timestamp="2026-11-28T00:00:00.000Z",
            client_id="agent",
            authenticated_identity={"issuer": "i", "subject": "alice"},
        )
    )

    assert wanted.fits(record) is fits


def test_filter_by_the_status_of_an_ending():
    ending = {"event_type": "ending", "status": "error"}

    assert Filter(result="error").fits(ending)
    assert not Filter(result="ok").fits(ending)
    assert not Filter().fits({"event_type": "log_opened"})
    assert not Filter(since=NOW).fits({**ending, "timestamp": "yesterday"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", NOW - timedelta(minutes=15)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-28T08:00:00Z", NOW - timedelta(hours=4)),
        ("2026-11-28T08:00:00", NOW - timedelta(hours=4)),
        ("2026-11-28T09:00:00+01:00", NOW - timedelta(hours=4)),
        ("2026-11-28", NOW - timedelta(hours=12)),
    ],
)
def test_time_is_read_as_people_write_it(text, expected):
    assert instant(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "15", "m", "-1h"])
def test_time_that_is_none_is_said(text):
    with pytest.raises(ValueError, match="no time"):
        instant(text, NOW)


# --- columns --------------------------------------------------------------------------------------


def test_line_has_a_width_of_its_own_for_each_column():
    text = line_of(json.loads(line(0, tool_name="x" * 80, detail="y" * 500)), 140).plain

    assert text.startswith("00:00:00.125  decision  -")
    assert "x" * 23 + "…" in text
    assert len(text) <= 140
    assert line_of(None, 140).plain.split()[:4] == ["time", "event", "who", "target"]


def test_line_obeys_nobody():
    """A terminal obeys escapes; a log that somebody wrote may have some."""
    record = json.loads(line(0, tool_name="\x1b[2Jx", detail="a\nb\u202ec"))

    assert all(character.isprintable() for character in line_of(record, 200).plain)


# --- following ------------------------------------------------------------------------------------


def test_tail_gives_what_is_new_of_files_and_logs_that_begin(tmp_path):
    write_log(tmp_path, records=2)
    tail = Tail(tmp_path)
    assert [json.loads(text)["seq"] for text in tail.new(Filter())] == [0, 1]
    assert list(tail.new(Filter())) == []

    write_log(tmp_path, records=1, first=2)
    write_log(tmp_path, records=1, first=3, file=2)
    write_log(tmp_path, records=1, name="20261128T000001-8-00bb")

    assert [json.loads(text)["seq"] for text in tail.new(Filter())] == [2, 3, 0]


def test_tail_passes_over_what_is_old(tmp_path):
    write_log(tmp_path, records=5)
    write_log(tmp_path, records=2, first=5, file=2)
    names = [f"20261128T{number:06}-7-00aa" for number in range(1, RECENT + 1)]
    for name in names:
        write_log(tmp_path, records=1, name=name)
    tail = Tail(tmp_path)

    tail.skip()
    assert {json.loads(text)["id"] for text in tail.new(Filter())} == {f"{name}-0" for name in names}

    write_log(tmp_path, records=1, first=7, file=2)
    assert [json.loads(text)["id"] for text in tail.new(Filter())] == [f"{LOG}-7"]


class Following:
    """The command, and the lines that it has printed."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", "show", "--follow", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for text in self.process.stdout:
            self._lines.put(text.rstrip("\n"))

    def line(self):
        return self._lines.get(timeout=30)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        said = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode, said


def test_log_is_followed_in_a_terminal_until_ctrl_c(make_guard, issuer):
    guard = make_guard()
    guard.check(request(issuer.token(sub="before"), sql="select 1"))
    guard.flush()
    following = Following(guard.audit_folder.parent)
    assert following.line().split()[:2] == ["time", "event"]
    assert "before" in following.line()

    guard.check(request(issuer.token(sub="bob"), sql="select 2"))
    seen = following.line()
    assert "bob" in seen
    assert "run_query" in seen
    assert "allowed" in seen
    # Another process of the folder, as far as its log is concerned.
    other = make_guard()
    with pytest.raises(Denied):
        other.check(request(issuer.token(sub="carol"), "secret"))
    seen = following.line()
    assert "carol" in seen
    assert "scope_insufficient" in seen

    assert following.stop() == (0, "")


def test_followed_log_is_filtered_and_may_be_read_by_programs(make_guard, issuer):
    guard = make_guard()
    following = Following(guard.audit_folder.parent, "--who", "bob", "--json")
    for subject in ("alice", "bob"):
        guard.check(request(issuer.token(sub=subject)))

    assert json.loads(following.line())["authenticated_identity"]["subject"] == "bob"
    assert following.stop() == (0, "")


def test_folder_that_is_not_there_yet_is_waited_for(tmp_path):
    following = Following(tmp_path / "audit", "--json")
    write_log(tmp_path / "audit", records=1)

    assert json.loads(following.line())["seq"] == 0
    assert following.stop() == (0, "")


def test_last_records_are_shown_before_new_ones(tmp_path):
    write_log(tmp_path, records=50)
    following = Following(tmp_path, "--json")

    assert len({following.line() for _ in range(LAST)}) == LAST
    write_log(tmp_path, records=1, first=50)
    assert json.loads(following.line())["seq"] == 50
    following.stop()


# --- once -----------------------------------------------------------------------------------------


def fastguard(*arguments):
    command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", "show", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    )


def test_records_of_a_time_are_shown(tmp_path):
    log = write_log(tmp_path, records=0)
    with (log / "000001.jsonl").open("w") as opened:
        for seq, hour in enumerate(("07", "08", "09")):
            opened.write(line(seq, timestamp=f"2026-11-28T{hour}:30:00.000Z", tool_name=f"at_{hour}") + "\n")

    done = fastguard(tmp_path, "--since", "2026-11-28T08:00:00Z", "--until", "2026-11-28T09:00:00Z")

    assert (done.returncode, done.stderr) == (0, "")
    assert [hour for hour in ("07", "08", "09") if f"at_{hour}" in done.stdout] == ["08"]


def test_lines_are_shown_as_they_are_in_the_log(tmp_path):
    write_log(tmp_path, records=2)

    assert fastguard(tmp_path, "--json").stdout.splitlines() == [line(0), line(1)]


def test_time_that_cannot_be_read_ends_the_command(tmp_path):
    done = fastguard(tmp_path, "--since", "yesterday")

    assert done.returncode == 1
    assert "no time" in done.stderr
