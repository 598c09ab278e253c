"""The whole corridor, in one process and without a server."""

from __future__ import annotations

import asyncio
import pickle
import time

import pytest

from mcp_fastguard import Denied, GuardFault, ToolRequest, current_call
from mcp_fastguard.errors import ApprovalDenied, GuardConfigError, LimitDenied, PolicyDenied, TokenDenied
from support import records


def request(token, tool="run_query", **arguments):
    return ToolRequest.direct(tool=tool, arguments=arguments, token=token)


def code(guard, req, now=None):
    with pytest.raises(Denied) as denied:
        guard.check(req, now)
    return denied.value.code


def test_good_call_is_allowed_with_its_facts(guard, issuer):
    token = issuer.token(act={"sub": "bot"})

    allowed = guard.check(request(token, sql="select 1"))

    assert (allowed.subject, allowed.client_id, allowed.issuer) == ("alice", "agent", issuer.issuer)
    assert (allowed.tool, allowed.tier, allowed.rule) == ("run_query", "auto", 'tools."run_query"')
    assert allowed.scopes == ("warehouse:query:read",)
    assert allowed.actor == "bot"
    assert allowed.token.claims["sub"] == "alice"


def test_proofs_cannot_be_made_by_hand():
    from mcp_fastguard import AllowedCall
    from mcp_fastguard.token import VerifiedToken

    for proof in (AllowedCall, VerifiedToken):
        with pytest.raises(TypeError):
            proof()


@pytest.mark.parametrize(
    ("tool", "expected", "status"),
    [
        ("secret", "scope_insufficient", 403),
        ("nowhere", "target_unknown", 403),
        ("never", "tier_blocked", 403),
        ("ask", "approval_required", 403),
    ],
)
def test_policy_refuses_with_its_code(guard, issuer, tool, expected, status):
    with pytest.raises((PolicyDenied, ApprovalDenied)) as denied:
        guard.check(request(issuer.token(), tool))

    assert (denied.value.code, denied.value.status) == (expected, status)


def test_scope_challenge_names_scope_and_metadata(guard, issuer):
    with pytest.raises(PolicyDenied) as denied:
        guard.check(request(issuer.token(), "secret"))

    assert 'error="insufficient_scope"' in denied.value.challenge
    assert 'scope="secret:use"' in denied.value.challenge
    metadata = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{metadata}"' in denied.value.challenge


def test_call_without_token_is_challenged_without_an_error(guard):
    with pytest.raises(TokenDenied) as denied:
        guard.check(request(None))

    assert denied.value.code == "token_missing"
    assert "error=" not in denied.value.challenge


def test_token_on_its_expiry_second_plus_leeway_is_denied(make_guard, issuer):
    guard = make_guard()
    token = issuer.token(now=1_000_000, exp=1_000_600)

    assert guard.check(request(token), 1_000_629.9)
    assert code(guard, request(token), 1_000_630.0) == "token_expired"


def test_times_of_two_clocks_are_refused(guard, issuer):
    token = issuer.token()
    guard.check(request(token), time.time())

    with pytest.raises(GuardFault) as fault:
        guard.check(request(token))

    assert fault.value.code == "clock_mixed"


def test_quota_is_kept_and_retry_after_is_true(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "2/10s"}]})
    token = issuer.token(now=1_000_000)
    guard.check(request(token), 1_000_000.0)
    guard.check(request(token), 1_000_003.0)

    with pytest.raises(LimitDenied) as denied:
        guard.check(request(token), 1_000_004.0)
    assert denied.value.status == 429

    back = 1_000_004.0 + denied.value.retry_after
    assert 1_000_010.0 <= back <= 1_000_010.0 + 10 / 64 + 0.001
    guard.check(request(token), back)


def test_another_principal_has_a_window_of_its_own(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})
    guard.check(request(issuer.token()))

    assert code(guard, request(issuer.token())) == "quota_spent"
    assert guard.check(request(issuer.token(sub="bob")))


def test_new_session_or_client_buys_nothing(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token(), session="a"))

    again = ToolRequest.direct(tool="run_query", token=issuer.token(client_id="other"), session="b")
    assert code(guard, again) == "quota_spent"


def test_all_rules_are_checked_before_any_is_charged(make_guard, issuer):
    rules = [{"per": "principal", "quota": "3/minute"}, {"per": "tool", "tool": "add", "quota": "1/minute"}]
    guard = make_guard(limits={"rules": rules})
    token = issuer.token()
    guard.check(request(token, "add"))
    for _ in range(5):
        assert code(guard, request(token, "add")) == "quota_spent"

    guard.check(request(token))
    guard.check(request(token))
    assert code(guard, request(token)) == "quota_spent"


def test_revoked_token_is_refused_at_its_next_call(guard, issuer):
    token = issuer.token(jti="t-1")
    guard.check(request(token))

    guard.revoke(token_id="t-1")

    assert code(guard, request(token)) == "token_revoked"
    assert guard.check(request(issuer.token()))


