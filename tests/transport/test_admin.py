"""The administrators' endpoint, attack by attack."""

from __future__ import annotations

import json

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from admin_support import Inner, administrator, refused, send, wanted
from mcp_fastguard import Denied, ToolRequest
from mcp_fastguard.revocations import Entry
from mcp_fastguard.transport.admin import MAX_ADMIN_BODY_BYTES
from proof_support import Holder
from revocation_support import ask, code
from support import ADMIN, ISSUER, RESOURCE, Issuer, records
from transport_support import BASE, run

#: Another issuer, whose tokens may call tools and administer nothing.
OTHER = "https://partner.example.com"


@pytest.fixture
def inner():
    return Inner()


@pytest.fixture
def guard(make_guard):
    return make_guard(admin={"issuer": ISSUER})


@pytest.fixture
def token(issuer):
    return administrator(issuer)


# --- what it does -----------------------------------------------------------------------------------


def test_endpoint_without_its_table_is_a_path_that_nobody_knows(make_guard, issuer):
    assert refused(send(make_guard(), administrator(issuer))) == ("path_unknown", 404)


def test_revocation_by_an_administrator_holds_from_the_next_call_and_spares_others(guard, issuer, token):
    alice, bob = ask(issuer), ask(issuer, sub="bob")
    assert code(guard, alice) == "allowed"

    answer = send(guard, token, wanted("revoke", {"subject": "alice", "reason": "laptop lost"}))

    assert answer.json() == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {"done": True, "had_effect": True, "reaches": "process"},
    }
    assert answer.headers["cache-control"] == "no-store"
    assert (code(guard, alice), code(guard, bob)) == ("token_revoked", "allowed")


@pytest.mark.parametrize(
    "named",
    [
        {"issuer": ISSUER},
        {"token_id": "t-1"},
        {"client_id": "agent"},
        {"session": "s-1"},
        {"key_id": "key-1"},
        {"subject": "alice", "issued_before": 4_000_000_000},
    ],
)
def test_everything_that_names_a_token_can_be_revoked(guard, issuer, named):
    request = ask(issuer, jti="t-1", sid="s-1")
    assert code(guard, request) == "allowed"

    assert send(guard, administrator(issuer), wanted("revoke", named)).status_code == 200

    assert code(guard, request) == "token_revoked"


def test_block_and_its_end_hold_from_the_next_call(guard, issuer, token):
    request = ask(issuer)

    send(guard, token, wanted("block", {"tool": "add"}))
    assert code(guard, request) == "blocked"
    lifted = send(guard, token, wanted("unblock", {"tool": "add"}))
    assert lifted.json()["result"]["had_effect"] is True
    assert code(guard, request) == "allowed"

    again = send(guard, token, wanted("unblock", {"tool": "add"}))
    assert again.json()["result"]["had_effect"] is False


def test_status_counts_and_shows_no_secret(guard, issuer, token):
    call = ask(issuer)
    guard.check(call)
    send(guard, token, wanted("block", {"tool": "run_query"}))

    answer = send(guard, token)

    found = answer.json()["result"]
    assert found["counts"]["blocks"] == 1
    assert found["counts"]["tokens_cached"] == 1
    assert found["limits"] == {"mode": "local"}
    assert found["policy"] == guard.gate.policy_digest
    assert token not in answer.text


def test_keys_are_refreshed_when_an_administrator_says_so(guard, token, monkeypatch):
    asked = []
    monkeypatch.setattr(guard, "refresh_keys", lambda: asked.append(1))

    assert send(guard, token, wanted("refresh_keys")).json()["result"] == {"done": True, "reaches": "process"}

    assert asked == [1]


# --- who may ----------------------------------------------------------------------------------------


def test_request_without_a_token_is_refused_and_told_no_way_to_get_one(guard):
    answer = send(guard)

    assert refused(answer) == ("token_missing", 401)
    assert "resource_metadata" not in answer.headers["www-authenticate"]


def test_token_for_tools_does_not_pass_whatever_its_scopes(guard, issuer):
    tools = issuer.token(scope="fastguard:admin warehouse:query:read")
    assert guard.check(ToolRequest.direct(tool="add", arguments={}, token=tools))

    assert refused(send(guard, tools, wanted("block", {"tool": "add"}))) == ("audience_mismatch", 401)
    assert code(guard, ask(issuer)) == "allowed"


def test_token_for_the_endpoint_calls_no_tool(guard, issuer, token):
    assert send(guard, token).status_code == 200

    assert code(guard, ToolRequest.direct(tool="add", arguments={}, token=token)) == "audience_mismatch"


