"""Revocations that processes tell each other by a real server, and the commands that tell them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from admin_support import administrator, send, wanted
from mcp_fastguard import Guard
from mcp_fastguard.errors import GuardFault
from mcp_fastguard.revocations import Entry, RevocationSettings, feed
from mcp_fastguard.revocations.stream import EntryStream, StreamError
from revocation_support import SOON, ask, becomes, code
from support import ISSUER, RESOURCE, records

SECRET = "thirty-two bytes that all of them know"


@pytest.fixture
def server(own_server):
    return own_server


@pytest.fixture
def config_file(server, issuer, tmp_path):
    (tmp_path / "state.secret").write_text(SECRET)
    file = tmp_path / "fastguard.toml"
    file.write_text(f"""
        version = 1
        resource.url = "{RESOURCE}"
        issuers = [{{ issuer = "{ISSUER}", jwks = '{json.dumps(issuer.jwks)}', algorithms = ["ES256"] }}]
        tools.add.open = true
        limits.mode = "local"
        dpop.replays = "local"
        audit.path = "audit"
        state = {{ url = "redis://127.0.0.1:{server.port}", processes = 2, secret_file = "state.secret" }}
        revocations = {{ shared = true, max_staleness = "3s" }}
        admin.issuer = "{ISSUER}"
    """)
    return file


@pytest.fixture
def begun(config_file):
    command(config_file, "revocations", "init")


@pytest.fixture
def make_process(config_file):
    """Guards as in several processes: nothing but the server is between them."""
    guards = []

    def make():
        guards.append(Guard.from_file(config_file))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


def command(config_file, *arguments, status=0):
    """What the command says."""
    line = [sys.executable, "-m", "mcp_fastguard.cli", *arguments, "--config", str(config_file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "COLUMNS": "200"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def stream_of(config_file):
    from mcp_fastguard.config import GuardConfig

    settings = RevocationSettings.of(GuardConfig.from_file(config_file))
    assert settings is not None
    assert settings.store is not None
    return EntryStream(settings.store, settings.key)


def on_server(config_file, work):
    """Does something with the server that an operator, or an attacker, could."""

    async def whole():
        stream = stream_of(config_file)
        try:
            return await work(stream)
        finally:
            await stream.aclose()

    return asyncio.run(whole())


@pytest.mark.usefixtures("begun")
def test_f29_what_one_process_revokes_is_refused_by_all_within_a_second(make_process, issuer):
    one, two = make_process(), make_process()
    request = ask(issuer)
    assert (code(one, request), code(two, request)) == ("allowed", "allowed")

    one.revoke(subject="alice")

    assert code(one, request) == "token_revoked"
    assert becomes("token_revoked", two, request, within=1.0)
    # Once in each log, also where it was said.
    time.sleep(0.3)
    assert [len(records(guard, "revoked")) for guard in (one, two)] == [1, 1]


@pytest.mark.usefixtures("begun")
def test_f29_block_holds_everywhere_until_it_is_lifted_anywhere(make_process, issuer):
    one, two = make_process(), make_process()
    request = ask(issuer)
    code(two, request)
    one.block(tool="add")
    assert becomes("blocked", two, request)
    assert two.unblock(tool="add")
    assert becomes("allowed", one, request)
    assert code(two, request) == "allowed"


@pytest.mark.usefixtures("begun")
def test_act_of_an_administrator_is_recorded_everywhere_with_who_said_it(make_process, issuer):
    one, two = make_process(), make_process()
    request, token = ask(issuer, iat=int(time.time()) - 5), administrator(issuer)
    assert code(two, request) == "allowed"

    answer = send(one, token, wanted("revoke", {"subject": "alice", "reason": "laptop lost"}))
    assert answer.json()["result"]["reaches"] == "deployment"
    send(one, token, wanted("block", {"tool": "add"}))

    assert becomes("token_revoked", two, request)
    assert becomes("blocked", two, ask(issuer, sub="bob"))
    send(one, token, wanted("unblock", {"tool": "add"}))
    assert becomes("allowed", two, ask(issuer, sub="bob"))
    # One that begins later hears it, too.
    three = make_process()
    assert code(three, request) == "token_revoked"
    for guard in (one, two, three):
        acts = {act["event_type"]: act for act in records(guard, "revoked", "blocked", "unblocked")}
        assert set(acts) == {"revoked", "blocked", "unblocked"}
        for act in acts.values():
            assert (act["admin_issuer"], act["admin_subject"], act["admin_client_id"]) == (ISSUER, "root", "console")
            # Its number is of the log of the process that decided.
            assert ("admin_record" in act) == (guard is one)


@pytest.mark.usefixtures("begun")
def test_entry_without_who_said_it_is_still_read(make_process, config_file, issuer):
    guard = make_process()
    on_server(config_file, lambda stream: stream.add(Entry("block", time.time(), tool="add")))

    assert becomes("blocked", guard, ask(issuer))
    [act] = records(guard, "blocked")
    assert not [name for name in act if name.startswith("admin")]


@pytest.mark.usefixtures("begun")
def test_administrator_whose_name_leaves_no_room_is_left_out_and_the_act_told(make_process, issuer, caplog):
    one, two = make_process(), make_process()
    # Control characters take six bytes each in an entry, and one of the 2,048 that a name may have.
    token = administrator(issuer, sub="\x01" * 1_500)

    assert send(one, token, wanted("block", {"tool": "add"})).status_code == 200

    assert becomes("blocked", two, ask(issuer))
    assert "not of the administrator: the entry is too long" in caplog.text
    assert ["admin_issuer" in act for guard in (one, two) for act in records(guard, "blocked")] == [True, False]


@pytest.mark.usefixtures("begun")
def test_f29_process_that_comes_later_knows_what_was_said_before(make_process, issuer):
    request = ask(issuer)
    one = make_process()
    one.revoke(subject="alice")
    one.block(tool="add", until=time.time() + 600)
    two = make_process()
    assert code(two, request) == "token_revoked"
    assert code(two, ask(issuer, sub="bob")) == "blocked"


@pytest.mark.usefixtures("begun")
def test_commands_tell_running_guards(make_process, config_file, issuer):
    guard = make_process()
    old = int(time.time()) - 5
    alice, bob = ask(issuer, iat=old), ask(issuer, sub="bob", iat=old)
    assert code(guard, alice) == "allowed"

    said = command(config_file, "revoke", "--subject", "alice", "--issuer", ISSUER, "--reason", "lost laptop")
    assert "told by redis://127.0.0.1" in said
    assert becomes("token_revoked", guard, alice)
    assert code(guard, bob) == "allowed"
    command(config_file, "block", "--tool", "add", "--until", "2099-01-01")
    assert becomes("blocked", guard, bob)
    command(config_file, "unblock", "--tool", "add")
    assert becomes("allowed", guard, bob)


@pytest.mark.usefixtures("begun")
def test_commands_say_what_is_wrong(config_file, server, tmp_path):
    assert "names nothing" in command(config_file, "revoke", status=1)
    server.kill()
    assert "the server of [state]: " in command(config_file, "revoke", "--subject", "alice", status=1)
    other = tmp_path / "other.toml"
    other.write_text(f'version = 1\nresource.url = "{RESOURCE}"\n')
    assert "has no [revocations]" in command(other, "revoke", "--subject", "alice", status=1)


def test_f29_server_without_its_marker_lets_nothing_pass(make_process, config_file, server, issuer, caplog):
    guard = make_process()
    assert code(guard, ask(issuer)) == "revocations_stale"
    assert "run `fastguard revocations init`" in caplog.text
    assert "run `fastguard revocations init`" in command(config_file, "revoke", "--subject", "alice", status=1)

    assert "begun, with 0 entries" in command(config_file, "revocations", "init")
    assert becomes("allowed", guard, ask(issuer))

    # It loses what it knew.
    server.kill()
    server.start()
    assert becomes("revocations_stale", guard, ask(issuer), within=8)


@pytest.mark.usefixtures("begun")
def test_f29_server_that_is_away_for_a_while_is_heard_again(make_process, server, config_file, issuer, tmp_path):
    server.kill()
    server.start("--appendonly", "yes")
    command(config_file, "revocations", "init")
    one, two = make_process(), make_process()
    old = int(time.time()) - 5
    request, other = ask(issuer, iat=old), ask(issuer, sub="bob", iat=old)
    assert [becomes("allowed", guard, request) for guard in (one, two)]
    server.kill()

    # Said here, and told nobody: the operator learns so.
    with pytest.raises(GuardFault) as fault:
        one.revoke(subject="alice")
    assert fault.value.code == "revocation_untold"
    assert code(one, request) == "token_revoked"
    server.start("--appendonly", "yes")
    assert becomes("allowed", two, other, within=8)
    one.revoke(subject="alice")
    assert becomes("token_revoked", two, request)


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("attack", ["added", "changed", "taken out", "other secret"])
def test_f29_entries_that_nobody_with_the_secret_made_let_nothing_pass(
    make_process, config_file, issuer, attack, caplog
):
    guard = make_process()
    assert becomes("allowed", guard, ask(issuer))
    for name in ("one", "two", "three"):
        guard.revoke(subject=name)
    time.sleep(0.3)

    async def work(stream):
        found = await stream._redis.xrange(stream._stream)
        text = Entry("unblock", time.time(), tool="add").text()
        if attack == "added":
            await stream._redis.xadd(stream._stream, {"n": 4, "e": text, "m": b"0" * 64})
        elif attack == "other secret":
            other = EntryStream.__new__(EntryStream)
            other._key = b"another"
            tag = other._tag((await stream._read_epoch()).name, 4, text)
            await stream._redis.xadd(stream._stream, {"n": 4, "e": text, "m": tag})
        else:
            await stream._redis.delete(stream._stream)
            entries = [entry for _, entry in found]
            if attack == "changed":
                entries[1][b"e"] = entries[1][b"e"].replace(b"two", b"twx")
            else:
                del entries[1]
            for entry in entries:
                await stream._redis.xadd(stream._stream, entry)

    on_server(config_file, work)

    # A process that listens sees what is new, and one that begins sees it all.
    newcomer = make_process()
    until = time.monotonic() + SOON
    while "was taken out, changed, or added without the secret" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert code(newcomer, ask(issuer)) == "revocations_stale"


@pytest.mark.usefixtures("begun")
def test_f29_new_epoch_keeps_what_still_counts_and_running_guards_follow(make_process, config_file, issuer):
    guard = make_process()
    guard.revoke(subject="alice")
    guard.block(tool="add")
    old = Entry("revoke", time.time() - 40 * 86_400, subject="old", issued_before=time.time() - 40 * 86_400)
    on_server(config_file, lambda stream: stream.add(old))
    time.sleep(0.3)

    assert "begun, with 2 entries" in command(config_file, "revocations", "init")

    newcomer = make_process()
    old_token = ask(issuer, iat=int(time.time()) - 30)
    assert code(newcomer, old_token) == "token_revoked"
    newcomer.revoke(subject="bob")
    assert becomes("blocked", guard, ask(issuer, sub="carol"))
    guard.unblock(tool="add")
    assert becomes("token_revoked", guard, ask(issuer, sub="bob", iat=int(time.time()) - 30))


@pytest.mark.usefixtures("begun")
def test_many_who_speak_at_once_are_all_heard(make_process, config_file, issuer):
    async def work(stream):
        streams = [stream, *(stream_of(config_file) for _ in range(3))]
        try:
            await asyncio.gather(*(one.add(Entry.revoke(subject=f"s{at}")) for at, one in enumerate(streams)))
        finally:
            for one in streams[1:]:
                await one.aclose()

    on_server(config_file, work)
    guard = make_process()
    old = int(time.time()) - 30
    assert [code(guard, ask(issuer, sub=f"s{at}", iat=old)) for at in range(4)] == ["token_revoked"] * 4


def test_stream_that_is_full_says_so(config_file, begun, monkeypatch):
    monkeypatch.setattr("mcp_fastguard.revocations.stream.MOST_ENTRIES", 2)

    async def work(stream):
        for number in range(2):
            await stream.add(Entry.revoke(subject=f"s{number}"))
        with pytest.raises(StreamError, match="is full"):
            await stream.add(Entry.revoke(subject="s3"))

    on_server(config_file, work)


@pytest.mark.usefixtures("begun")
def test_f29_child_process_listens_by_itself(make_process, config_file, issuer):
    guard = make_process()
    request = ask(issuer, iat=int(time.time()) - 5)
    assert code(guard, request) == "allowed"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            first = code(guard, request)
            os.write(write, b"ready")
            until = time.monotonic() + 5
            while code(guard, request) != "token_revoked" and time.monotonic() < until:
                time.sleep(0.02)
            os.write(write, f"{first} {code(guard, request)}".encode())
        finally:
            os._exit(0)
    assert os.read(read, 5) == b"ready"
    command(config_file, "revoke", "--subject", "alice")
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"allowed token_revoked"
    os.close(read)
    os.close(write)
    assert becomes("token_revoked", guard, request)


def test_guard_that_is_closed_ends_its_thread_though_the_client_of_the_server_took_that_for_a_timeout(
    make_process, monkeypatch
):
    follows = threading.Event()

    async def follow(_stream, _apply, _heard):
        follows.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As redis-py 8.1 does now and then.
            raise TimeoutError from None

    monkeypatch.setattr(EntryStream, "follow", follow)
    monkeypatch.setattr(feed, "FIRST_LOOK", 0.0)
    guard = make_process()
    guard.start()
    assert follows.wait(SOON)
    thread = guard._outside.feed._thread
    guard.close()
    assert not thread.is_alive()


def test_connections_are_closed_though_whoever_closes_them_is_cancelled(config_file):
    async def walk():
        stream = stream_of(config_file)
        goes_on, closed = asyncio.Event(), []
        close = stream._redis.aclose

        async def slowly():
            await goes_on.wait()
            await close()
            closed.append(True)

        stream._redis.aclose = slowly
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        asyncio.get_running_loop().call_soon(goes_on.set)
        with pytest.raises(asyncio.CancelledError):
            await closing
        return closed

    assert asyncio.run(walk()) == [True]
