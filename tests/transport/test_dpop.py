"""Tokens bound to a key, through a whole server: the official SDK's and FastMCP's, with their own auth behind the guard.

The names of some tests are the check ids of MCP's conformance list for servers (SEP-1932).
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from proof_support import Holder
from support import RESOURCE
from transport_support import headers, message, run, served

CALL = {"name": "headers", "arguments": {}}


def sdk_app(guard):
    mcp = MCPServer(
        "test",
        middleware=[guard.mcp_middleware()],
        token_verifier=guard.token_verifier(),
        auth=AuthSettings(
            issuer_url="https://auth.example.com", resource_server_url=RESOURCE, validate_token_resource=True
        ),
    )

    @mcp.tool(name="headers")
    def show(ctx: Context) -> str:
        request = ctx.request_context.request
        scheme = request.headers["authorization"].split(" ")[0]
        return json.dumps([scheme, "dpop" in request.headers, get_access_token().subject])

    return guard.asgi(
        mcp.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False))
    )


def fastmcp_app(guard):
    fastmcp = pytest.importorskip("fastmcp")
    from fastmcp.server.dependencies import get_http_request

    mcp = fastmcp.FastMCP("test", middleware=[guard.fastmcp_middleware()], auth=guard.fastmcp_auth())

    @mcp.tool(name="headers")
    def show() -> str:
        request = get_http_request()
        scheme = request.headers["authorization"].split(" ")[0]
        return json.dumps([scheme, "dpop" in request.headers, request.user.access_token.subject])

    return guard.asgi(mcp.http_app(path="/mcp", stateless_http=True, json_response=True))


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def bound(issuer, holder):
    return issuer.token(cnf=holder.confirmation)


@pytest.fixture
def open_guard(make_guard, config):
    config["tools"]["headers"] = {"open": True}
    return make_guard


async def post(http, token, proof=None, *, scheme="DPoP", body=None, extra=()):
    body = body or message("tools/call", CALL)
    found = headers(None, body["method"], body["params"].get("name"))
    listed = [*found.items(), ("authorization", f"{scheme} {token}"), *extra]
    proofs = [proof] if isinstance(proof, str) else proof or []
    return await http.post(RESOURCE, json=body, headers=[*listed, *(("dpop", text) for text in proofs)])


def answers(guard, ask, *, app=sdk_app):
    """What ``ask(http)`` gives."""

    async def walk():
        async with served(app(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            return await ask(http)

    return run(walk())


@pytest.mark.parametrize("app", [sdk_app, fastmcp_app])
def test_app_behind_the_guard_sees_a_bearer_token_and_no_proof(open_guard, bound, holder, app):
    guard = open_guard()
    answer = answers(guard, lambda http: post(http, bound, holder.proof(bound)), app=app)

    assert answer.status_code == 200, answer.text
    assert json.loads(answer.json()["result"]["content"][0]["text"]) == ["Bearer", False, "alice"]


@pytest.mark.parametrize("app", [sdk_app, fastmcp_app])
def test_bound_token_without_its_proof_reaches_no_app(open_guard, bound, holder, app):
    guard = open_guard()

    async def ask(http):
        bearer = await post(http, bound, scheme="Bearer")
        with_proof = await post(http, bound, holder.proof(bound), scheme="Bearer")
        missing = await post(http, bound)
        return [
            (answer.status_code, answer.json()["error"]["data"]["code"]) for answer in (bearer, with_proof, missing)
        ]

    found = answers(guard, ask, app=app)
    assert found == [(401, "bound_as_bearer"), (401, "bound_as_bearer"), (401, "proof_missing")]


def test_sep_1932_server_validate_proof(open_guard, bound, holder):
    guard = open_guard()
    thief = Holder()
    proofs = {
        "proof_signature_invalid": thief.proof(bound, header={"jwk": holder.key.as_dict(private=False)}),
        "proof_key_mismatch": thief.proof(bound),
        "proof_method_mismatch": holder.proof(bound, htm="GET"),
        "proof_url_mismatch": holder.proof(bound, htu="https://other.example.com/mcp"),
        "proof_token_mismatch": holder.proof("another token"),
        "proof_malformed": holder.proof(bound, header={"typ": "JWT"}),
        "proof_key_refused": holder.proof(bound, header={"jwk": holder.key.as_dict(private=True)}),
        "proof_duplicated": [holder.proof(bound), holder.proof(bound)],
    }

    async def ask(http):
        found = {code: await post(http, bound, proof) for code, proof in proofs.items()}
        return found, await post(http, bound, holder.proof(bound))

    found, good = answers(guard, ask)
    assert {code: answer.json()["error"]["data"]["code"] for code, answer in found.items()} == {
        code: code for code in proofs
    }
    assert good.status_code == 200


def test_sep_1932_server_iat_window(open_guard, bound, holder):
    guard = open_guard()

    async def ask(http):
        now = time.time()
        times = (now - 310, now + 310, now - 290, now + 290)
        return [(await post(http, bound, holder.proof(bound, now=at))).status_code for at in times]

    assert answers(guard, ask) == [401, 401, 200, 200]


def test_sep_1932_server_reject_401(open_guard, bound, holder):
    guard = open_guard()
    proof = holder.proof(bound)

    async def ask(http):
        return await post(http, bound, proof), await post(http, bound, proof)

    first, second = answers(guard, ask)
    assert (first.status_code, second.status_code) == (200, 401)
    challenge = second.headers["www-authenticate"]
    assert challenge.startswith('DPoP error="invalid_dpop_proof"')
    assert 'algs="EdDSA Ed25519 ES256"' in challenge
    assert 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"' in challenge
    assert second.headers["cache-control"] == "no-store"


def test_sep_1932_server_nonce(open_guard, bound, holder):
    guard = open_guard(dpop={"nonce": "required"})

    async def ask(http):
        refused = await post(http, bound, holder.proof(bound))
        nonce = refused.headers["dpop-nonce"]
        return refused, await post(http, bound, holder.proof(bound, nonce=nonce))

    refused, followed = answers(guard, ask)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    assert followed.status_code == 200
    assert "dpop-nonce" not in followed.headers


def test_nonce_about_to_end_is_followed_by_the_next_one(open_guard, bound, holder, tmp_path):
    secret = b"s" * 32
    (tmp_path / "nonce.secret").write_bytes(secret)
    guard = open_guard(dpop={"nonce": "required", "nonce_secret_file": str(tmp_path / "nonce.secret")})

    def nonce_of(step):
        tag = hmac.digest(secret, b"mcp-fastguard dpop nonce 1" + step.to_bytes(8, "big"), "sha256")
        return base64.urlsafe_b64encode(bytes([step % 256]) + tag[:15]).rstrip(b"=").decode()

    async def ask(http):
        # The minute may end meanwhile.
        for _ in range(3):
            last = await post(http, bound, holder.proof(bound, nonce=nonce_of(int(time.time()) // 60 - 1)))
            if "dpop-nonce" in last.headers and last.status_code == 200:
                break
        assert "no-store" in last.headers["cache-control"]
        following = await post(http, bound, holder.proof(bound, nonce=last.headers["dpop-nonce"]))
        return last.status_code, following.status_code, await post(http, bound, holder.proof(bound, nonce="x"))

    *passed, refused = answers(guard, ask)
    assert (passed, refused.status_code) == ([200, 200], 401)


def test_sep_1932_server_audience_validation(open_guard, issuer, holder):
    guard = open_guard()
    text = issuer.token(cnf=holder.confirmation, aud="https://other.example.com/mcp")
    answer = answers(guard, lambda http: post(http, text, holder.proof(text)))
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (401, "audience_mismatch")
    assert 'DPoP error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_sep_1932_asymmetric_alg_only(open_guard, bound, holder, algorithm):
    guard = open_guard()
    header, payload, _ = holder.proof(bound).split(".")
    fields = {"typ": "dpop+jwt", "alg": algorithm, "jwk": holder.key.as_dict(private=False)}
    header = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    answer = answers(guard, lambda http: post(http, bound, f"{header}.{payload}.AAAA"))
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (401, "proof_algorithm_refused")


def test_long_body_is_read_after_its_proof_was_looked_at_and_the_proof_passes_once(open_guard, bound, holder):
    guard = open_guard()
    long = message("tools/call", {"name": "headers", "arguments": {"x": "y" * 100_000}})

    async def ask(http):
        proof = holder.proof(bound)
        first = await post(http, bound, proof, body=long)
        return [answer.status_code for answer in (first, await post(http, bound, proof, body=long))]

    assert answers(guard, ask) == [200, 401]


@pytest.mark.parametrize(("mode", "required"), [("optional", False), ("required", True)])
def test_metadata_announce_the_algorithms_of_proofs(open_guard, mode, required):
    guard = open_guard(dpop={"mode": mode, "algorithms": ["ES256", "PS256"]})
    path = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
    document = answers(guard, lambda http: http.get(path)).json()
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "PS256"]
    assert document["dpop_bound_access_tokens_required"] is required


def test_metadata_say_nothing_of_proofs_that_are_not_taken(open_guard):
    guard = open_guard(dpop={"mode": "off"})
    path = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
    document = answers(guard, lambda http: http.get(path)).json()
    assert not [name for name in document if name.startswith("dpop")]


def test_verifier_of_the_sdk_refuses_a_bound_token_that_came_round_the_guard(open_guard, bound):
    guard = open_guard()
    assert run(guard.token_verifier().verify_token(bound)) is None


def test_bearer_tokens_pass_as_before(open_guard, issuer):
    guard = open_guard()
    answer = answers(guard, lambda http: post(http, issuer.token(), scheme="Bearer"))
    assert json.loads(answer.json()["result"]["content"][0]["text"]) == ["Bearer", False, "alice"]


@pytest.mark.parametrize(
    ("room", "method", "expected"),
    [("binding", "GET", ["DPoP", True]), ("policy", "POST", ["Bearer", False])],
)
def test_request_whose_proof_is_refused_and_observed_passes_as_it_came(make_guard, issuer, room, method, expected):
    guard = make_guard(observe={"rooms": [room], "until": (datetime.now(UTC) + timedelta(days=30)).date().isoformat()})
    guard.attached.add("http")
    holder = Holder()
    text = issuer.token(cnf=holder.confirmation)
    seen = []

    async def inner(scope, receive, send):
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        found = dict(scope["headers"])
        seen.append([found[b"authorization"].split(b" ")[0].decode(), b"dpop" in found])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    body = message("tools/call", {"name": "secret", "arguments": {}})
    answer = answers(
        guard,
        lambda http: post(http, text, holder.proof(text, htm=method), body=body),
        app=lambda guard: guard.asgi(inner),
    )
    assert (answer.status_code, seen) == (200, [expected])