def test_token_without_the_scope_is_refused(guard, issuer):
    answer = send(guard, administrator(issuer, scope="warehouse:query:read"))

    assert refused(answer) == ("scope_insufficient", 403)
    assert 'scope="fastguard:admin"' in answer.headers["www-authenticate"]


def test_scope_that_implies_the_administrators_for_tools_implies_it_not_here(make_guard, issuer):
    guard = make_guard(admin={"issuer": ISSUER}, scopes={"boss": {"implies": ["fastguard:admin"]}})

    assert refused(send(guard, administrator(issuer, scope="boss"))) == ("scope_insufficient", 403)
    assert send(guard, administrator(issuer)).status_code == 200


def test_token_of_another_issuer_is_refused_though_it_may_call_tools(make_guard, issuer):
    other = Issuer(OTHER, "key-1")
    issuers = [
        {"issuer": ISSUER, "jwks": issuer.jwks, "algorithms": ["ES256"], "asserts_scopes": ["*"]},
        {"issuer": OTHER, "jwks": other.jwks, "algorithms": ["ES256"], "asserts_scopes": ["*"]},
    ]
    guard = make_guard(issuers=issuers, admin={"issuer": ISSUER})
    assert code(guard, ask(other)) == "allowed"

    assert refused(send(guard, administrator(other)))[1] == 401
    forged = Issuer(ISSUER, "key-1")
    assert refused(send(guard, administrator(forged))) == ("signature_invalid", 401)
    assert send(guard, administrator(issuer)).status_code == 200


def test_token_of_another_audience_is_refused(guard, issuer):
    assert refused(send(guard, administrator(issuer, aud="https://elsewhere.example.com"))) == (
        "audience_mismatch",
        401,
    )
    assert refused(send(guard, administrator(issuer, aud=ADMIN + "/"))) == ("audience_mismatch", 401)


def test_expired_and_revoked_tokens_of_administrators_are_refused(guard, issuer, token):
    assert refused(send(guard, administrator(issuer, exp=1_000_000_000, iat=999_999_000)))[0] == "token_expired"
    assert send(guard, token).status_code == 200

    guard.revoke(subject="root")

    assert refused(send(guard, token)) == ("token_revoked", 401)


def test_blocked_administrator_is_refused(guard, issuer, token):
    guard.block(subject="root")

    assert refused(send(guard, token)) == ("blocked", 403)


def test_administrator_is_refused_where_the_rooms_for_tools_only_observe(make_guard, issuer):
    observe = {"rooms": ["token", "binding", "limits", "policy"], "until": "2999-01-01"}
    guard = make_guard(admin={"issuer": ISSUER}, observe=observe)

    assert refused(send(guard)) == ("token_missing", 401)
    assert refused(send(guard, administrator(issuer, scope="none"))) == ("scope_insufficient", 403)


def test_administrator_is_limited_by_a_window_of_its_own(make_guard, issuer, token):
    guard = make_guard(admin={"issuer": ISSUER, "quota": "2/minute"})

    for _ in range(2):
        assert send(guard, token).status_code == 200
    limited = send(guard, token)

    assert refused(limited) == ("quota_spent", 429)
    assert limited.json()["error"]["data"]["limit"]["policy"].startswith("admin")
    assert send(guard, administrator(issuer, sub="other")).status_code == 200
    assert code(guard, ask(issuer, sub="root", client_id="console")) == "allowed"


# --- bindings ---------------------------------------------------------------------------------------


@pytest.fixture
def holder():
    return Holder()


def proved(token, holder, url=ADMIN, **claims):
    return {"authorization": f"DPoP {token}", "dpop": holder.proof(token, htu=url, **claims)}


def test_bound_token_passes_with_its_proof_and_the_proof_only_once(guard, issuer, holder):
    bound = administrator(issuer, cnf=holder.confirmation)
    headers = proved(bound, holder)

    assert send(guard, headers=headers).status_code == 200
    assert refused(send(guard, headers=headers)) == ("proof_replayed", 401)


def test_bound_token_as_a_bearers_is_refused(guard, issuer, holder):
    assert refused(send(guard, administrator(issuer, cnf=holder.confirmation))) == ("bound_as_bearer", 401)


def test_proof_for_the_resource_is_none_for_the_endpoint(guard, issuer, holder):
    bound = administrator(issuer, cnf=holder.confirmation)

    assert refused(send(guard, headers=proved(bound, holder, url=RESOURCE))) == ("proof_url_mismatch", 401)


