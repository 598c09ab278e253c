"""Proofs of possession that several processes remember together, by a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from joserfc.jwk import OKPKey

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.client import RequestSigner
from mcp_fastguard.errors import BindingDenied, GuardConfigError, GuardFault, LimitDenied
from proof_support import Holder
from shared_limits_support import run, state_of
from support import RESOURCE, records

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'


@pytest.fixture
def server(own_server):
    return own_server


@pytest.fixture
def tables(config, tmp_path):
    """The configuration of one process of several."""

    def make(server, number, **tables):
        return {
            **config,
            "state": state_of(tmp_path, f"redis://127.0.0.1:{server.port}"),
            "limits": {"mode": "local", "rules": [{"per": "everyone", "quota": "1000000/minute"}]},
            "audit": {"path": str(tmp_path / f"audit-{number}")},
            **tables,
        }

    return make


@pytest.fixture
def make_process(tables):
    """Guards as in several processes."""
    guards = []

    def make(server, **changes):
        guards.append(Guard.from_dict(tables(server, len(guards), **changes)))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


def http(token, proof):
    headers = [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]
    return ToolRequest.http(method="POST", path="/mcp", headers=headers, body=BODY)


async def outcome(guard, request):
    try:
        await guard.authorize(request)
    except (BindingDenied, LimitDenied) as denied:
        return denied.code
    return "allowed"


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def token(issuer, holder):
    return issuer.token(cnf=holder.confirmation)


def test_proof_passes_once_in_all_processes_together(make_process, server, holder, token):
    one, two = make_process(server), make_process(server)
    proof, other = holder.proof(token), holder.proof(token)

    async def walk():
        first = [await outcome(guard, http(token, proof)) for guard in (one, two, one, two)]
        return first, await outcome(two, http(token, other))

    found, after = run(walk(), one, two)

    assert found == ["allowed", *["proof_replayed"] * 3]
    assert after == "allowed"
    assert [record.get("code") for record in records(two, "decision")] == ["proof_replayed"] * 2 + [None]


def test_proof_at_several_processes_at_once_passes_at_one(make_process, server, holder, token):
    guards = [make_process(server) for _ in range(4)]
    proofs = [holder.proof(token) for _ in range(50)]

    async def walk():
        found = []
        # A few at a time: each of them waits for a second at most, on a busy machine too.
        for begin in range(0, len(proofs), 5):
            some = proofs[begin : begin + 5]
            found += await asyncio.gather(*(outcome(guard, http(token, proof)) for proof in some for guard in guards))
        return found

    found = run(walk(), *guards)

    assert sorted(set(found)) == ["allowed", "proof_replayed"]
    for at in range(len(proofs)):
        assert found[at * 4 : at * 4 + 4].count("allowed") == 1


def test_refused_proof_is_charged_nowhere(make_process, server, holder, token):
    limits = {"rules": [{"per": "principal", "quota": "2/minute"}]}
    one, two = (make_process(server, limits=limits) for _ in range(2))
    proof = holder.proof(token)

    async def walk():
        found = [await outcome(one, http(token, proof)), *[await outcome(two, http(token, proof)) for _ in range(5)]]
        found.append(await outcome(two, http(token, holder.proof(token))))
        return [*found, await outcome(two, http(token, holder.proof(token)))]

    assert run(walk(), one, two) == ["allowed", *["proof_replayed"] * 5, "allowed", "quota_spent"]


def test_server_that_is_away_refuses_proofs_whatever_limits_degrade_to(make_process, server, holder, issuer, token):
    limits = {"degrade": "local", "rules": [{"per": "principal", "quota": "10/minute"}]}
    guard = make_process(server, limits=limits)
    server.kill()

    async def walk():
        with pytest.raises(BindingDenied) as denied:
            await guard.authorize(http(token, holder.proof(token)))
        # A call without a proof asks nobody whether it is new.
        bearer = ToolRequest.direct(tool="add", arguments={}, token=issuer.token())
        return denied.value, await outcome(guard, bearer)

    denied, bearer = run(walk(), guard)

    assert (denied.code, denied.retry_after) == ("replays_unavailable", 1.0)
    assert bearer == "allowed"


def test_server_that_hangs_refuses_proofs_and_takes_them_again_when_it_answers(make_process, server, holder, token):
    """Half of a connection is as bad as none: the budget of an operation decides, never a timeout of TCP."""
    guard = make_process(server)

    async def walk():
        found = [await outcome(guard, http(token, holder.proof(token)))]
        server.signal(signal.SIGSTOP)
        found.append(await outcome(guard, http(token, holder.proof(token))))
        server.signal(signal.SIGCONT)
        until = time.monotonic() + 20
        while (last := await outcome(guard, http(token, holder.proof(token)))) != "allowed":
            assert (last, time.monotonic() < until) == ("replays_unavailable", True)
            await asyncio.sleep(0.05)
        return found

    assert run(walk(), guard) == ["allowed", "replays_unavailable"]


def test_server_that_forgets_under_pressure_remembers_no_proofs_for_us(make_process, server, holder, token, caplog):
    server.kill()
    server.start("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    guard = make_process(server)

    assert run(outcome(guard, http(token, holder.proof(token))), guard) == "replays_unavailable"
    assert "its maxmemory-policy is allkeys-lru" in caplog.text


def test_flushed_scripts_are_sent_again(make_process, server, holder, token):
    guard = make_process(server)

    async def walk():
        first = await outcome(guard, http(token, holder.proof(token)))
        store = next(iter(guard._outside.deployment._loops.values())).store
        await store._redis.script_flush()
        return first, await outcome(guard, http(token, holder.proof(token)))

    assert run(walk(), guard) == ("allowed", "allowed")


def test_proof_is_remembered_as_long_as_it_could_be_used(make_process, server, holder, token):
    guard = make_process(server, dpop={"max_age": "60s"}, tokens={"leeway": "10s"})

    async def walk():
        await outcome(guard, http(token, holder.proof(token)))
        store = next(iter(guard._outside.deployment._loops.values())).store
        (name,) = await store._redis.keys("*")
        return name, await store._redis.pttl(name)

    name, left = run(walk(), guard)

    assert name.startswith(b"{fastguard}:proof:")
    # From either end of the window: twice 70 s.
    assert 135_000 < left <= 140_000


def test_check_cannot_ask_other_processes(make_process, server, holder, issuer, token):
    guard = make_process(server)

    with pytest.raises(GuardFault) as fault:
        guard.check(http(token, holder.proof(token)))

    assert fault.value.code == "needs_authorize"
    # One without a proof can be decided at once.
    assert guard.check(ToolRequest.direct(tool="add", arguments={}, token=issuer.token())).subject == "alice"


def test_processes_agree_on_nonces_by_the_secret_of_the_store(make_process, server, holder, token):
    one, two = (make_process(server, dpop={"nonce": "required"}) for _ in range(2))

    async def walk():
        with pytest.raises(BindingDenied) as denied:
            await one.authorize(http(token, holder.proof(token)))
        proof = holder.proof(token, nonce=denied.value.nonce)
        return await outcome(two, http(token, proof))

    assert run(walk(), one, two) == "allowed"


def test_process_keeps_its_own_where_the_configuration_says_so(make_process, server, holder, token):
    one, two = (make_process(server, dpop={"replays": "local"}) for _ in range(2))
    proof = holder.proof(token)

    async def walk():
        return [await outcome(guard, http(token, proof)) for guard in (one, two, one)]

    assert run(walk(), one, two) == ["allowed", "allowed", "proof_replayed"]


def test_shared_proofs_need_a_server(config):
    with pytest.raises(GuardConfigError, match=r"dpop\.replays"):
        Guard.from_dict({**config, "dpop": {"replays": "shared"}})


_WORKER = """
import asyncio, json, sys
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import BindingDenied

