"""Witnesses: who signs the checkpoints of a log that has only grown (C2SP tlog-cosignature)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard._fastguard import cosign, cosigned_at, witness_key

NAME = "witness.example"


def command(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def log(make_guard, issuer):
    """A sealed log."""
    guard = make_guard()
    for _ in range(20):
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    guard.close()
    return guard.audit_folder


def key_of(log):
    return (log / "vkey").read_text().strip()


def test_checkpoint_is_signed_by_log_and_witness(log, tmp_path):
    before = int(time.time())

    note, records, since = cosign(log, key_of(log), NAME, tmp_path / "witness")

    assert (records, since) == (22, None)
    assert note.startswith((log / "checkpoint").read_text())
    assert before <= cosigned_at(note, witness_key(NAME, tmp_path / "witness")) <= time.time()
    with pytest.raises(ValueError, match="not signed by this witness"):
        cosigned_at(note, witness_key(NAME, tmp_path / "another"))


def test_log_that_has_grown_is_signed_again(make_guard, config, issuer, tmp_path):
    guard = make_guard(audit={"path": config["audit"]["path"], "checkpoint_records": 1})

    def grown():
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
        guard.flush()

    grown()
    log = guard.audit_folder
    _, first, _ = cosign(log, key_of(log), NAME, tmp_path / "witness")
    for _ in range(300):
        grown()
    guard.close()

    _, records, since = cosign(log, key_of(log), NAME, tmp_path / "witness")

    assert (since, records) == (first, 303)


def test_another_log_under_the_name_of_one_that_was_signed_is_not(config, issuer, tmp_path):
    """The same key, the same name, another past: what a witness is for."""

    def written(folder, count):
        tables = {**config, "audit": {"path": str(folder), "key_file": str(tmp_path / "signing.key")}}
        with Guard.from_dict(tables) as guard:
            for _ in range(count):
                guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
        return guard.audit_folder

    one, other = written(tmp_path / "one", 5), written(tmp_path / "other", 9)
    key = key_of(one)
    cosign(one, key, NAME, tmp_path / "witness")
    [memory] = (tmp_path / "witness").glob("*.note")
    # Whoever has the key of the log can sign any past under its name; here the witness remembers the other log.
    note = memory.read_text()
    cosign(other, key, NAME, tmp_path / "witness")
    [forged] = [file for file in (tmp_path / "witness").glob("*.note") if file != memory]
    forged.write_text(note)

    with pytest.raises(ValueError, match="written anew, or forked"):
        cosign(other, key, NAME, tmp_path / "witness")


def test_older_checkpoint_is_not_signed(make_guard, config, issuer, tmp_path):
    guard = make_guard(audit={"path": config["audit"]["path"], "checkpoint_records": 1})
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    guard.flush()
    log, old = guard.audit_folder, tmp_path / "old"
    shutil.copytree(log, old)
    guard.close()
    cosign(log, key_of(log), NAME, tmp_path / "witness")

    with pytest.raises(ValueError, match="older than the one that this witness has signed"):
        cosign(old, key_of(log), NAME, tmp_path / "witness")


def test_key_of_a_witness_is_none_of_a_log(log, tmp_path):
    other = witness_key(NAME, tmp_path / "witness")

    with pytest.raises(ValueError, match="not a public key"):
        cosign(log, other, NAME, tmp_path / "witness")


def test_commands_cosign_and_verify_demands_the_witness(log, tmp_path):
    memory = ("--name", NAME, "--witness", tmp_path / "witness")
    (tmp_path / "key").write_text(key_of(log))
    done = command("cosign", log, "--key", tmp_path / "key", *memory)
    assert "22 records, seen for the first time" in done.stderr
    note, witness = tmp_path / "note", tmp_path / "witness.pub"
    note.write_text(done.stdout)
    witness.write_text(command("witness-key", *memory).stdout)

    told = command("verify", log, "--key", tmp_path / "key", "--checkpoint", note, "--witness", witness).stdout
    assert "signed by the witness at " in told
    assert "22 records, sealed" in told

    plain = log / "checkpoint"
    refused = command("verify", log, "--checkpoint", plain, "--witness", witness, code=1)
    assert "not signed by this witness" in refused.stderr
    assert "name one by --checkpoint" in command("verify", log, "--witness", witness, code=1).stderr
