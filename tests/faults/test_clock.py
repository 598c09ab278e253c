"""Clocks that step, by libfaketime in a process of its own, and lifetimes that are absurd (F8, F9)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

import process_support
from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import TokenDenied
from proof_support import Holder
from support import skip_aloud

HOUR = 3_600

#: The wall clock alone is stepped, as NTP, an operator or a virtual machine that wakes up does; the system's monotonic one goes on.
STEPPED = """
import select
from pathlib import Path
clock = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])

def step(seconds):
    before = time.time() - offset[0]
    clock.write_text(f"{seconds:+d}")
    offset[0] = seconds
    # A step is seen within 50 ms. libfaketime has `time.sleep` fail, which gives the kernel a time of the monotonic clock.
    select.select([], [], [], 0.1)
    assert abs(time.time() - seconds - before) < 60, "the clock was not stepped"

offset = [0]
"""


@pytest.fixture
def library():
    """libfaketime, for `LD_PRELOAD`."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not sys.platform.startswith("linux"):
        pytest.skip("libfaketime is for Linux here")
    if not found:
        skip_aloud("libfaketime, which tests/faults/libfaketime installs")
    return str(found[0])


@pytest.fixture
def stepped(library, tmp_path):
    """Runs a script whose wall clock it can step itself."""
    file = tmp_path / "clock"
    file.write_text("+0")

    def run(script, config, given):
        return process_support.run(
            STEPPED + script,
            config,
            given,
            LD_PRELOAD=library,
            FAKETIME_TIMESTAMP_FILE=str(file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            NO_FAKE_STAT="1",
        )

    return run


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_f8_step_of_the_clock_refuses_what_is_out_of_date_and_passes_what_is_not(stepped, config, issuer, seconds):
    now = time.time()
    # Of each time one that is seen before the step as well, and new ones.
    known, own, other = issuer.token(), issuer.token(), issuer.token(now=now + seconds)
    script = f"""
known, own, other = given
guard = Guard.from_dict(config)
before = [code(guard.check, request(token)) for token in (known, other)]
step({seconds})
stepped = [code(guard.check, request(token)) for token in (own, other)]
# One that was verified before is not issued in the future because the clock went back; it is dead on its `exp`.
seen = code(guard.check, request(known))
step(0)
back = [code(guard.check, request(token)) for token in (known, own)]
guard.close()
tell(before=before, stepped=stepped, seen=seen, back=back)
"""

    found = stepped(script, config, [known, own, other])

    early, late = "token_from_future", "token_expired"
    assert found["before"] == ["allowed", early if seconds > 0 else late]
    assert found["stepped"] == [late if seconds > 0 else early, "allowed"]
    assert found["seen"] == (late if seconds > 0 else "allowed")
    assert found["back"] == ["allowed", "allowed"]


@pytest.mark.parametrize("steps", [[HOUR, 0], [-HOUR, 0], [-HOUR, HOUR, 0], [HOUR, -HOUR, 0]])
def test_f8_no_proof_passes_twice_however_the_clock_steps(stepped, config, issuer, steps):
    holder = Holder()
    now = time.time()
    calls = {}
    for at in sorted({0, *steps}):
        token = issuer.token(now=now + at, cnf=holder.confirmation)
        calls[str(at)] = [(token, holder.proof(token, now=now + at)) for _ in range(5)]
    script = f"""
guard = Guard.from_dict(config)
def call(token, proof):
    headers = [(b"authorization", f"DPoP {{token}}".encode()), (b"dpop", proof.encode())]
    body = b'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"add","arguments":{{}}}}}}'
    return code(guard.check, ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body))

passed, refused = {{}}, []
def use_all(at):
    for number, (token, proof) in enumerate(given[str(at)]):
        found = call(token, proof)
        if found == "allowed":
            passed[at, number] = passed.get((at, number), 0) + 1
        else:
            refused.append(found)

use_all(0)
for at in {steps}:
    step(at)
    use_all(at)
    use_all(at)
guard.close()
tell(first=sum(at == 0 for at, _ in passed), most=max(passed.values()), refused=sorted(set(refused)))
"""

    found = stepped(script, config, calls)

    assert (found["first"], found["most"]) == (5, 1)
    # After a step back a proof may be refused though it is new; one that was used never passes again.
    assert set(found["refused"]) <= {"proof_replayed", "proof_expired"}, found


@pytest.mark.parametrize("steps", [[HOUR], [-HOUR], [HOUR, -HOUR, 0]])
def test_f8_spent_quota_stays_spent_however_the_clock_steps(stepped, config, issuer, steps):
    config["limits"] = {"rules": [{"per": "principal", "quota": "3/hour"}]}
    now = time.time()
    tokens = {str(at): issuer.token(now=now + at) for at in {0, *steps}}
    script = f"""
guard = Guard.from_dict(config)
found = [code(guard.check, request(given["0"])) for _ in range(4)]
for at in {steps}:
    step(at)
    found.append(code(guard.check, request(given[str(at)])))
guard.close()
tell(found=found)
"""

    found = stepped(script, config, tokens)["found"]

    assert found == ["allowed"] * 3 + ["quota_spent"] * (1 + len(steps))


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_f8_revocation_and_block_outlive_a_step_of_the_clock(stepped, config, issuer, seconds):
    now = time.time()
    # Issued before the revocation by the clock that made it.
    old = issuer.token(now=now - 60, sub="mallory", exp=int(now) + 2 * HOUR)
    config["issuers"][0]["max_lifetime"] = "24h"
    given = [old, issuer.token(now=now + seconds)]
    script = f"""
guard = Guard.from_dict(config)
guard.revoke(subject="mallory")
guard.block(tool="list_orders")
before = code(guard.check, request(given[0]))
step({seconds})
blocked = code(guard.check, request(given[1], "list_orders"))
stepped = code(guard.check, request(given[0]))
step(0)
back = code(guard.check, request(given[0]))
guard.close()
tell(before=before, blocked=blocked, stepped=stepped, back=back)
"""

    found = stepped(script, config, given)

    assert (found["before"], found["back"], found["blocked"]) == ("token_revoked", "token_revoked", "blocked")
    assert found["stepped"] != "allowed"


def request(token):
    return ToolRequest.direct(tool="add", arguments={}, token=token)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 9_999_999_999}, "lifetime_too_long"),
        ({"exp": 253_402_300_799}, "lifetime_too_long"),
        ({"exp": 1e300}, "claim_invalid"),
        ({"exp": -1}, "claim_invalid"),
        ({"exp": "9999999999"}, "claim_invalid"),
        ({"iat": 0, "exp": 9_999_999_999}, "lifetime_too_long"),
        ({"iat": None}, "allowed"),
    ],
)
def test_f9_lifetime_that_is_absurd_is_refused(guard, issuer, claims, code):
    if code == "allowed":
        assert guard.check(request(issuer.token(**claims))).subject == "alice"
        return
    with pytest.raises(TokenDenied) as denied:
        guard.check(request(issuer.token(**claims)))
    assert denied.value.code == code


def test_f9_token_that_lives_as_long_as_it_may_passes_and_a_second_longer_not(guard, issuer):
    now = int(time.time())

    assert guard.check(request(issuer.token(now=now, exp=now + HOUR)))
    with pytest.raises(TokenDenied) as denied:
        guard.check(request(issuer.token(now=now, exp=now + HOUR + 1)))
    assert denied.value.code == "lifetime_too_long"
