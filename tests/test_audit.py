"""Room `audit`: the log under forks, full disks, kills and edits."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mcp_fastguard import Denied, Guard, GuardFault, ToolRequest
from mcp_fastguard._fastguard import verify_log
from mcp_fastguard.audit import record_schema
from mcp_fastguard.transport.challenge import http_answer, rpc_error
from support import records


def request(token, tool="run_query", **arguments):
    return ToolRequest.direct(tool=tool, arguments=arguments, token=token)


def test_sealed_log_verifies_and_every_edit_shows(make_guard, issuer):
    guard = make_guard()
    for n in range(5):
        guard.check(request(issuer.token(), sql=f"select {n}"))
    guard.close()
    log = guard.audit_folder
    count, root, is_sealed, problem = verify_log(log)
    assert (count, is_sealed, problem) == (7, True, None)
    assert len(root) == 64

    file = next(log.glob("*.jsonl"))
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    edits = [
        whole.replace(b"select 3", b"select 4"),
        b"".join(lines[:2] + lines[3:]),
        b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        whole + lines[1],
    ]
    file.chmod(0o600)
    for edited in edits:
        file.write_bytes(edited)
        assert verify_log(log)[3] is not None


def test_values_are_recorded_only_where_the_rule_says_so(guard, issuer):
    guard.check(request(issuer.token(), sql="select 1", password="hunter2"))

    (found,) = records(guard)
    assert found["input_params"]["sql"] == "select 1"
    assert set(found["input_params"]["password"]) == {"hash", "type", "length"}
    assert "hunter2" not in json.dumps(found)


def test_record_of_a_refusal_names_room_code_and_checks(guard, issuer):
    with pytest.raises(Denied):
        guard.check(request(issuer.token(), "secret"))

    (found,) = records(guard)
    assert (found["result"], found["room"], found["code"]) == ("denied", "policy", "scope_insufficient")
    assert found["checks"] == {
        "request": "passed",
        "token": "passed",
        "binding": "passed",
        "limits": "passed",
        "policy": "refused",
        "approval": "not_reached",
    }
    assert found["policy"] == guard.gate.policy_digest
    assert found["enforced"] is True


def test_child_of_a_fork_writes_a_log_of_its_own(guard, issuer):
    guard.check(request(issuer.token()))
    token = issuer.token()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            guard.check(request(token))
            guard.flush()
            os.write(writing, str(guard.audit_folder).encode())
            guard.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    other = Path(os.read(reading, 4096).decode())
    assert other != guard.audit_folder
    assert verify_log(other)[2:] == (True, None)
    guard.check(request(issuer.token()))
    assert len(records(guard)) == 2


def test_full_disk_refuses_calls_and_says_so(issuer, config, tmp_path):
    """A limit on the size of files stands for a full disk: writes end short, as they do there."""
    script = textwrap.dedent("""
        import json, resource, signal, sys, time
        from mcp_fastguard import Guard, GuardFault, ToolRequest
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        config, token = json.load(sys.stdin)
        guard = Guard.from_dict(config)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                guard.check(ToolRequest.direct(tool="run_query", token=token))
            except GuardFault as fault:
                print(fault.code)
                break
            time.sleep(0.001)
    """)
    config["limits"] = {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}
    given = json.dumps([config, issuer.token()])
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "audit_failed", done.stderr


def test_folder_that_cannot_be_made_stops_the_start(config, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    config["audit"]["path"] = str(file / "audit")
    with pytest.raises(GuardFault) as fault:
        Guard.from_dict(config)
    assert fault.value.code == "audit_failed"


def test_log_of_a_killed_process_verifies_and_is_sealed_by_the_next_guard(issuer, config, caplog):
    script = textwrap.dedent("""
        import json, sys
        from mcp_fastguard import Guard, GuardFault, ToolRequest
        config, token = json.load(sys.stdin)
        guard = Guard.from_dict(config)
        print(guard.audit_folder, flush=True)
        while True:
            try:
                guard.check(ToolRequest.direct(tool="run_query", token=token))
            except GuardFault:
                pass
    """)
    config["limits"] = {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps([config, issuer.token()]))
    process.stdin.close()
    log = Path(process.stdout.readline().strip())
    until = time.monotonic() + 20
    while (
        not (list(log.glob("*.jsonl")) and next(log.glob("*.jsonl")).stat().st_size > 100_000)
        and time.monotonic() < until
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    count, _, is_sealed, problem = verify_log(log)
    assert count > 50
    assert (is_sealed, problem) == (False, None)

    with caplog.at_level("WARNING", logger="mcp_fastguard"):
        Guard.from_dict(config).close()

    assert f"audit log {log.name}: its process ended without a seal: repaired" in caplog.text
    assert verify_log(log)[2:] == (True, None)
    assert verify_log(log)[0] > count


def test_edited_log_without_a_seal_is_left_and_said(issuer, config, make_guard, tmp_path, caplog):
    guard = make_guard(audit={**config["audit"], "checkpoint_records": 1})
    guard.check(request(issuer.token(), sql="select 1"))
    guard.flush()
    other = tmp_path / "other"
    log = other / guard.audit_folder.name
    until = time.monotonic() + 10
    while not (guard.audit_folder / "checkpoint").is_file():
        assert time.monotonic() < until
        time.sleep(0.01)
    shutil.copytree(guard.audit_folder.parent, other)
    file = log / "000001.jsonl"
    file.write_bytes(file.read_bytes().replace(b"select 1", b"select 2"))
    edited = file.read_bytes()

    with caplog.at_level("WARNING", logger="mcp_fastguard"):
        make_guard(audit={**config["audit"], "path": str(other)})

    assert f"audit log {log.name}: not repaired" in caplog.text
    assert [record.levelname for record in caplog.records if log.name in record.message] == ["ERROR"]
    assert file.read_bytes() == edited
    assert fastguard("repair", "--config", _file(tmp_path, config, other)).returncode == 1


def _file(tmp_path, config, audit):
    """A configuration whose logs lie in ``audit``, as a file."""
    file = tmp_path / "fastguard.toml"
    file.write_text(
        f'version = 1\n[resource]\nurl = "{config["resource"]["url"]}"\n[[issuers]]\nissuer = "https://auth.example.com"\n'
        f'algorithms = ["ES256"]\n[tools.run_query]\nopen = true\n[audit]\npath = "{audit}"\n'
    )
    return file


def test_command_repairs_a_log_whose_process_is_gone(issuer, config, make_guard, tmp_path):
    guard = make_guard()
    guard.check(request(issuer.token()))
    guard.flush()
    other = tmp_path / "other"
    shutil.copytree(guard.audit_folder.parent, other)
    table = _file(tmp_path, config, other)

    done = fastguard("repair", "--config", table)

    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"{guard.audit_folder.name}: its process ended without a seal: repaired, 5 records, 0 bytes cut" in done.stdout
    )
    assert verify_log(other / guard.audit_folder.name)[2:] == (True, None)
    files = sorted((other / guard.audit_folder.name).glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert [line["event_type"] for line in map(json.loads, lines[-2:])] == ["recovered", "log_sealed"]
    assert not list(Draft202012Validator(record_schema()).iter_errors(json.loads(lines[-2])))
    assert "every log has its seal" in fastguard("repair", "--config", table).stdout


def test_refusals_of_strangers_never_stop_known_callers(make_guard, issuer, config):
    guard = make_guard(audit={**config["audit"], "unverified_bytes_per_minute": 2_000})
    for n in range(5_000):
        with pytest.raises(Denied):
            guard.check(request(f"a.b.{n}"))

    assert guard.check(request(issuer.token()))
    guard.close()
    size = sum(file.stat().st_size for file in guard.audit_folder.glob("*.jsonl"))
    assert size < 20_000
    text = "".join(file.read_text() for file in guard.audit_folder.glob("*.jsonl"))
    assert "token_malformed" in text


def test_spawned_process_decides_for_itself(config, issuer):
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(_decide, (config, issuer.token())) == "alice"


def _decide(config, token):
    with Guard.from_dict(config) as guard:
        return guard.check(request(token)).subject


# --- checkpoints and proofs, by the command line --------------------------------------------------


def fastguard(*arguments):
    command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "300"})


@pytest.fixture
def written(make_guard, config, issuer):
    """A log of three calls, sealed: its folder, its public key, and the checkpoint that somebody kept after the first call."""
    guard = make_guard(audit={**config["audit"], "checkpoint_records": 1})
    guard.check(request(issuer.token(), sql="select 1"))
    guard.flush()
    log = guard.audit_folder
    until = time.monotonic() + 10
    while not (log / "checkpoint").is_file():
        assert time.monotonic() < until
        time.sleep(0.01)
    kept = (log / "checkpoint").read_text()
    for number in (2, 3):
        guard.check(request(issuer.token(), sql=f"select {number}"))
    guard.close()
    return log, (log / "vkey").read_text().strip(), kept


def test_log_verifies_against_the_key_and_a_checkpoint_that_was_kept(written, tmp_path):
    log, key, kept = written
    checkpoint = tmp_path / "kept"
    checkpoint.write_text(kept)

    done = fastguard("verify", log, "--key", key, "--checkpoint", checkpoint)

    assert (done.returncode, done.stderr) == (0, "")
    assert "sealed" in done.stdout


def test_log_that_was_written_anew_shows_against_the_checkpoint_alone(written, make_guard, config, issuer, tmp_path):
    log, key, kept = written
    checkpoint = tmp_path / "kept"
    # The log's own writer, with its key, could do this: the same size, other records.
    checkpoint.write_text(kept)
    [file] = log.glob("*.jsonl")
    other = make_guard(audit={**config["audit"], "checkpoint_records": 1})
    for number in range(3):
        other.check(request(issuer.token(), sql=f"select {number + 10}"))
    other.close()
    for name in ("checkpoint", file.name):
        (log / name).chmod(0o600)
        (log / name).write_bytes((other.audit_folder / name).read_bytes())

    assert fastguard("verify", log, "--key", key, "--checkpoint", checkpoint).returncode == 1


def test_checkpoint_of_another_key_is_refused(written, tmp_path):
    log, key, _ = written
    name, _, _ = key.split("+", 2)
    other = f"{name}+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

    done = fastguard("verify", log, "--key", other)

    assert done.returncode == 1


def test_record_is_proved_to_whoever_has_the_key_alone(written, tmp_path):
    log, key, _ = written
    lines = [json.loads(line) for line in next(log.glob("*.jsonl")).read_text().splitlines()]
    record = next(line for line in lines if line["event_type"] == "decision")
    proof = tmp_path / "record.tlog-proof"
    proof.write_text(fastguard("prove", record["id"], "--audit", log).stdout)

    done = fastguard("check-proof", proof, "--key", key)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == record

    for old, new in (("index ", "index 1"), ("extra ", "extra AAAA"), ("\n\n", "\n")):
        edited = tmp_path / "edited"
        edited.write_text(proof.read_text().replace(old, new, 1))
        assert fastguard("check-proof", edited, "--key", key).returncode == 1
    assert fastguard("prove", "20000101T000000-1-0000-1", "--audit", log).returncode == 1


@pytest.mark.parametrize("command", ["show", "verify"])
def test_folder_without_a_log_is_said(tmp_path, command):
    done = fastguard(command, tmp_path / "nowhere")

    assert done.returncode == 1
    assert "no log there" in done.stderr


def test_logs_are_merged_by_time_each_record_with_its_log(make_guard, config, issuer):
    guards = [make_guard(), make_guard(), make_guard()]
    for number in range(12):
        guards[number % 3].check(request(issuer.token(), sql=str(number)))
        time.sleep(0.002)
    for guard in guards:
        guard.close()

    done = fastguard("merge", config["audit"]["path"])

    merged = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["input_params"]["sql"] for record in merged if record["event_type"] == "decision"] == [
        str(number) for number in range(12)
    ]
    assert len(merged) == 12 + 3 * 2
    times = [record["timestamp"] for record in merged if record["event_type"] == "decision"]
    assert times == sorted(times)
    logs = {guard.audit_folder.name for guard in guards}
    assert {record["log"] for record in merged} == logs
    for log in logs:
        sequence = [record["seq"] for record in merged if record["log"] == log]
        assert sequence == list(range(6))


def test_log_that_is_not_whole_is_merged_only_when_asked(written):
    log, _, _ = written
    [file] = log.glob("*.jsonl")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"select 2", b"select 7"))

    refused = fastguard("merge", log)
    asked = fastguard("merge", log, "--unverified")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "not whole" in refused.stderr
    assert (asked.returncode, len(asked.stdout.splitlines())) == (0, 5)
    assert "are not those that it was written after" in asked.stderr


def test_refusal_can_be_quoted_by_the_id_of_its_record(guard, issuer):
    with pytest.raises(Denied) as denied:
        guard.check(ToolRequest.direct(tool="secret", token=issuer.token()))

    [record] = records(guard, "decision")
    assert denied.value.record_id == record["id"] == f"{guard.audit_folder.name}-{denied.value.record}"
    assert pickle.loads(pickle.dumps(denied.value)).record_id == record["id"]


def test_refusal_before_a_token_was_verified_names_no_record(guard):
    with pytest.raises(Denied) as denied:
        guard.check(ToolRequest.direct(tool="secret", token="a.b.c"))

    assert (denied.value.record, denied.value.record_id) == (None, None)


def test_call_that_is_allowed_can_be_quoted_too(guard, issuer):
    allowed = guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))

    assert guard.record_id(allowed) == records(guard, "decision")[0]["id"]


def test_client_learns_no_id_of_a_record(guard, issuer):
    with pytest.raises(Denied) as denied:
        guard.check(ToolRequest.direct(tool="secret", token=issuer.token()))

    assert denied.value.record_id not in str((rpc_error(denied.value), http_answer(denied.value, None)))
