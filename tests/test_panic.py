"""A mistake of ours refuses the call that meets it, as an exception, and no other."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from mcp_fastguard import GuardFault, ToolRequest
from mcp_fastguard.binding import DPoPVerifier
from mcp_fastguard.call import Call
from mcp_fastguard.errors import Denied
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.token import KeySet, TokenVerifier, verify_compact
from proof_support import Holder
from support import ISSUER, RESOURCE, of_quick_build, records


@pytest.fixture
def panic():
    """Has the next work of the core panic; only builds for tests can."""
    return of_quick_build("panic_next")


def request(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)


def test_f21_panic_refuses_the_call_and_the_next_one_is_right(guard, issuer, panic, capfd):
    token = issuer.token()
    guard.check(request(token))

    panic()
    with pytest.raises(GuardFault) as fault:
        guard.check(request(token))

    assert (fault.value.code, isinstance(fault.value, Exception)) == ("internal", True)
    assert guard.check(request(token)).subject == "alice"
    with pytest.raises(Denied, match="scope"):
        guard.check(request(token, "secret"))
    assert [record["result"] for record in records(guard)] == ["allowed", "allowed", "denied"]
    assert token not in capfd.readouterr().err


@pytest.mark.parametrize("listens", [False, True])
def test_f21_panic_while_a_call_is_authorized_refuses_it(guard, issuer, panic, listens):
    async def walk():
        if listens:
            guard.on_decision(lambda _: None)
        panic()
        with pytest.raises(GuardFault) as fault:
            await guard.authorize(request(issuer.token()))
        assert fault.value.code == "internal"
        assert (await guard.authorize(request(issuer.token()))).subject == "alice"

    asyncio.run(walk())


def test_f21_panic_in_a_token_verifier_is_a_fault(issuer, panic):
    verifier = TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=KeySet.from_jwks(issuer.jwks), algorithms=["ES256"])
    panic()
    with pytest.raises(GuardFault):
        verifier.verify(issuer.token())
    assert verifier.verify(issuer.token()).subject == "alice"


def test_f21_panic_of_one_thread_refuses_no_other(guard, issuer, panic):
    token = issuer.token()
    faults = []

    def work(panics):
        for _ in range(200):
            if panics:
                panic()
            try:
                guard.check(request(token))
            except GuardFault as fault:
                faults.append((panics, fault.code))

    threads = [threading.Thread(target=work, args=(number == 0,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == [(True, "internal")] * 200


# --- every entry of the core ----------------------------------------------------------------------

WIRE = {"method": "POST", "path": "/mcp", "headers": [(b"authorization", b"Bearer a.b.c")], "body": b"{}"}


class Met:
    """What calls of the core's entries need."""

    def __init__(self, make_guard, issuer, config):
        self.config = config
        self.guard = make_guard()
        self.gate = self.guard.gate
        self.token = issuer.token()
        self.request = request(self.token)
        self.allowed = self.guard.check(self.request)
        self.keys = KeySet.from_jwks(issuer.jwks)
        self.jwks = json.dumps(issuer.jwks)
        self.verifier = TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=self.keys, algorithms=["ES256"])
        self.verified = self.verifier.verify(self.token)
        self.holder = Holder()
        self.bound_text = issuer.token(cnf=self.holder.confirmation)
        self.bound = self.verifier.verify(self.bound_text)
        self.proofs = DPoPVerifier()
        self.scope = {"method": "POST", "headers": WIRE["headers"], "client": ("192.0.2.7", 1234)}
        self.window = SlidingWindow(10, 60.0)

    def call(self):
        """A call of which it is known that it may pass, up to where its tool would run."""
        call = Call(self.guard, self.request, self.allowed)
        assert call.settle_at_once()
        return call

    def confirm(self):
        proof = self.holder.proof(self.bound_text)
        return self.proofs.confirm(self.bound, proof, method="POST", url=RESOURCE, access_token=self.bound_text)


#: Every way into the core that a call, a refusal, a fetch, or an operator's act takes.
ENTRIES = {
    "check": lambda met: met.gate.check(met.request),
    "decide": lambda met: met.gate.decide(met.request),
    "decide observed": lambda met: met.gate.decide(met.request, observes=True),
    "check_head": lambda met: met.gate.check_head(met.request),
    "check_nested": lambda met: met.gate.check_nested(met.allowed, met.request),
    "attest": lambda met: met.gate.attest(met.token, '{"sub": "alice"}'),
    "attest_local": lambda met: met.gate.attest_local("alice", []),
    "introspected": lambda met: met.gate.introspected("opaque", b'{"active": false}'),
    "introspection_failed": lambda met: met.gate.introspection_failed("opaque", is_endpoint=False),
    "recheck": lambda met: met.gate.recheck(met.allowed),
    "Call, decided": lambda met: met.guard.call(met.request)._decide(),
    "Call, taken": lambda met: met.call().take("tools/call", {}),
    "Call, looked at again": lambda met: met.call()._look_again(),
    "Call, closed": lambda met: met.call().close(),
    "may_see with a call": lambda met: met.gate.may_see("tool", "add", met.allowed),
    "may_see with a token": lambda met: met.gate.may_see("tool", "add", met.verified),
    "finish": lambda met: met.gate.finish(met.allowed, status="ok", duration=0.1),
    "revoke": lambda met: met.gate.revoke(subject="mallory"),
    "block": lambda met: met.gate.block(tool="never"),
    "unblock": lambda met: met.gate.unblock(tool="never"),
    "replace_keys": lambda met: met.gate.replace_keys(ISSUER, met.jwks.encode()),
    "keys_failed": lambda met: met.gate.keys_failed(ISSUER),
    "revocations_known": lambda met: met.gate.revocations_known(1.0),
    "reload": lambda met: met.gate.reload(json.dumps(met.config), is_json=True),
    "ToolRequest.http": lambda _: ToolRequest.http(**WIRE),
    "ToolRequest.of_scope": lambda met: ToolRequest.of_scope("/mcp", met.scope, b"{}"),
    "ToolRequest.direct": lambda met: request(met.token),
    "ToolRequest.message": lambda met: ToolRequest.message(method="tools/list", token=met.token),
    "ToolRequest.is_message": lambda met: met.request.is_message("tools/call", {}),
    "KeySet.from_jwks": lambda met: KeySet.from_jwks(met.jwks),
    "verify_compact": lambda met: verify_compact(met.token, met.keys, algorithms=["ES256"]),
    "TokenVerifier.verify": lambda met: met.verifier.verify(met.token),
    "DPoPVerifier.confirm": lambda met: met.confirm(),
    "SlidingWindow.admit": lambda met: met.window.admit("key"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_f21_panic_at_any_entry_is_an_exception_and_the_next_call_is_right(make_guard, issuer, config, panic, entry):
    met = Met(make_guard, issuer, config)
    enter = ENTRIES[entry]

    panic()
    with pytest.raises(GuardFault) as fault:
        enter(met)

    assert (fault.value.code, isinstance(fault.value, Exception)) == ("internal", True)
    enter(met)
    assert met.guard.check(met.request).subject == "alice"
