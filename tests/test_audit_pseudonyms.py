"""Room `audit`: subjects as pseudonyms, whose keys can be destroyed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from audit_support import broad_run, lines_of, toml_of
from mcp_fastguard import Denied, Guard, GuardConfigError, GuardFault, ToolRequest
from mcp_fastguard._fastguard import Pseudonyms, verify_logs
from mcp_fastguard.audit import record_schema
from mcp_fastguard.config import GuardConfig
from support import ISSUER, records


@pytest.fixture
def hidden(config):
    return {**config, "audit": {**config["audit"], "pseudonyms": True}}


@pytest.fixture
def base(config):
    return Path(config["audit"]["path"])


def store(config):
    read = GuardConfig.from_dict(config)
    return Pseudonyms(read.text, folder=read.folder, file=read.file, is_json=read.is_json)


def called(guard, issuer, **claims):
    """A call; the pseudonym of its subject."""
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token(**claims), session="session-1"))
    return records(guard, "decision")[-1]["authenticated_identity"]["subject"]


def test_records_of_every_kind_name_no_subject(hidden, issuer, base):
    broad_run(hidden, issuer)

    told = [str(record) for record in lines_of(base)]
    personal = ("alice", "mallory", "root", "robot", "session-1")
    assert [line for line in told for name in personal if f": '{name}'" in line] == []
    assert [
        error.message
        for record in lines_of(base)
        for error in Draft202012Validator(record_schema()).iter_errors(record)
    ] == []
    assert [problem for *_, problem in verify_logs(base) if problem] == []


def test_pseudonym_is_one_subjects_own_in_every_log_of_a_place(hidden, issuer):
    with Guard.from_dict(hidden) as one, Guard.from_dict(hidden) as other:
        alice = called(one, issuer, sub="alice")
        assert called(other, issuer, sub="alice") == alice
        assert called(one, issuer, sub="bob") != alice

    assert alice == store(hidden).of(ISSUER, "alice")
    assert store(hidden).resolve(alice) == (ISSUER, "alice")
    assert store(hidden).of(ISSUER, "carol") is None


def test_what_is_alike_in_two_members_is_not_alike_in_the_record(hidden, issuer):
    with Guard.from_dict(hidden) as guard:
        token = issuer.token(sub="session-1", jti="session-1", act={"sub": "session-1"})
        guard.check(ToolRequest.direct(tool="run_query", token=token, session="session-1", peer="192.0.2.7"))
        [record] = records(guard, "decision")

    found = [
        record["authenticated_identity"]["subject"],
        *(record[name] for name in ("agent_id", "session", "token_id", "peer")),
    ]
    assert all(value.startswith("pseudonym:") for value in found)
    assert len(set(found)) == 5


def test_erasure_breaks_no_log_and_the_pseudonym_stands_for_nobody(hidden, issuer, base):
    with Guard.from_dict(hidden) as guard:
        before = called(guard, issuer)
        bob = called(guard, issuer, sub="bob")
        assert store(hidden).erase(ISSUER, "alice")

        assert store(hidden).resolve(before) is None
        # The guard runs on, and has had the key at hand.
        after = called(guard, issuer)

    assert after != before
    assert store(hidden).resolve(after) == (ISSUER, "alice")
    assert store(hidden).resolve(bob) == (ISSUER, "bob")
    assert not any(b"alice" in file.read_bytes() for file in base.rglob("*.jsonl"))
    assert [problem for *_, problem in verify_logs(base)] == [None, None]
    assert not store(hidden).erase(ISSUER, "carol")


def test_keys_are_private_and_their_names_say_nothing(hidden, issuer, base):
    with Guard.from_dict(hidden) as guard:
        called(guard, issuer)

    [file] = [file for file in (base / "subjects").rglob("*") if file.is_file()]
    assert file.stat().st_mode & 0o077 == 0
    assert "alice" not in str(file.relative_to(base))


def test_processes_that_see_a_subject_first_at_once_make_one_key(hidden, issuer):
    guards = [Guard.from_dict(hidden) for _ in range(8)]
    together, found = threading.Barrier(len(guards)), []

    def first(guard):
        together.wait(30)
        found.append(called(guard, issuer, sub="dave"))

    threads = [threading.Thread(target=first, args=(guard,)) for guard in guards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for guard in guards:
        guard.close()

    assert len(found) == 8
    assert set(found) == {store(hidden).of(ISSUER, "dave")}


def test_record_whose_subject_has_no_key_is_not_written_in_the_clear(hidden, issuer, base, tmp_path):
    (tmp_path / "a file").write_text("")
    hidden["audit"]["pseudonyms_path"] = str(tmp_path / "a file")
    guard = Guard.from_dict(hidden)
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))

    with pytest.raises(GuardFault) as failed:
        guard.flush()

    assert failed.value.code == "audit_failed"
    with pytest.raises(GuardFault):
        guard.close()
    assert not any(b"alice" in file.read_bytes() for file in base.rglob("*.jsonl"))


def test_refusal_of_a_subject_names_it_nowhere(hidden, issuer, base):
    hidden["issuers"][0] = {**hidden["issuers"][0], "denied_subjects": ["alice"]}
    with Guard.from_dict(hidden) as guard:
        with pytest.raises(Denied) as denied:
            guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
        assert denied.value.code == "subject_refused"
        [record] = records(guard, "decision")

    assert "alice" not in str(record)


def test_path_of_keys_without_pseudonyms_stops_the_start(config):
    config["audit"]["pseudonyms_path"] = "keys"

    with pytest.raises(GuardConfigError, match=r"audit\.pseudonyms_path"):
        Guard.from_dict(config)


def test_commands_find_and_erase_a_subject(hidden, issuer, tmp_path):
    with Guard.from_dict(hidden) as guard:
        pseudonym = called(guard, issuer)
    file = tmp_path / "fastguard.toml"
    file.write_text(toml_of(hidden))

    def command(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "mcp_fastguard.cli", "audit", *arguments, "--config", str(file)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert command("pseudonym", "alice", "--issuer", ISSUER).strip() == pseudonym
    assert command("resolve", pseudonym) == f"{ISSUER}\talice\n"
    assert "the key is destroyed" in command("erase", "alice", "--issuer", ISSUER, "--yes")
    command("resolve", pseudonym, code=1)
    command("pseudonym", "alice", "--issuer", ISSUER, code=1)
    command("erase", "alice", "--issuer", ISSUER, "--yes", code=1)
