"""A verifier of the SDK in the place of `[[issuers]]`: an existing login proves identities."""

from __future__ import annotations

import asyncio
import time

import pytest
from mcp.server.auth.provider import AccessToken

from mcp_fastguard import Denied, Guard, GuardConfigError, GuardFault, ToolRequest
from proof_support import Holder
from support import ISSUER, RESOURCE, Issuer, records


class Login:
    """Reference tokens, known by a table."""

    def __init__(self, **tokens):
        self.tokens = tokens
        self.asked = []
        self.error = None
        self.gate = None

    async def verify_token(self, token):
        self.asked.append(token)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.tokens.get(token)


def access(text, *, subject="alice", scopes=("q:read",), expires_in=300, resource=None, claims=None):
    return AccessToken(
        token=text,
        client_id="agent",
        scopes=list(scopes),
        expires_at=None if expires_in is None else int(time.time()) + expires_in,
        resource=resource,
        subject=subject,
        claims=claims,
    )


@pytest.fixture
def login():
    return Login(
        good=access("good"),
        narrow=access("narrow", scopes=()),
        stale=access("stale", expires_in=-100),
        elsewhere=access("elsewhere", resource="https://other.example.com/mcp"),
        eternal=access("eternal", expires_in=None),
        claimed=access("claimed", subject=None, claims={"iss": ISSUER, "sub": "bob", "act": {"sub": "bot"}}),
    )


@pytest.fixture
def guard(login, tmp_path):
    config = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "tools": {"run_query": {"scopes": ["q:read"]}},
        "audit": {"path": str(tmp_path)},
    }
    with Guard.from_dict(config, verifier=login) as found:
        yield found


def ask(guard, token):
    return asyncio.run(guard.authorize(ToolRequest.direct(tool="run_query", arguments={}, token=token)))


def refused(guard, token):
    with pytest.raises(Denied) as denied:
        ask(guard, token)
    return denied.value


def test_token_that_the_verifier_knows_is_asked_about_once(guard, login):
    first, second = ask(guard, "good"), ask(guard, "good")

    assert (first.subject, first.client_id, first.scopes) == ("alice", "agent", ("q:read",))
    assert second.subject == "alice"
    assert login.asked == ["good"]
    assert [record["result"] for record in records(guard)] == ["allowed", "allowed"]


def test_check_decides_a_known_token_and_waits_for_no_other(guard):
    request = ToolRequest.direct(tool="run_query", arguments={}, token="good")
    with pytest.raises(GuardFault) as fault:
        guard.check(request)
    assert fault.value.code == "needs_authorize"

    ask(guard, "good")

    assert guard.check(request).subject == "alice"


@pytest.mark.parametrize(
    ("token", "code", "status"),
    [
        ("nobody", "verifier_refused", 401),
        ("narrow", "scope_insufficient", 403),
        ("stale", "token_expired", 401),
        ("elsewhere", "audience_mismatch", 401),
    ],
)
def test_token_that_does_not_fit_is_refused_and_recorded(guard, token, code, status):
    denied = refused(guard, token)

    assert (denied.code, denied.status) == (code, status)
    assert records(guard)[-1]["code"] == code


def test_claims_name_the_subject_and_the_actor(guard):
    allowed = ask(guard, "claimed")

    assert (allowed.issuer, allowed.subject, allowed.actor) == (ISSUER, "bob", "bot")


@pytest.mark.parametrize("claims", [None, {}, {"iss": ISSUER}], ids=str)
def test_bound_token_is_no_bearer_token_though_the_verifier_does_not_say_that_it_is_bound(login, guard, claims):
    holder = Holder()
    text = Issuer().token(cnf=holder.confirmation)
    login.tokens[text] = access(text, claims=claims)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_query","arguments":{}}}'
    headers = [(b"authorization", f"DPoP {text}".encode()), (b"dpop", holder.proof(text).encode())]
    with_proof = ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body)

    assert refused(guard, text).code == "bound_as_bearer"
    assert asyncio.run(guard.authorize(with_proof)).token.thumbprint == holder.thumbprint


def test_token_that_is_bound_in_an_unknown_way_is_refused_though_the_verifier_does_not_say_so(login, guard):
    text = Issuer().token(cnf={"kid": "a"})
    login.tokens[text] = access(text)

    assert refused(guard, text).code == "binding_unknown"


def test_revocation_hits_a_token_that_is_cached(guard):
    ask(guard, "good")
    guard.revoke(subject="alice")

    assert refused(guard, "good").code == "token_revoked"


def test_token_without_expiry_is_believed_for_a_minute(guard):
    allowed = ask(guard, "eternal")

    assert allowed.token.expires_at - time.time() <= 60


def test_verifier_that_fails_refuses_without_telling_the_token(guard, login, caplog):
    login.error = RuntimeError("the token good is odd")
    denied = refused(guard, "good")

    assert (denied.code, denied.status) == ("verifier_unavailable", 503)
    assert "RuntimeError" in caplog.text
    assert "good" not in caplog.text
    login.error = None
    assert ask(guard, "good").subject == "alice"


def test_many_calls_with_one_new_token_ask_once_and_a_cancelled_one_takes_nothing_away(guard, login):
    async def storm():
        login.gate = asyncio.Event()
        request = ToolRequest.direct(tool="run_query", arguments={}, token="good")
        tasks = [asyncio.create_task(guard.authorize(request)) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[0].cancel()
        login.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(storm())

    assert isinstance(first, asyncio.CancelledError)
    assert {call.subject for call in others} == {"alice"}
    assert login.asked == ["good"]


def test_verifier_that_never_answers_is_not_awaited_for_ever(guard, login, monkeypatch):
    monkeypatch.setattr("mcp_fastguard.verifier.VERIFIER_WAIT", 0.01)

    async def hang():
        login.gate = asyncio.Event()
        return await guard.authorize(ToolRequest.direct(tool="run_query", arguments={}, token="good"))

    with pytest.raises(Denied) as denied:
        asyncio.run(hang())
    assert denied.value.code == "verifier_unavailable"


def test_reload_has_the_verifier_asked_again(guard, login):
    ask(guard, "good")
    guard.reload()
    ask(guard, "good")

    assert login.asked == ["good", "good"]


def test_verifier_beside_issuers_is_a_contradiction(login, tmp_path):
    config = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": Issuer().jwks}],
        "tools": {"run_query": {"scopes": ["q:read"]}},
        "audit": {"path": str(tmp_path)},
    }
    with pytest.raises(GuardConfigError, match="in the place of"):
        Guard.from_dict(config, verifier=login)