def test_bearers_are_refused_where_the_configuration_demands_proofs(make_guard, issuer, holder, token):
    guard = make_guard(admin={"issuer": ISSUER}, dpop={"mode": "required"})

    assert refused(send(guard, token)) == ("binding_missing", 401)
    assert send(guard, headers=proved(administrator(issuer, cnf=holder.confirmation), holder)).status_code == 200


# --- what browsers could be made to send --------------------------------------------------------------


def test_form_of_a_page_is_refused(guard, token):
    form = {"content-type": "application/x-www-form-urlencoded"}

    assert refused(send(guard, body=b"method=fastguard/block", headers=form)) == ("body_type_refused", 415)
    assert refused(send(guard, token, headers={"content-type": "text/plain"})) == ("body_type_refused", 415)
    assert refused(send(guard, token, headers={"content-type": None})) == ("body_type_refused", 415)
    assert send(guard, token, headers={"content-type": "application/json; charset=utf-8"}).status_code == 200


def test_page_of_any_origin_is_refused_even_the_servers_own(guard, token):
    for origin in (BASE, "https://evil.example", "null"):
        answer = send(guard, token, headers={"origin": origin})

        assert refused(answer) == ("origin_refused", 403)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_preflight_is_granted_nothing(guard, inner):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST", "content-type": None}

    answer = send(guard, body=b"", method="OPTIONS", headers=asked, app=inner)

    assert refused(answer) == ("origin_refused", 403)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert inner.reached == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(guard, token, inner, method):
    answer = send(guard, token, method=method, app=inner)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert inner.reached == []


# --- bodies -------------------------------------------------------------------------------------------


def test_body_beyond_the_bound_is_refused_and_at_the_bound_is_read(guard, token):
    whole = json.dumps(wanted()).encode()

    assert send(guard, token, whole.ljust(MAX_ADMIN_BODY_BYTES)).status_code == 200
    assert refused(send(guard, token, whole.ljust(MAX_ADMIN_BODY_BYTES + 1))) == ("body_too_large", 413)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_not_json"),
        (b'{"jsonrpc": "2.0"', "body_not_json"),
        (b"[]", "batch_refused"),
        (b'{"jsonrpc":"2.0","id":1,"method":"fastguard/block","method":"fastguard/status"}', "member_duplicated"),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"fastguard/block","params":{"tool":"add","tool":"ask"}}',
            "member_duplicated",
        ),
        (json.dumps(wanted(extra=1)).encode(), "message_invalid"),
        (b'{"jsonrpc":"2.0","method":"fastguard/status"}', "message_invalid"),
        (b'{"jsonrpc":"2.0","id":1,"method":"fastguard/status","params":[]}', "message_invalid"),
        (json.dumps(wanted("status", {"a": "b"})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"until": 4_000_000_000})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": ""})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": 1})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": "add", "until": True})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": "add", "until": -1})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": "add", "token_id": "t"})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": "add", "surprise": "t"})).encode(), "message_invalid"),
        (json.dumps(wanted("block", {"tool": "add", "at": 1})).encode(), "message_invalid"),
        (json.dumps(wanted("reload")).encode(), "target_unknown"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "message_invalid"),
    ],
)
def test_body_that_is_no_act_is_refused_and_does_nothing(guard, issuer, token, body, code):
    assert refused(send(guard, token, body))[0] == code

    assert dict(guard.gate.statistics())["blocks"] == 0
    assert guard.check(ask(issuer))


def test_call_of_a_tool_is_none_of_the_endpoints(guard, token, inner):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {}}}

    assert refused(send(guard, token, call, app=inner)) == ("target_unknown", 403)
    assert inner.reached == []


# --- paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/fastguard/admin/",
        b"/fastguard/admin/..",
        b"/fastguard/admin/../admin",
        b"/fastguard//admin",
        b"/FASTGUARD/ADMIN",
        b"/fastguard/admin;x",
        b"/mcp/../fastguard/admin",
        b"/fastguard/admin%2f",
    ],
)
def test_path_that_is_almost_the_endpoints_is_nobodys(guard, token, inner, path):
    answers = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(wanted()).encode()}

    async def sending(message):
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path.decode(),
        "raw_path": path,
        "query_string": b"",
        "root_path": "",
        "client": ("192.0.2.7", 1),
        "headers": [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")],
    }
    run(guard.asgi(inner)(scope, receive, sending))

    assert answers[0]["status"] == 404
    assert inner.reached == []


