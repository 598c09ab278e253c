"""`DPoPAuth`: the official MCP client with tokens that are bound to a key, against the guard and the authorization server."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_fastguard.client import ClientCredentials, DPoPAuth, RequestSigner
from mcp_fastguard.dev.authorization_server import AuthorizationServer
from support import RESOURCE, records
from transport_support import BASE, message, run, served

ISSUER_URL = "http://127.0.0.1:8777"


def app_of(guard):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return guard.asgi(mcp.streamable_http_app(transport_security=security))


def call(guard, auth, times=1):
    async def walk():
        async with (
            served(app_of(guard)) as transport,
            httpx2.AsyncClient(transport=transport, auth=auth, base_url=BASE) as http,
            Client(streamable_http_client(RESOURCE, http_client=http)) as client,
        ):
            return [(await client.call_tool("add", {"a": 1, "b": 2})).content[0].text for _ in range(times)]

    return run(walk())


@pytest.fixture
def auth(issuer):
    key = ECKey.generate_key("P-256").as_dict(private=True)
    return DPoPAuth(issuer.token(cnf={"jkt": DPoPAuth("", key=key).thumbprint}), key=key)


def test_official_client_calls_with_a_proof_for_each_request(make_guard, auth):
    guard = make_guard(dpop={"mode": "required"})

    assert call(guard, auth, times=3) == ["3"] * 3


def test_nonces_are_followed_and_kept(make_guard, auth, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef0123456789abcdef")
    guard = make_guard(dpop={"mode": "required", "nonce": "required", "nonce_secret_file": str(secret)})

    assert call(guard, auth, times=3) == ["3"] * 3
    codes = [record["code"] for record in records(guard) if record.get("result") == "denied"]
    assert codes == ["nonce_required"]


def test_stolen_token_is_worthless_without_the_key(make_guard, auth):
    guard = make_guard()
    thief = DPoPAuth(auth._token)

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
            found = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "add"}
            stolen = await http.post("/mcp", json=body, headers=found, auth=thief)
            bare = await http.post("/mcp", json=body, headers={**found, "authorization": f"Bearer {auth._token}"})
            return stolen.status_code, bare.status_code

    assert run(walk()) == (401, 401)
    codes = [record["code"] for record in records(guard) if record.get("result") == "denied"]
    assert codes == ["proof_key_mismatch", "bound_as_bearer"]


@pytest.fixture
def server():
    return AuthorizationServer(ISSUER_URL, RESOURCE)


def credentials(server, **changes):
    secret = server.add_client("agent", ["warehouse:query:read"])
    given = {"client_id": "agent", "client_secret": secret, "resource": RESOURCE, **changes}
    return ClientCredentials(f"{ISSUER_URL}/token", **given)


def asking(server, auth):
    """What the token endpoint gives to an auth, by a request that it answers with 200."""

    async def walk():
        async def app(scope, receive, send):
            if scope["path"] == "/token":
                await server.app()(scope, receive, send)
            else:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"ok"})

        transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, auth=auth) as http:
            return [await http.get(f"{ISSUER_URL}/x") for _ in range(2)]

    return asyncio.run(walk())


def test_bound_token_is_got_once_and_used(server, make_guard, config):
    config["issuers"] = [{"issuer": ISSUER_URL, "jwks": server.jwks, "allow_http_loopback": True}]
    auth = DPoPAuth(credentials(server))
    first, second = asking(server, auth)

    assert first.request.headers["authorization"] == second.request.headers["authorization"]
    assert first.request.headers["dpop"] != second.request.headers["dpop"]
    assert call(make_guard(dpop={"mode": "required"}), auth) == ["3"]


def test_refusal_of_the_authorization_server_reaches_the_caller(server):
    with pytest.raises(httpx2.HTTPStatusError):
        asking(server, DPoPAuth(credentials(server, client_secret="wrong")))


@pytest.mark.parametrize(
    "change",
    [
        lambda auth: auth.proof("GET", f"{ISSUER_URL}/token"),
        lambda auth: auth.proof("POST", f"{ISSUER_URL}/other"),
        lambda auth: auth.proof("POST", f"{ISSUER_URL}/token")[:-4] + "AAAA",
        lambda _: "garbage",
        lambda _: "x" * 5_000,
    ],
)
def test_authorization_server_refuses_a_proof_that_does_not_fit(server, change):
    auth = DPoPAuth("")
    request = credentials(server).request(change(auth))

    async def walk():
        transport = httpx2.ASGITransport(server.app(), client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport) as http:
            return await http.send(request)

    answer = asyncio.run(walk())
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_authorization_server_takes_a_proof_once(server):
    request_of = credentials(server).request
    proof = DPoPAuth("").proof("POST", f"{ISSUER_URL}/token")

    async def walk():
        transport = httpx2.ASGITransport(server.app(), client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport) as http:
            return [(await http.send(request_of(proof))).status_code for _ in range(2)]

    assert asyncio.run(walk()) == [200, 400]


def walked(auth, *answers):
    """The requests that an auth sends for one call, where the token endpoint answers so, one after the other."""
    call = httpx2.Request("POST", RESOURCE)
    flow = auth.sync_auth_flow(call)
    sent = [next(flow)]
    for status, headers, body in answers:
        if sent[-1] is call:
            break
        answer = httpx2.Response(status, headers=headers, json=body, request=sent[-1])
        sent.append(flow.send(answer))
    return ["call" if request is call else "token" for request in sent]


def test_token_that_lives_for_less_than_it_is_renewed_early_is_used_and_got_anew_for_the_next_call(server):
    auth = DPoPAuth(credentials(server))
    short = (200, {}, {"token_type": "DPoP", "access_token": "t", "expires_in": 20})

    assert walked(auth, short, short) == ["token", "call"]
    assert walked(auth, short, short) == ["token", "call"]


def test_authorization_server_that_wants_one_nonce_after_another_is_asked_twice(server):
    auth = DPoPAuth(credentials(server))
    wanting = [(400, {"dpop-nonce": f"nonce-{number}"}, {"error": "use_dpop_nonce"}) for number in range(2)]

    with pytest.raises(httpx2.HTTPStatusError):
        walked(auth, *wanting)


class Demanding:
    """A token endpoint and a server that each want a nonce first."""

    def __init__(self):
        self.requests = []

    def __call__(self, request):
        path = request.url.path
        is_first = path not in {seen for seen, _ in self.requests}
        # A request that is sent again is the same one, with other headers.
        self.requests.append((path, dict(request.headers)))
        if is_first:
            if path == "/token":
                return httpx2.Response(400, headers={"dpop-nonce": "n1"}, json={"error": "use_dpop_nonce"})
            challenge = 'DPoP error="use_dpop_nonce"'
            return httpx2.Response(401, headers={"dpop-nonce": "n2", "www-authenticate": challenge})
        if path == "/token":
            return httpx2.Response(200, json={"token_type": "DPoP", "access_token": "t"})
        return httpx2.Response(200, headers={"dpop-nonce": "n3"})


@pytest.mark.parametrize("is_async", [False, True])
def test_nonces_of_both_servers_are_followed_by_both_kinds_of_client(server, is_async):
    demanding = Demanding()
    auth = DPoPAuth(credentials(server))

    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(demanding), auth=auth) as http:
            return [await http.post(RESOURCE), await http.post(RESOURCE)]

    if is_async:
        answers = run(walk())
    else:
        with httpx2.Client(transport=httpx2.MockTransport(demanding), auth=auth) as http:
            answers = [http.post(RESOURCE), http.post(RESOURCE)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [path for path, _ in demanding.requests] == ["/token", "/token", "/mcp", "/mcp", "/mcp"]
    proofs = [jws.extract_compact(found["dpop"].encode()).payload for _, found in demanding.requests]
    assert [json.loads(proof).get("nonce") for proof in proofs] == [None, "n1", None, "n2", "n3"]


@pytest.mark.parametrize("body", [b'{"token_type": "Bearer", "access_token": "t"}', b"<html>", b"[]"])
def test_answer_that_is_no_bound_token_is_refused(server, body):
    answering = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))

    with (
        httpx2.Client(transport=answering, auth=DPoPAuth(credentials(server))) as http,
        pytest.raises(ValueError, match="not bound to the key"),
    ):
        http.post(RESOURCE)


@pytest.mark.parametrize("is_async", [False, True])
def test_signer_signs_the_call_and_not_the_request_for_its_token(server, is_async):
    demanding = Demanding()
    signer = RequestSigner(ECKey.generate_key("P-256").as_dict(private=True), inner=DPoPAuth(credentials(server)))

    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(demanding), auth=signer) as http:
            return await http.post(RESOURCE)

    if is_async:
        answer = run(walk())
    else:
        with httpx2.Client(transport=httpx2.MockTransport(demanding), auth=signer) as http:
            answer = http.post(RESOURCE)

    assert answer.status_code == 200
    signed = ["signature" in found for _, found in demanding.requests]
    assert signed == [False, False, True, True]
    assert signer.key_id in repr(signer)


def test_token_request_asks_for_the_scopes_that_are_named(server):
    request = credentials(server, scopes=["a:read", "b:read"]).request("proof")

    assert parse_qs(request.content.decode())["scope"] == ["a:read b:read"]


@pytest.mark.parametrize("kind", [{"private": False}, {"curve": "P-384"}])
def test_key_that_cannot_sign_proofs_is_refused_at_once(kind):
    key = ECKey.generate_key(kind.get("curve", "P-256")).as_dict(private=kind.get("private", True))

    with pytest.raises(ValueError, match="P-256"):
        DPoPAuth("", key=key)


def test_repr_holds_neither_token_nor_key(auth):
    assert auth._token not in repr(auth)
    assert auth._key.as_dict(private=True)["d"] not in repr(auth)
