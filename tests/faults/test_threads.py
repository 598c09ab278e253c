"""Threads that hammer one guard (F19). On builds of Python without the lock they run at once, which CI has; elsewhere in turns."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest

from mcp_fastguard import GuardFault, ToolRequest
from mcp_fastguard.errors import Denied
from mcp_fastguard.limits import SlidingWindow
from proof_support import Holder

THREADS = 8
SIZES = [2_000, pytest.param(125_000, marks=pytest.mark.soak)]


def hammer(work, count):
    """Has each of the threads do it so many times, all from one moment on; gives how often each outcome came."""
    ready = threading.Barrier(THREADS)
    found, failures = [], []

    def run(number):
        counted = Counter()
        try:
            ready.wait(20)
            for turn in range(count):
                counted[work(number, turn)] += 1
        except BaseException as error:
            failures.append(error)
        found.append(counted)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    return sum(found, Counter())


def outcome(guard, request):
    try:
        guard.check(request)
    except Denied as denied:
        return denied.code
    except GuardFault as fault:
        # More than the disk takes at once: refused, and not lost.
        assert fault.code == "audit_queue_full"
        return fault.code
    return "allowed"


def request(token, tool="add"):
    return ToolRequest.direct(tool=tool, arguments={}, token=token)


@pytest.mark.parametrize("count", SIZES)
def test_f19_threads_get_the_quota_together_and_no_more(make_guard, issuer, count):
    quota = count * THREADS // 4
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": f"{quota}/24h"}]}, audit={"enabled": False})
    tokens = [issuer.token() for _ in range(4)]

    found = hammer(lambda number, turn: outcome(guard, request(tokens[(number + turn) % 4])), count)

    assert found == {"allowed": quota, "quota_spent": count * THREADS - quota}


@pytest.mark.parametrize("count", [1_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_f19_threads_that_make_keys_by_turns_get_each_window_once(count):
    window = SlidingWindow(quota=3, window=3_600.0)

    found = hammer(lambda number, turn: window.admit(f"key-{(number + turn) % 50}").allowed, count)

    assert found == {True: 150, False: count * THREADS - 150}


def test_f19_proof_that_all_threads_bring_passes_once(guard, issuer):
    holder = Holder()
    token = issuer.token(cnf=holder.confirmation)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'

    def bound():
        sent = [(b"authorization", f"DPoP {token}".encode()), (b"dpop", holder.proof(token).encode())]
        return ToolRequest.http(method="POST", path="/mcp", headers=sent, body=body)

    proofs = [bound() for _ in range(100)]

    found = hammer(lambda _, turn: outcome(guard, proofs[turn]), len(proofs))

    assert found["allowed"] == len(proofs)
    assert set(found) <= {"allowed", "proof_replayed", "audit_queue_full"}


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.soak)])
def test_f19_revocations_blocks_keys_and_reloads_amid_calls_change_what_they_name_alone(make_guard, issuer, count):
    guard = make_guard(limits={"rules": [{"per": "everyone", "quota": "4000000000/24h"}]}, audit={"enabled": False})
    kept, revoked = issuer.token(sub="alice"), issuer.token(sub="mallory")
    keys = guard.gate.replace_keys
    jwks = json.dumps(issuer.jwks).encode()
    guard.revoke(subject="mallory")

    def work(number, turn):
        if number == 0:
            guard.revoke(subject=f"nobody-{turn}")
        elif number == 1:
            guard.block(tool=f"none-{turn % 10}")
            guard.unblock(tool=f"none-{turn % 10}")
        elif number == 2:
            guard.reload()
        elif number == 3:
            with pytest.raises(ValueError):
                keys(issuer.issuer, jwks[:-5])
        elif number == 4:
            return "revoked", outcome(guard, request(revoked))
        else:
            return "kept", outcome(guard, request(kept))
        return "changed", None

    found = hammer(work, count)

    assert found == {("changed", None): 4 * count, ("revoked", "token_revoked"): count, ("kept", "allowed"): 3 * count}
    assert guard.gate.statistics()
