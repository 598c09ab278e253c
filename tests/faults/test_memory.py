"""Millions of names that never come again (F14): memory stays within the stated caps, and nobody's garbage refuses anybody else."""

from __future__ import annotations

import sys
import time

import pytest

import process_support

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory of processes is read from /proc")

MIB = 1024 * 1024

#: What may grow beyond what is stated: 64 MiB (section 6.8 of the requirements).
BEYOND = 64 * MIB
#: Tokens that were verified are kept, 10,000 of about 2 KiB; windows of quotas to 65,535 cost at most 200 bytes each, and a million
#: are kept.
TOKENS, WINDOWS = 10_000 * 2 * 1024, 200

FLOOD = """
import base64, resource
guard = Guard.from_dict(config, verifier=object() if given["is_verified"] else None)
gate, good, count = guard.gate, given["good"], given["count"]

def segment(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def claims(number, **changes):
    now = int(time.time())
    named = {"sub": "mallory", "client_id": "c", "scope": "", "iat": now, "exp": now + 3_500, "jti": f"{number}"}
    return json.dumps({**named, "iss": given["issuer"], "aud": config["resource"]["url"], **changes})

def verified(number, text, **changes):
    attested = gate.attest(text, claims(number, **changes))
    return code(lambda: gate.decide(request(text), has_waited=True, attested=attested))

body = segment({"iss": given["issuer"], "aud": config["resource"]["url"], "sub": "x", "exp": int(time.time()) + 600})

def garbage(number):
    return code(guard.check, request(f"{number}.garbage.{number}"))

def key(number):
    return code(guard.check, request(f"{segment({'alg': 'ES256', 'typ': 'at+jwt', 'kid': f'kid-{number}'})}.{body}.{'A' * 86}"))

def address(number):
    peer = f"{10 + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    headers = [(b"authorization", b"Bearer garbage")]
    return code(guard.check, ToolRequest.http(method="POST", path="/mcp", headers=headers, body=b"{}", peer=peer))

def token(number):
    return verified(number, f"token-{number}")

def subject(number):
    return verified(number, f"token-{number}", sub=f"subject-{number}")

def tool(number):
    return code(guard.check, request(good, f"tool-{number}"))

name = {"garbage": garbage, "key": key, "address": address, "token": token, "subject": subject, "tool": tool}[given["kind"]]

def honest():
    if given["is_verified"]:
        return verified(0, "the good one", sub="alice", jti="good")
    return code(guard.check, request(good))

assert honest() == "allowed"
for number in range(2_000):
    name(number)
before, most, refused, codes = resident(), 0, 0, {}
for number in range(2_000, count):
    found = name(number)
    codes[found] = codes.get(found, 0) + 1
    if number % 1_000 == 0:
        refused += honest() != "allowed"
        most = max(most, resident())
tell(grown=max(most, resident()) - before, refused=refused, codes=codes, figures=dict(gate.statistics()))
guard.close()
"""

#: What each kind may fill on the way, in bytes, by how many came.
KINDS = {
    "garbage": lambda count: 0,
    "key": lambda count: 0,
    "address": lambda count: 0,
    "tool": lambda count: 0,
    "token": lambda count: TOKENS,
    "subject": lambda count: TOKENS + min(count, 1_000_000) * WINDOWS,
}


@pytest.mark.parametrize(
    "count", [200_000, pytest.param(10_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3_600)])]
)
@pytest.mark.parametrize("kind", KINDS)
def test_f14_names_that_never_come_again_grow_no_memory_and_refuse_nobody(config, issuer, kind, count):
    # One caller makes all of the others' calls.
    quota = 60_000 if kind == "subject" else 4_000_000_000
    config["limits"] = {"rules": [{"per": "principal", "quota": f"{quota}/24h"}]}
    is_verified = kind in {"token", "subject"}
    if is_verified or kind == "tool":
        # So many calls of callers who are known are more than a disk takes.
        config["audit"] = {"enabled": False}
    if is_verified:
        del config["issuers"]
        config["resource"]["authorization_servers"] = [issuer.issuer]
    given = {"kind": kind, "count": count, "is_verified": is_verified, "issuer": issuer.issuer}

    given["good"] = issuer.token(exp=int(time.time()) + 3_500)

    found = process_support.run(FLOOD, config, given, timeout=3_000)

    assert found["refused"] == 0
    assert found["grown"] <= BEYOND + KINDS[kind](count), found
