"""A day of load, in minutes: nothing that a guard holds grows with the time that it has run."""

from __future__ import annotations

import sys

import pytest

import process_support

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory of processes is read from /proc")

MIB = 1024 * 1024

#: A day in `hours`: each brings new callers, new tokens and new sessions; calls that pass, are refused, fail, ask for something and
#: come again, and refusals of strangers. The time is the test's, handed to every call; the log's is the system's.
DAY = """
import asyncio, resource
guard = Guard.from_dict(config, verifier=object())
gate, began, calls = guard.gate, float(int(time.time())), given["calls"]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def held():
    return len(os.listdir("/proc/self/fd")), threading.active_count()

def claims(hour, number, now):
    named = {"iss": given["issuer"], "aud": config["resource"]["url"], "client_id": "c", "scope": ""}
    who = f"subject-{hour}-{number % 400}"
    return json.dumps({**named, "sub": who, "jti": f"{hour}-{number}", "iat": int(now), "exp": int(now) + 600})

def decided(hour, number, now):
    token = f"token-{hour}-{number}"
    attested = gate.attest(token, claims(hour, number, now), now)
    tool = "add" if number % 8 else "nothing"
    params = {"name": tool, "arguments": {"text": "x" * (number % 64)}}
    state = f"state-{hour}-{number}"
    if number % 16 == 2:
        params["requestState"] = state
    asked = ToolRequest.message(method="tools/call", params=params, id=number, token=token)
    try:
        proof = gate.decide(asked, has_waited=True, attested=attested, ends=True, now=now)
    except Denied as denied:
        assert denied.code == "target_unknown" or denied.code == "quota_spent", denied
        return
    asks = state if number % 16 == 1 else None
    gate.finish(
        proof, "input_required" if asks else "ok", 0.001, None, 1, 10, 1, False,
        request=asked, came_with=params.get("requestState"), asks=asks,
    )

def stranger(number, now):
    try:
        guard.check(request(None), now=now)
    except Denied:
        pass

sizes, holds = [], []
for hour in range(24):
    for number in range(calls):
        now = began + hour * 3_600 + number * 3_600 / calls
        while True:
            try:
                decided(hour, number, now)
            except GuardFault as fault:
                # More than the disk takes at once.
                assert fault.code == "audit_queue_full", fault
                guard.flush(30)
                continue
            break
        if number % 4 == 0:
            stranger(number, now)
    guard.flush(30)
    sizes.append(resident())
    holds.append(held())
figures = dict(gate.statistics())
guard.close()
tell(sizes=sizes, holds=holds, figures=figures)
"""


@pytest.mark.parametrize("calls", [400, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])])
def test_day_of_load_grows_nothing(config, issuer, calls):
    config["audit"]["max_file_bytes"] = 1 * MIB
    config["limits"] = {
        "rules": [{"per": "principal", "quota": "1000/minute"}, {"per": "session", "quota": "500/minute"}]
    }
    del config["issuers"]
    config["resource"]["authorization_servers"] = [issuer.issuer]

    found = process_support.run(DAY, config, {"calls": calls, "issuer": issuer.issuer}, timeout=1_500)

    # The first hours fill what is bounded: caches, windows, the queue. From then on no hour leaves anything behind.
    assert max(found["sizes"][12:]) - max(found["sizes"][6:12]) <= 4 * MIB, found["sizes"]
    assert len({tuple(hold) for hold in found["holds"]}) == 1, found["holds"]
    assert found["figures"]["audit_queued"] == 0
    assert found["figures"]["windows"] <= 3 * 400 * 2
