"""The registry of logs: what processes enter, and what `fastguard audit verify` makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from audit_support import toml_of
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard._fastguard import verify_logs
from mcp_fastguard.audit import record_schema
from mcp_fastguard.shipping import Shipper, ShipSettings

SCRIPT = textwrap.dedent("""
    import json, sys
    from mcp_fastguard import Guard, GuardFault, ToolRequest
    config, token = json.load(sys.stdin)

    def flushed(guard):
        try:
            guard.flush()
        except GuardFault:
            return False
        return True

    for _ in range(5):
        with Guard.from_dict(config) as guard:
            guard.check(ToolRequest.direct(tool="run_query", token=token, arguments={}))
            # A machine with more to do may need longer for a birth than the two seconds that a flush, or a close, waits.
            while not flushed(guard):
                pass
""")

#: Waits at the gate with all others, has one call decided, and closes: a process that is born and ends at once.
SHORT = textwrap.dedent("""
    import json, logging, os, sys
    logging.basicConfig(format="%(message)s")
    from mcp_fastguard import Guard, ToolRequest
    config, token = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    with Guard.from_dict(config) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=token, arguments={}))
    # Nobody asks for it any more; an interpreter takes its time to end.
    os._exit(0)
""")


def command(*arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


def one_call(config, issuer):
    """A guard that lives for one call; the name of its log."""
    with Guard.from_dict(config) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token(), arguments={}))
        return guard.audit_folder.name


def entries(base):
    files = sorted((base / "registry").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def base(config):
    return Path(config["audit"]["path"])


def test_eight_processes_that_open_and_close_logs_enter_all_of_them(config, issuer, base):
    given = json.dumps([config, issuer.token()]).encode()
    processes = [subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE) for _ in range(8)]
    for process in processes:
        process.stdin.write(given)
        process.stdin.close()
    assert [process.wait(120) for process in processes] == [0] * 8
    # An end that had to wait too long is entered by the next start.
    Guard.from_dict(config).close()

    found = entries(base)
    logs = {log.name for log in base.glob("2*")}
    assert len(logs) == 40
    assert {entry["log"] for entry in found if entry["event_type"] == "log_registered"} == logs
    assert sorted(entry["log"] for entry in found if entry["event_type"] == "log_ended") == sorted(logs)
    assert [problem for *_, problem in verify_logs(base)] == [None] * 41


def test_fifty_processes_that_begin_and_end_at_once_all_close_and_are_all_entered(config, issuer, base):
    given = json.dumps([config, issuer.token()]) + "\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", SHORT], **pipes) for _ in range(50)]
    for process in processes:
        process.stdin.write(given)
        process.stdin.flush()
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 50
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120)[1] for process in processes]

    # Neither an error of a close, nor a warning of a log that another process was just making, or of an end that was not entered.
    assert [(process.returncode, text) for process, text in zip(processes, told, strict=True)] == [(0, "")] * 50
    found = entries(base)
    logs = {log.name for log in base.glob("2*")}
    assert len(logs) == 50
    for event_type in ("log_registered", "log_ended"):
        assert sorted(entry["log"] for entry in found if entry["event_type"] == event_type) == sorted(logs)
    assert [problem for *_, problem in verify_logs(base)] == [None] * 51


def test_log_that_vanished_whole_shows_until_it_is_forgotten(config, issuer, base, tmp_path, caplog):
    gone, kept = one_call(config, issuer), one_call(config, issuer)
    assert f"{gone}: 3 records, sealed" in command("verify", base).stdout
    shutil.rmtree(base / gone)

    done = command("verify", base, check=False)
    assert done.returncode == 1
    assert f"{gone}: the registry knows this log, and its folder is gone" in done.stdout
    assert f"{kept}: 3 records, sealed" in done.stdout
    one_call(config, issuer)
    assert f"{gone}: not repaired: the registry knows it" in caplog.text

    file = tmp_path / "fastguard.toml"
    file.write_text(toml_of(config))
    command("forget", gone, "--reason", "the disk of the test", "--config", file)
    assert f"{gone}: removed on purpose: the disk of the test" in command("verify", base).stdout


def test_checkpoint_of_the_registry_shows_one_that_was_cut_back(config, issuer, base, tmp_path):
    one_call(config, issuer)
    shutil.copytree(base / "registry", tmp_path / "earlier")
    one_call(config, issuer)
    note = tmp_path / "note"
    shutil.copy(base / "registry" / "checkpoint", note)
    command("verify", base, "--checkpoint", note)
    shutil.rmtree(base / "registry")
    (tmp_path / "earlier").rename(base / "registry")

    done = command("verify", base, "--checkpoint", note, check=False)

    assert done.returncode == 1
    assert "the log ends before the earlier checkpoint" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_of_a_fork_has_a_birth_of_its_own(config, issuer, base):
    script = textwrap.dedent("""
        import json, os, sys
        from mcp_fastguard import Guard, ToolRequest
        config, token = json.load(sys.stdin)
        with Guard.from_dict(config) as guard:
            guard.check(ToolRequest.direct(tool="run_query", token=token))
            child = os.fork()
            guard.check(ToolRequest.direct(tool="run_query", token=token))
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    given = json.dumps([config, issuer.token()])
    subprocess.run([sys.executable, "-c", script], input=given, text=True, check=True, timeout=60)

    born = [entry["log"] for entry in entries(base) if entry["event_type"] == "log_registered"]
    assert len(set(born)) == len(born) == 2
    assert [problem for *_, problem in verify_logs(base)] == [None] * 3


def test_show_and_merge_leave_the_registry_out_unless_it_is_asked_for(config, issuer, base):
    one_call(config, issuer)

    assert "log_registered" not in command("merge", base).stdout
    assert len(command("show", base, "--json").stdout.splitlines()) == 1
    assert "log_registered" in command("merge", base / "registry").stdout


def test_registry_that_cannot_be_told_of_an_end_is_said_and_the_log_is_sealed(config, issuer, base, caplog):
    guard = Guard.from_dict(config)
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    guard.flush()
    shutil.rmtree(base / "registry")
    (base / "registry").write_text("no folder")

    guard.close()

    assert "the registry was not told of its end, and the next start will" in caplog.text
    (base / "registry").unlink()
    [row] = verify_logs(base)
    assert row[3] == "sealed"


def test_every_entry_fits_the_schema(config, issuer, base):
    one_call(config, issuer)
    validator = Draft202012Validator(record_schema())

    found = entries(base)

    assert {entry["event_type"] for entry in found} == {"log_opened", "log_registered", "log_ended"}
    assert [error.message for entry in found for error in validator.iter_errors(entry)] == []


def test_registry_is_shipped_with_its_checkpoints(config, issuer, base, tmp_path):
    one_call(config, issuer)

    Shipper(base, ShipSettings("out", "file", path=tmp_path / "out")).drain()

    shipped = [
        json.loads(line) for file in (tmp_path / "out" / "registry").iterdir() for line in file.read_text().splitlines()
    ]
    assert {"log_registered", "log_ended", "checkpoint"} <= {record["event_type"] for record in shipped}


def test_calls_of_many_threads_before_the_birth_is_entered_are_all_recorded(config, issuer, base):
    config["limits"] = {"rules": [{"per": "principal", "quota": "100000/minute"}]}
    token = issuer.token()
    with Guard.from_dict(config) as guard:
        request = ToolRequest.direct(tool="run_query", token=token)
        threads = [threading.Thread(target=lambda: [guard.check(request) for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    [row] = [row for row in verify_logs(base) if row[0] != "registry"]
    # The first line, the decisions, and the seal.
    assert (row[1], row[4]) == (402, None)