def test_endpoint_serves_beside_a_mounted_app_by_its_routes(guard, issuer, token, inner):
    app = Starlette(routes=[*guard.admin_routes(), Mount("/", guard.asgi(inner))])

    async def asked():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE) as http:
            headers = {"authorization": f"Bearer {token}"}
            return await http.post("/fastguard/admin", json=wanted("block", {"tool": "add"}), headers=headers)

    assert run(asked()).status_code == 200
    assert code(guard, ask(issuer)) == "blocked"
    assert inner.reached == []


def test_guard_without_the_table_has_no_routes(make_guard):
    assert make_guard().admin_routes() == []


# --- records ------------------------------------------------------------------------------------------


def test_act_is_recorded_with_who_did_it(guard, token):
    send(guard, token, wanted("revoke", {"subject": "alice"}))
    send(guard, token, wanted("block", {"tool": "add"}))
    send(guard, token, wanted("unblock", {"tool": "add"}))

    decisions = records(guard, "decision")
    acts = records(guard, "revoked", "blocked", "unblocked")
    assert [decision["method"] for decision in decisions] == [
        f"fastguard/{act}" for act in ("revoke", "block", "unblock")
    ]
    assert {decision["authenticated_identity"]["subject"] for decision in decisions} == {"root"}
    for act, decision in zip(acts, decisions, strict=True):
        assert (act["admin_issuer"], act["admin_subject"], act["admin_client_id"]) == (ISSUER, "root", "console")
        assert decision["id"].endswith(act["admin_record"])


def test_act_of_the_server_itself_names_no_administrator(guard):
    guard.block(tool="add")

    [act] = records(guard, "blocked")
    assert not [name for name in act if name.startswith("admin")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"method": "GET"}, "http_method_refused"),
        ({"headers": {"origin": "https://evil.example"}}, "origin_refused"),
        ({"headers": {"content-type": "text/plain"}}, "body_type_refused"),
        ({"body": b" " * (MAX_ADMIN_BODY_BYTES + 1)}, "body_too_large"),
        ({"body": b"{}"}, "message_invalid"),
        ({"headers": {"authorization": None}}, "token_missing"),
    ],
)
def test_refusal_is_recorded_with_its_code(guard, token, change, code):
    assert send(guard, token, **change).status_code >= 400

    [decision] = records(guard, "decision")
    assert (decision["result"], decision["code"]) == ("denied", code)


def test_act_that_names_nothing_is_recorded_as_failed(guard, token):
    send(guard, token, wanted("block", {}))

    [ending] = records(guard, "ending")
    assert (ending["status"], ending["error"]) == ("error", "RequestDenied")


# --- when something fails -------------------------------------------------------------------------------


def test_full_table_is_said(guard, token, monkeypatch):
    def full(*_, **__):
        raise ValueError("the table of revocations is full")

    monkeypatch.setattr(Entry, "apply", full)

    assert refused(send(guard, token, wanted("revoke", {"subject": "alice"}))) == ("revocations_full", 500)


def test_reload_keeps_windows_and_used_proofs_and_changes_the_path(config, make_guard, issuer, holder, tmp_path):
    guard = make_guard(admin={"issuer": ISSUER, "quota": "2/minute"})
    bound = administrator(issuer, cnf=holder.confirmation)
    headers = proved(bound, holder)
    assert send(guard, headers=headers).status_code == 200

    guard.reload()

    assert refused(send(guard, headers=headers)) == ("proof_replayed", 401)
    assert send(guard, headers=proved(bound, holder)).status_code == 200
    assert refused(send(guard, headers=proved(bound, holder))) == ("quota_spent", 429)


def test_proof_of_an_administrators_call_is_no_parent_of_a_tools(guard, token):
    async def nested():
        request = ToolRequest.http(
            method="POST",
            path="/fastguard/admin",
            headers=[(b"authorization", f"Bearer {token}".encode())],
            body=json.dumps(wanted()).encode(),
        )
        async with guard.call(request) as call:
            await call.nested(ToolRequest.direct(tool="add", arguments={}))

    with pytest.raises(Denied) as denied:
        run(nested())
    assert denied.value.code == "audience_mismatch"


def test_proof_of_a_tools_call_is_no_parent_of_an_administrators(guard, issuer):
    async def nested():
        token = issuer.token(scope="fastguard:admin")
        async with guard.call(ToolRequest.direct(tool="add", arguments={}, token=token)) as call:
            body = json.dumps(wanted()).encode()
            await call.nested(ToolRequest.http(method="POST", path="/fastguard/admin", headers=[], body=body))

    with pytest.raises(Denied) as denied:
        run(nested())
    assert denied.value.code == "audience_mismatch"


def test_closed_guard_serves_no_administrator(guard, token):
    guard.close()

    assert refused(send(guard, token)) == ("closed", 500)
