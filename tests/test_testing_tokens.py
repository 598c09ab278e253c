"""Guards under test, their tokens, their clock, and `denied`."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import sys
import time

import pytest
from mcp.shared.exceptions import MCPError

from mcp_fastguard import Denied, GuardConfigError, GuardFault, testing
from mcp_fastguard.errors import LimitDenied, PolicyDenied
from mcp_fastguard.testing import FakeClock, GuardUnderTest, Issuer, as_caller, denied
from support import RESOURCE
from testing_support import QUERY, RULES, call
from transport_support import run


@pytest.fixture
def guard(fastguard_guard):
    return fastguard_guard(RULES)


def test_guard_keeps_the_rules_and_the_issuer_of_the_file(tmp_path):
    file = tmp_path / "fastguard.toml"
    file.write_text(
        """
        version = 1
        [resource]
        url = "https://mcp.example.com/mcp"
        [[issuers]]
        issuer = "https://login.example.com"
        jwks_uri = "https://login.example.com/jwks"
        algorithms = ["RS256"]
        audiences = ["api://warehouse"]
        types = ["JWT"]
        require = { azp = true, tid = "tenant" }
        scope_claims = ["scp"]
        client_claims = ["azp"]
        organisation_claim = "org"
        max_lifetime = "2m"
        [tools.run_query]
        scopes = ["warehouse:query:read"]
        [audit]
        path = "audit"
        """
    )
    with testing.guard(file) as guard:
        allowed = guard.check(call(testing.make_token([QUERY], subject="bob", org="acme")))
        assert (allowed.subject, allowed.client_id, allowed.organisation) == ("bob", "test-client", "acme")
        assert (allowed.issuer, allowed.scopes) == ("https://login.example.com", (QUERY,))
        assert allowed.token.audience == ("api://warehouse",)
        assert allowed.token.expires_at == guard.clock.now() + 120
        with denied("lifetime_too_long"):
            guard.check(call(testing.make_token([QUERY], expires_in=121)))
        with denied("claim_refused"):
            guard.check(call(testing.make_token([QUERY], tid="another")))
    assert not (tmp_path / "audit").exists()


def test_guard_of_a_dict_without_issuers_has_one():
    with testing.guard({name: table for name, table in RULES.items() if name != "issuers"}) as guard:
        assert guard.check(call(testing.make_token([QUERY]))).issuer == "https://issuer.test"


def test_each_issuer_of_the_configuration_has_tokens(fastguard_guard, make_token):
    two = [{"issuer": f"https://{name}.example.com", "asserts_scopes": [QUERY]} for name in ("one", "two")]
    guard = fastguard_guard({**RULES, "issuers": two})

    assert guard.check(call(make_token([QUERY]))).issuer == "https://one.example.com"
    assert guard.check(call(make_token([QUERY], issuer="https://two.example.com"))).issuer == "https://two.example.com"
    with pytest.raises(ValueError, match="no issuer `https://three"):
        make_token(issuer="https://three.example.com")


def test_error_of_a_file_names_its_line(tmp_path):
    file = tmp_path / "fastguard.toml"
    file.write_text('version = 1\n[resource]\nurrl = "https://mcp.example.com/mcp"\n')
    with pytest.raises(GuardConfigError, match=r"fastguard\.toml:3.*urrl"):
        testing.guard(file)


def test_log_that_is_off_stays_off_and_has_no_records(fastguard_guard, make_token):
    guard = fastguard_guard({**RULES, "audit": {"enabled": False}})
    guard.check(call(make_token([QUERY])))
    assert guard.audit_folder is None
    assert guard.records() == []


def test_temporary_log_goes_with_its_guard():
    guard = testing.guard(RULES)
    folder = guard.audit_folder
    guard.check(call(testing.make_token([QUERY])))
    assert [record["event_type"] for record in guard.records()] == ["decision"]
    guard.close()
    assert folder.is_dir()
    del guard
    gc.collect()
    assert not folder.exists()


def test_token_without_a_guard_has_nobody_to_be_for():
    testing.guard(RULES).close()
    gc.collect()
    with pytest.raises(LookupError, match="build one first"):
        testing.make_token()


def test_token_is_for_the_guard_that_is_named(fastguard_guard, make_token):
    first = fastguard_guard(RULES)
    fastguard_guard({**RULES, "resource": {"url": "https://other.example.com/mcp"}})
    assert first.check(call(make_token([QUERY], guard=first))).subject == "alice"
    with denied("audience_mismatch"):
        first.check(call(make_token([QUERY])))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"expires_in": -60}, "token_expired"),
        ({"aud": "https://other.example.com"}, "audience_mismatch"),
        ({"jti": None, "exp": None}, "claim_missing"),
        ({"subject": None, "client_id": None}, "principal_missing"),
        ({"nbf": 32_503_680_000}, "token_not_yet_valid"),
    ],
)
def test_token_can_be_made_wrong(guard, make_token, options, code):
    guard.check(call(make_token([QUERY])))
    with denied(code):
        guard.check(call(make_token([QUERY], **options)))


def test_token_of_another_issuer_s_key_is_refused(guard):
    with denied("signature_invalid"):
        guard.check(call(Issuer().sign({"iss": "https://login.example.com", "aud": RESOURCE})))


def test_missing_signer_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "joserfc.jwk", None)
    with pytest.raises(ImportError, match=r"mcp-fastguard\[testing\]"):
        _ = Issuer().jwks


def test_scopes_as_one_string_are_a_mistake(guard, make_token):
    with pytest.raises(TypeError, match=r"\['a', 'b'\]"):
        make_token("a b")
    with pytest.raises(TypeError, match="scopes"), as_caller(scopes="a"):
        pytest.fail("it was taken")


def test_clock_rules_every_decision_of_a_guard(guard, make_token, fastguard_clock):
    async def walk():
        request = call(make_token([QUERY]))
        async with guard.call(request) as found:
            fastguard_clock.advance(329)
            await found.run(lambda: asyncio.sleep(0))
        async with guard.call(call(make_token([QUERY]))) as found:
            fastguard_clock.advance(331)
            # Looked at again before the tool runs.
            with denied("token_expired"):
                await found.run(lambda: asyncio.sleep(0))

    run(walk())


def test_revocation_is_of_the_time_of_the_clock(guard, make_token, fastguard_clock):
    fastguard_clock.advance(1000)
    token = make_token([QUERY])
    guard.check(call(token))
    guard.revoke(subject="alice")
    with denied("token_revoked"):
        guard.check(call(token))
    fastguard_clock.advance(1)
    guard.check(call(make_token([QUERY])))


def test_listener_is_told_by_the_clock_too(guard, make_token, fastguard_clock):
    told = []
    guard.on_decision(told.append)
    token = make_token([QUERY])
    guard.check(call(token))
    fastguard_clock.advance(1000)
    with denied("token_expired") as refused:
        guard.check(call(token))
    assert told[1:] == [refused.value]


def test_guard_can_be_built_by_its_own_constructors(tmp_path):
    with GuardUnderTest.from_dict(RULES) as guard:
        assert guard.check(call(testing.make_token([QUERY]))).subject == "alice"


def test_clock_stands_until_it_is_advanced():
    clock = FakeClock()
    assert abs(clock.now() - time.time()) < 60
    clock = FakeClock(1000)
    assert (clock.now(), clock.advance(0.5), clock.now()) == (1000.0, 1000.5, 1000.5)
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match="back"):
            clock.advance(wrong)
    with pytest.raises(ValueError, match="epoch"):
        FakeClock(-1)


# --- denied ---------------------------------------------------------------------------------------


def test_denied_gives_the_refusal(guard, make_token):
    with denied("scope_insufficient") as refused:
        guard.check(call(make_token()))
    assert isinstance(refused.value, PolicyDenied)
    with pytest.raises(AssertionError, match="end of the block"):
        _ = denied("scope_insufficient").value


def test_denied_fails_where_nothing_is_refused():
    with pytest.raises(AssertionError, match="nothing was refused; expected `quota_spent`"), denied("quota_spent"):
        pass


def test_denied_fails_for_another_code_and_shows_the_refusal():
    with pytest.raises(AssertionError, match="`quota_spent`.*not with `token_expired`") as failed:  # noqa: SIM117
        with denied("token_expired"):
            raise LimitDenied("quota_spent", "rule 0")
    assert isinstance(failed.value.__cause__, Denied)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the tool's own"),
        GuardFault("closed"),
        MCPError(-32602, "the server's own"),
        MCPError(500, "the call could not be decided", {"code": "call_unproved"}),
    ],
)
def test_denied_lets_other_errors_pass(error):
    with pytest.raises(type(error)) as passed, denied("call_unproved"):
        raise error
    assert passed.value is error


def test_denied_reads_what_a_client_saw():
    with denied("body_too_deep") as refused:
        raise BaseExceptionGroup("transport", [MCPError(-32600, "the request is not valid", {"code": "body_too_deep"})])
    assert (refused.value.status, refused.value.detail) == (400, "the request is not valid")
    assert pickle.loads(pickle.dumps(refused.value)).code == "body_too_deep"