@pytest.mark.parametrize(
    "selector",
    [
        {"subject": "alice"},
        {"client_id": "agent"},
        {"session": "s"},
        {"issuer": "https://auth.example.com"},
        {"subject": "alice", "client_id": "agent"},
    ],
)
def test_revocation_hits_by_every_selector(guard, issuer, selector):
    token = issuer.token(sid="s")
    guard.check(request(token))

    guard.revoke(**selector)

    assert code(guard, request(token)) == "token_revoked"


def test_revocation_of_another_hits_nobody(guard, issuer):
    guard.revoke(subject="alice", client_id="someone-else")

    assert guard.check(request(issuer.token()))


def test_revocation_of_nothing_is_a_mistake(guard):
    with pytest.raises(ValueError, match="must name something"):
        guard.revoke()


def test_token_without_id_is_revoked_by_its_digest(guard, issuer):
    token = issuer.token(jti=None)
    allowed = guard.check(request(token))
    assert allowed.token.token_id.startswith("sha-256:")

    guard.revoke(token_id=allowed.token.token_id)

    assert code(guard, request(token)) == "token_revoked"


def test_f30_reload_swaps_whole_or_not_at_all(tmp_path, issuer, config):
    import json

    from mcp_fastguard import Guard

    def toml(scopes):
        return f"""
version = 1
[resource]
url = "https://mcp.example.com/mcp"
[[issuers]]
issuer = "{issuer.issuer}"
algorithms = ["ES256"]
jwks = '''{json.dumps(issuer.jwks)}'''
[tools.run_query]
{scopes}
"""

    file = tmp_path / "fastguard.toml"
    file.write_text(toml("open = true"))
    with Guard.from_file(file) as guard:
        token = issuer.token(jti="kept")
        guard.check(request(token))
        guard.revoke(token_id="kept")
        file.write_text(toml('scopes = ["x:y"]'))
        guard.reload()
        assert code(guard, request(issuer.token())) == "scope_insufficient"
        assert code(guard, request(token)) == "token_revoked"

        file.write_text(toml("scopez = []"))
        with pytest.raises(GuardConfigError, match="scopez.*nearest is `scopes`"):
            guard.reload()
        assert code(guard, request(issuer.token())) == "scope_insufficient"


def test_rule_beside_the_tool_holds_in_addition(guard, issuer):
    @guard.tool(scopes=["fresh:use"])
    def fresh():
        pass

    @guard.tool(scopes=["secret:more"], name="secret")
    def function():
        pass

    assert code(guard, request(issuer.token(), "fresh")) == "scope_insufficient"
    assert guard.check(request(issuer.token(scope="fresh:use"), "fresh"))
    assert code(guard, request(issuer.token(scope="secret:use"), "secret")) == "scope_insufficient"
    assert code(guard, request(issuer.token(scope="secret:more"), "secret")) == "scope_insufficient"
    assert guard.check(request(issuer.token(scope="secret:use secret:more"), "secret"))


def test_rule_beside_the_tool_must_say_who_may(guard):
    with pytest.raises(ValueError, match="says nothing of who may"):
        guard.tool()(lambda: None)


def test_lists_show_only_what_the_caller_may_use(guard, issuer):
    allowed = guard.check(request(issuer.token()))

    seen = [
        name
        for name in ("run_query", "add", "secret", "never", "nowhere", "ask")
        if guard.may_see("tool", name, allowed)
    ]

    assert seen == ["run_query", "add", "ask"]
    assert guard.may_see("tool", "run_query", allowed.token)


def test_scope_hierarchy_counts_both_ways_as_configured(make_guard, issuer):
    guard = make_guard(scopes={"warehouse:*": {"implies": ["warehouse:query:read"]}})

    assert guard.check(request(issuer.token(scope="warehouse:*")))
    assert code(guard, request(issuer.token(scope="warehouse:query"))) == "scope_insufficient"


def test_listeners_are_told_and_change_nothing(guard, issuer):
    told = []
    guard.on_decision(told.append)
    guard.on_decision(lambda _: 1 / 0)

    guard.check(request(issuer.token()))
    code(guard, request(issuer.token(), "secret"))

    assert [type(decision).__name__ for decision in told] == ["AllowedCall", "PolicyDenied"]


def test_refusals_survive_pickling(guard, issuer):
    with pytest.raises(PolicyDenied) as denied:
        guard.check(request(issuer.token(), "secret"))

    copy = pickle.loads(pickle.dumps(denied.value))

    assert (copy.code, copy.status, copy.challenge) == (denied.value.code, 403, denied.value.challenge)


def test_corridor_records_decision_and_ending(guard, issuer):
    async def walk():
        async with guard.call(request(issuer.token(), sql="select 1")) as call:

            async def tool():
                assert current_call().subject == "alice"
                current_call().record(rows=47, bytes_scanned=1_000)
                return {"content": [{"type": "text", "text": "abc"}]}

            call.finish(await call.run(tool))

    asyncio.run(walk())

    decision, ending = records(guard)
    assert decision["result"] == "allowed"
    assert decision["input_params"]["sql"] == "select 1"
    assert decision["authenticated_identity"] == {"issuer": issuer.issuer, "subject": "alice"}
    assert ending["status"] == "ok"
    assert ending["output_summary"]["rows"] == 47
    assert ending["decision"] == decision["id"]


