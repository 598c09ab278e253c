"""A mistake of ours refuses the call that meets it, as an exception, and no other."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mcp_fastguard import GuardFault, ToolRequest, _fastguard
from mcp_fastguard.errors import Denied
from mcp_fastguard.token import KeySet, TokenVerifier
from support import ISSUER, RESOURCE, records, skip_aloud


@pytest.fixture
def panic():
    """Has the next work of the core panic; only builds for tests can."""
    found = getattr(_fastguard, "panic_next", None)
    if found is None:
        skip_aloud("a build of the quick profile is needed: make build")
    return found


def request(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)


def test_panic_refuses_the_call_and_the_next_one_is_right(guard, issuer, panic, capfd):
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
def test_panic_while_a_call_is_authorized_refuses_it(guard, issuer, panic, listens):
    async def walk():
        if listens:
            guard.on_decision(lambda _: None)
        panic()
        with pytest.raises(GuardFault) as fault:
            await guard.authorize(request(issuer.token()))
        assert fault.value.code == "internal"
        assert (await guard.authorize(request(issuer.token()))).subject == "alice"

    asyncio.run(walk())


def test_panic_in_a_token_verifier_is_a_fault(issuer, panic):
    verifier = TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=KeySet.from_jwks(issuer.jwks), algorithms=["ES256"])
    panic()
    with pytest.raises(GuardFault):
        verifier.verify(issuer.token())
    assert verifier.verify(issuer.token()).subject == "alice"


def test_panic_of_one_thread_refuses_no_other(guard, issuer, panic):
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
