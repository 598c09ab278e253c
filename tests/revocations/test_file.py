"""Revocations that a watched file tells."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import warnings

import pytest

from mcp_fastguard import Guard
from mcp_fastguard.errors import Denied, GuardConfigError
from mcp_fastguard.revocations import Entry, EntryError
from mcp_fastguard.revocations.entry import MAX_ENTRY_BYTES
from mcp_fastguard.revocations.file import EntryFile, append
from revocation_support import SOON, ask, becomes, code
from support import ISSUER, RESOURCE, records


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "revocations.jsonl"
    found.touch()
    return found


@pytest.fixture
def guard(make_guard, file):
    return make_guard(revocations={"file": str(file)})


def test_entry_that_is_appended_hits_soon_and_is_recorded(guard, file, issuer):
    alice, bob = ask(issuer), ask(issuer, sub="bob")
    assert (code(guard, alice), code(guard, bob)) == ("allowed", "allowed")

    append(file, Entry.revoke(subject="alice", issuer=ISSUER, reason="left the company"))

    assert becomes("token_revoked", guard, alice)
    assert code(guard, bob) == "allowed"
    (noted,) = records(guard, "revoked")
    assert noted["subject"] == "alice"


def test_what_stands_there_at_the_start_hits_the_first_call(make_guard, file, issuer):
    append(file, Entry.revoke(subject="alice"))
    guard = make_guard(revocations={"file": str(file)})

    assert code(guard, ask(issuer, iat=int(time.time()) - 5)) == "token_revoked"


def test_block_and_its_ending(guard, file, issuer):
    request = ask(issuer)
    append(file, Entry("block", time.time(), tool="add"))
    assert becomes("blocked", guard, request)
    append(file, Entry("unblock", time.time(), tool="add"))
    assert becomes("allowed", guard, request)


def test_older_word_on_the_same_lifts_no_block(guard, file, issuer):
    now = time.time()
    append(file, Entry("block", now, tool="add"))
    append(file, Entry("unblock", now - 60, tool="add"))
    assert becomes("blocked", guard, ask(issuer))
    time.sleep(0.6)
    assert code(guard, ask(issuer)) == "blocked"


def test_line_without_its_end_waits_for_it(guard, file, issuer):
    line = Entry.revoke(subject="alice").text()
    request = ask(issuer)
    code(guard, request)
    with file.open("ab") as opened:
        opened.write(line[:20])
        opened.flush()
        time.sleep(0.6)
        assert code(guard, request) == "allowed"
        opened.write(line[20:] + b"\n")
    assert becomes("token_revoked", guard, request)


@pytest.mark.parametrize(
    "garbage",
    [b"{", b"[]", b'{"act": "revoke"}', b'{"act": "forget", "at": 1, "subject": "a"}', b"\xff\xfe", b"x" * 100_000],
)
def test_line_that_is_none_is_told_and_stops_no_other(guard, file, issuer, garbage, caplog):
    file.write_bytes(garbage + b"\n" + Entry.revoke(subject="alice").text() + b"\n")

    assert becomes("token_revoked", guard, ask(issuer, iat=int(time.time()) - 5))

    told = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(told) == 1
    assert ":1: " in told[0]


def test_file_that_was_replaced_is_read_anew(guard, file, issuer, tmp_path):
    append(file, Entry.revoke(subject="bob"))
    old = int(time.time()) - 5
    assert becomes("token_revoked", guard, ask(issuer, sub="bob", iat=old))
    other = tmp_path / "other"
    append(other, Entry.revoke(subject="alice"))
    other.replace(file)

    assert becomes("token_revoked", guard, ask(issuer, iat=old))
    # What held goes on to hold.
    assert code(guard, ask(issuer, sub="bob", iat=old)) == "token_revoked"


def test_f29_without_the_file_nothing_passes_once_it_is_too_long_ago(make_guard, tmp_path, issuer, caplog):
    file = tmp_path / "revocations.jsonl"
    guard = make_guard(revocations={"file": str(file), "max_staleness": "2s"})

    with pytest.raises(Denied) as denied:
        guard.check(ask(issuer))
    assert (denied.value.code, denied.value.status, denied.value.retry_after) == ("revocations_stale", 503, 1.0)
    assert "revocations are not heard: file: No such file" in caplog.text

    file.touch()
    assert becomes("allowed", guard, ask(issuer))
    file.unlink()
    assert becomes("revocations_stale", guard, ask(issuer), within=6)
    file.touch()
    assert becomes("allowed", guard, ask(issuer))


def test_by_choice_what_is_known_goes_on_to_count(make_guard, tmp_path, issuer):
    guard = make_guard(revocations={"file": str(tmp_path / "missing"), "on_stale": "continue"})

    assert code(guard, ask(issuer)) == "allowed"


def test_reload_follows_another_file_and_the_end_ends_the_thread(tmp_path, issuer):
    one, two, config = (tmp_path / name for name in ("one", "two", "fastguard.toml"))
    one.touch()
    two.touch()
    jwks = json.dumps(issuer.jwks)

    def write(file):
        config.write_text(f"""
            version = 1
            resource.url = "{RESOURCE}"
            issuers = [{{ issuer = "{ISSUER}", jwks = '{jwks}', algorithms = ["ES256"] }}]
            tools.add.open = true
            audit.path = "{tmp_path / "audit"}"
            revocations.file = "{file}"
        """)

    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "fastguard-revocations"]

    write(one)
    old = int(time.time()) - 5
    guard = Guard.from_file(config)
    assert code(guard, ask(issuer)) == "allowed"
    assert len(threads()) == 1
    write(two)
    guard.reload()
    append(two, Entry.revoke(subject="alice"))
    assert becomes("token_revoked", guard, ask(issuer, iat=old))
    guard.close()
    assert threads() == []


def test_entries_say_what_is_wrong_with_them():
    for text in [
        b"",
        b"null",
        b'{"act":"revoke","at":1}',
        b'{"act":"revoke","at":1,"issued_before":2}',
        b'{"act":"revoke","at":1,"tool":"x"}',
        b'{"act":"block","at":1,"session":"x"}',
        b'{"act":"unblock","at":1,"tool":"x","until":3}',
        b'{"act":"revoke","at":"1","subject":"x"}',
        b'{"act":"revoke","at":true,"subject":"x"}',
        b'{"act":"revoke","at":1,"subject":""}',
        b'{"act":"revoke","at":1,"subject":"x","subject":"y"}',
        b'{"act":"revoke","at":1,"subject":"x","other":"y"}',
        b'{"act":"revoke","at":NaN,"subject":"x"}',
        b"[" * 50_000,
    ]:
        with pytest.raises(EntryError):
            Entry.of(text)
    entry = Entry.revoke(subject="ä", reason="so")
    assert Entry.of(entry.text()) == entry
    assert entry.issued_before > entry.at


@pytest.mark.parametrize(
    "named",
    [
        {"subject": ""},
        {"subject": "\udcff"},
        {"subject": 7},
        {"subject": "x" * MAX_ENTRY_BYTES},
        {"subject": "x", "issued_before": math.nan},
        {"subject": "x", "issued_before": -1.0},
        {"subject": "x", "issued_before": True},
        {"subject": "x", "reason": "r" * MAX_ENTRY_BYTES},
    ],
)
def test_entry_that_nobody_could_read_is_not_made(named):
    with pytest.raises(EntryError):
        Entry.revoke(**named)


def test_entry_names_an_administrator_only_where_a_proof_does():
    with pytest.raises(EntryError, match="by itself"):
        Entry.make("revoke", subject="alice", admin_issuer=ISSUER)
    with pytest.raises(EntryError, match="of no issuer"):
        Entry("block", 1.0, tool="add", admin_subject="root")


def test_line_of_the_file_that_names_an_administrator_is_no_entry(file, make_guard, issuer, caplog):
    guard = make_guard(revocations={"file": str(file)})
    framed = Entry("block", time.time(), tool="add", admin_issuer=ISSUER, admin_subject="root")
    file.write_bytes(framed.text() + b"\n" + Entry("block", time.time(), tool="sub").text() + b"\n")

    assert becomes("blocked", guard, ask(issuer, tool="sub"))
    assert code(guard, ask(issuer)) == "allowed"
    assert "has one that is not known; the line is passed over" in caplog.text


def test_configuration_that_says_nothing_is_refused(config):
    for table, key in [
        ({}, "revocations"),
        ({"file": ""}, "revocations.file"),
        ({"shared": True}, "revocations.shared"),
        ({"file": "x", "max_staleness": "1s"}, "revocations.max_staleness"),
    ]:
        with pytest.raises(GuardConfigError, match=key):
            Guard.from_dict({**config, "revocations": table})


def test_guard_without_the_table_starts_no_thread(make_guard, issuer):
    guard = make_guard()
    guard.start()
    assert code(guard, ask(issuer)) == "allowed"
    assert not [thread for thread in threading.enumerate() if thread.name == "fastguard-revocations"]


def test_figures_tell_what_is_in_force_and_since_when_nothing_was_heard(guard, file, issuer):
    append(file, Entry.revoke(subject="alice"))
    assert becomes("token_revoked", guard, ask(issuer, iat=int(time.time()) - 5))

    assert dict(guard.gate.statistics())["revocations"] == 1
    assert 0 <= guard.state_status()["heard"]["file"] < SOON


def test_listener_or_a_reload_keeps_no_guard_from_learning(make_guard, file, issuer):
    guard = make_guard(revocations={"file": str(file)})
    guard.on_decision(lambda _: None)

    assert code(guard, ask(issuer)) == "allowed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_f18_fork_waits_for_a_step_of_the_thread_so_that_no_lock_is_copied_held(make_guard, file, issuer, monkeypatch):
    lock, is_held = threading.Lock(), threading.Event()
    look = EntryFile.look

    def slow(self):
        # As an import or the reading of certificates does: all in one step, and not at once.
        with lock:
            is_held.set()
            threading.Event().wait(0.2)
        look(self)

    guard = make_guard(revocations={"file": str(file)})
    assert code(guard, ask(issuer)) == "allowed"
    monkeypatch.setattr(EntryFile, "look", slow)
    assert is_held.wait(10)
    with warnings.catch_warnings():
        # From 3.12 every fork of a process with threads warns, which is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    request = ask(issuer)
    append(file, Entry.revoke(subject="alice", issuer=ISSUER))
    assert becomes("token_revoked", guard, request)