def test_caller_of_the_corridor_may_say_itself_how_a_call_ended(guard, issuer):
    async def walk():
        async with guard.call(request(issuer.token())) as call:
            assert call.is_settled
            # Settling again changes nothing.
            assert await call.settle() is call.proof
            call.finish({"content": []}, status="error", error="Timeout")

    asyncio.run(walk())

    _, ending = records(guard)
    assert (ending["status"], ending["error"]) == ("error", "Timeout")


def test_error_of_a_tool_whose_call_has_ended_already_changes_no_record(guard, issuer):
    """As of a stream that was ended because its token died."""

    async def walk():
        call = guard.call(request(issuer.token()))
        await call.authorize()
        await call.settle()

        async def tool():
            call.finish({"content": []})
            call.close()
            raise KeyError

        await call.run_to_end(tool)

    with pytest.raises(KeyError):
        asyncio.run(walk())

    _, ending = records(guard)
    assert (ending["status"], ending.get("error")) == ("ok", None)


def test_tool_does_not_run_before_settling_nor_after_closing(guard, issuer):
    async def tool():
        pytest.fail("it ran")

    async def walk():
        call = guard.call(request(issuer.token()))
        await call.authorize()
        with pytest.raises(GuardFault):
            await call.run(tool)
        async with guard.call(request(issuer.token())) as call:
            pass
        with pytest.raises(GuardFault):
            await call.run(tool)

    asyncio.run(walk())


def test_token_revoked_while_the_call_waited_does_not_run(guard, issuer):
    async def tool():
        pytest.fail("it ran")

    async def walk():
        async with guard.call(request(issuer.token(jti="w"))) as call:
            guard.revoke(token_id="w")
            with pytest.raises(TokenDenied):
                await call.run(tool)

    asyncio.run(walk())


def test_error_of_the_tool_is_its_own_and_recorded_without_its_text(guard, issuer):
    async def tool():
        raise ValueError("the secret is hunter2")

    async def walk():
        async with guard.call(request(issuer.token())) as call:
            await call.run(tool)

    with pytest.raises(ValueError, match="hunter2"):
        asyncio.run(walk())

    ending = records(guard)[-1]
    assert (ending["status"], ending["error"]) == ("error", "ValueError")
    assert "hunter2" not in str(records(guard))


def test_no_guarded_call_outside_a_tool():
    with pytest.raises(LookupError):
        current_call()


def test_no_token_text_stands_in_the_log(guard, issuer):
    tokens = [issuer.token(), issuer.token(scope="x"), issuer.token()[:-6] + "AAAAAA", issuer.token(now=1)]
    for token in tokens:
        try:
            guard.check(request(token, sql=token))
        except Denied as denied:
            assert token not in str(denied)
    guard.flush()

    text = "".join(file.read_text() for file in guard.audit_folder.glob("*.jsonl"))
    for token in tokens:
        assert token not in text
        assert token.rsplit(".", 1)[1] not in text


def test_closed_guard_refuses(make_guard, issuer):
    guard = make_guard()
    guard.check(request(issuer.token()))
    guard.close()
    guard.close()

    with pytest.raises(GuardFault) as fault:
        guard.check(request(issuer.token()))
    assert fault.value.code == "closed"


def test_closed_guard_refuses_without_a_log_too(make_guard, issuer):
    guard = make_guard(audit={"enabled": False})
    assert guard.check(request(issuer.token()))
    guard.close()

    with pytest.raises(GuardFault) as fault:
        guard.check(request(issuer.token()))
    assert fault.value.code == "closed"


def test_default_limit_stands_where_none_is_written(guard, issuer):
    assert guard.check(request(issuer.token())).limit == "principal 1000/60s"


async def _walked(call):
    """What a server's layer does with a call whose decision may have to wait for the disk."""
    return call.proof if call.authorize_at_once() else await call.authorize()


@pytest.mark.parametrize("read_only", [True, False])
def test_call_that_waits_after_its_decision_is_decided_and_charged_once(make_guard, issuer, config, read_only):
    rule = {**config["tools"]["run_query"], "read_only": read_only}
    limits = {"rules": [{"per": "principal", "quota": "2/minute"}]}
    guard = make_guard(tools={"run_query": rule}, limits=limits)
    guard.start()

    proofs = [
        asyncio.run(_walked(guard.call(ToolRequest.direct(tool="run_query", token=issuer.token())))) for _ in range(2)
    ]

    assert [proof.remaining for proof in proofs] == [1, 0]
    guard.flush()
    assert len([record for record in records(guard) if record["event_type"] == "decision"]) == 2


def test_authorized_call_is_not_decided_again(make_guard, issuer, config):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})

    async def twice():
        call = guard.call(ToolRequest.direct(tool="run_query", token=issuer.token()))
        return await call.authorize() is await call.authorize()

    assert asyncio.run(twice())