task = json.load(sys.stdin)

async def work():
    guard = Guard.from_dict(task["config"])
    passed = []
    async def one(at, proof):
        headers = [(b"authorization", b"DPoP " + task["token"].encode()), (b"dpop", proof.encode())]
        request = ToolRequest.http(method="POST", path="/mcp", headers=headers, body=task["body"].encode())
        try:
            await guard.authorize(request)
            passed.append(at)
        except BindingDenied as denied:
            assert denied.code == "proof_replayed", denied.code
    for begin in range(0, len(task["proofs"]), 16):
        await asyncio.gather(*(one(at, task["proofs"][at]) for at in range(begin, min(begin + 16, len(task["proofs"])))))
    await guard.aclose()
    print(json.dumps(passed))

asyncio.run(work())
"""


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_two_processes_given_the_same_proofs_take_each_once(tables, server, holder, token, count):
    now = time.time()
    proofs = [holder.proof(token, now=now) for _ in range(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # One principal holds 1/64 of a process's store.
    dpop = {"replay_entries": 64 * count}

    def work(number):
        task = {"config": tables(server, number, dpop=dpop), "token": token, "body": BODY.decode(), "proofs": proofs}
        command = [sys.executable, "-c", _WORKER]
        done = subprocess.run(
            command, input=json.dumps(task).encode(), stdout=subprocess.PIPE, env=environment, check=True, timeout=120
        )
        return json.loads(done.stdout)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(work, range(2))

    assert sorted([*one, *two]) == list(range(count))


# --- signed requests (RFC 9421) -------------------------------------------------------------------


def signed(issuer, signer, proof_of=None):
    """A request as httpx would send it, signed; with `proof_of` under `DPoP`, with a proof of that key."""
    token = issuer.token(cnf=proof_of.confirmation) if proof_of else issuer.token()
    sent = httpx2.Request(
        "POST", RESOURCE, content=BODY, headers={"authorization": f"{'DPoP' if proof_of else 'Bearer'} {token}"}
    )
    signer.sign(sent)

    def request():
        lines = [(name.encode(), value.encode()) for name, value in sent.headers.multi_items()]
        if proof_of:
            lines.append((b"dpop", proof_of.proof(token).encode()))
        return ToolRequest.http(method="POST", path="/mcp", headers=lines, body=BODY)

    return request


def test_signature_passes_once_in_all_processes(server, make_process, issuer):
    key = OKPKey.generate_key("Ed25519")
    client = {"client_id": "agent", "jwks": key.as_dict(private=False)}
    signatures = {"mode": "required", "clients": [client]}
    one, two = make_process(server, signatures=signatures), make_process(server, signatures=signatures)
    signer = RequestSigner(key.as_dict(private=True))
    request, other = signed(issuer, signer), signed(issuer, signer)

    async def walk():
        return [await outcome(guard, made()) for guard, made in ((one, request), (two, request), (two, other))]

    assert run(walk(), one, two) == ["allowed", "signature_replayed", "allowed"]


def test_signature_does_not_pass_in_another_process_with_a_new_proof(server, make_process, issuer):
    holder = Holder()
    one = make_process(server, signatures={"mode": "required"})
    two = make_process(server, signatures={"mode": "required"})
    request = signed(issuer, RequestSigner(holder.key.as_dict(private=True)), holder)

    async def walk():
        return [await outcome(guard, request()) for guard in (one, two)]

    assert run(walk(), one, two) == ["allowed", "signature_replayed"]
