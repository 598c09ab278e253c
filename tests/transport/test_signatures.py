"""Signed requests (RFC 9421) through a whole server: our signer, one that no one here wrote, and what is changed on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    algorithms,
)
from joserfc.jwk import ECKey, OKPKey, RSAKey
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_fastguard import ToolRequest
from mcp_fastguard.client import DPoPAuth, RequestSigner
from mcp_fastguard.errors import BindingDenied, PolicyDenied
from servers_support import free_socket, running
from support import RESOURCE, records, skip_aloud
from transport_support import BASE, headers, message, run, served

PAGE = Path(__file__).parents[2] / "docs/rooms/binding.md"
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
COMPONENTS = ("@method", "@target-uri", "content-digest", "authorization")

KEYS = {
    "P-256": lambda: ECKey.generate_key("P-256"),
    "P-384": lambda: ECKey.generate_key("P-384"),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
    "RSA": lambda: RSAKey.generate_key(2048),
}


def app_of(guard):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int, note: str = "") -> int:
        return a + b

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return guard.asgi(mcp.streamable_http_app(transport_security=security))


@pytest.fixture
def key():
    return OKPKey.generate_key("Ed25519")


@pytest.fixture
def signing_guard(make_guard, key):
    """A guard that takes signed requests alone, and knows the client's key."""

    def make(found=key, **table):
        client = {"client_id": "agent", "jwks": {"keys": [{**found.as_dict(private=False), "kid": "agent-1"}]}}
        return make_guard(signatures={"mode": "required", "clients": [client], **table})

    return make


@pytest.fixture
def signer(key):
    return RequestSigner(key.as_dict(private=True), key_id="agent-1")


def posting(guard, auth, *, token, times=1, arguments=None, url="/mcp"):
    """What a tool's calls are answered with: the status, and the guard's code."""

    async def walk():
        async with (
            served(app_of(guard)) as transport,
            httpx2.AsyncClient(transport=transport, auth=auth, base_url=BASE) as http,
        ):
            body = message("tools/call", {**CALL, "arguments": {**CALL["arguments"], **(arguments or {})}})
            found = headers(token, "tools/call", "add")
            return [outcome(await http.post(url, json=body, headers=found)) for _ in range(times)]

    return run(walk())


def outcome(answer):
    if answer.status_code == 200:
        return "allowed"
    return json.loads(answer.content)["error"]["data"]["code"]


@pytest.mark.parametrize("kind", KEYS)
def test_official_client_signs_each_request(kind, signing_guard, issuer):
    key = KEYS[kind]()
    signer = RequestSigner(key.as_dict(private=True))

    async def walk():
        async with (
            served(app_of(signing_guard(key))) as transport,
            httpx2.AsyncClient(
                transport=transport, auth=signer, base_url=BASE, headers={"authorization": f"Bearer {issuer.token()}"}
            ) as http,
            Client(streamable_http_client(RESOURCE, http_client=http)) as client,
        ):
            return [(await client.call_tool("add", {"a": 1, "b": 2})).content[0].text for _ in range(3)]

    assert run(walk()) == ["3"] * 3


@pytest.mark.parametrize("nonce", ["off", "required"])
def test_signer_and_proofs_go_together_by_one_key(nonce, make_guard, issuer, tmp_path):
    """The client has registered no key, and follows nonces: each request is signed anew."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    file = {"nonce_secret_file": str(secret)} if nonce == "required" else {}
    guard = make_guard(dpop={"mode": "required", "nonce": nonce, **file}, signatures={"mode": "required"})
    key = ECKey.generate_key("P-256").as_dict(private=True)
    thumbprint = DPoPAuth("", key=key).thumbprint
    inner = DPoPAuth(issuer.token(cnf={"jkt": thumbprint}), key=key)

    assert posting(guard, RequestSigner(key, inner=inner), token=None, times=2) == ["allowed"] * 2


def test_request_that_is_not_signed_is_refused(signing_guard, issuer):
    assert posting(signing_guard(), None, token=issuer.token()) == ["signature_missing"]
    guard = signing_guard()
    with pytest.raises(BindingDenied) as denied:
        guard.check(ToolRequest.direct(tool="add", token=issuer.token()))
    assert denied.value.code == "signature_missing"


def test_rule_demands_a_signature_where_the_mode_does_not(signing_guard, signer, config, issuer):
    config["tools"]["add"]["signed"] = True

    assert posting(signing_guard(mode="optional"), None, token=issuer.token()) == ["signature_required"]
    assert posting(signing_guard(mode="optional"), signer, token=issuer.token()) == ["allowed"]
    guard = signing_guard(mode="optional")
    with pytest.raises(PolicyDenied) as denied:
        guard.check(ToolRequest.direct(tool="add", token=issuer.token()))
    assert denied.value.code == "signature_required"


def with_body(body):
    def change(request):
        request.stream = httpx2.ByteStream(body)
        request.headers["content-length"] = str(len(body))

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: None, "allowed"),
        (
            with_body(json.dumps(message("tools/call", {**CALL, "arguments": {"a": 1, "b": 9}})).encode()),
            "digest_mismatch",
        ),
        (lambda request: setattr(request, "url", request.url.copy_with(query=b"admin=1")), "signature_mismatch"),
        (lambda request: request.headers.update({"content-digest": "sha-256=:AAAA:"}), "signature_mismatch"),
        (lambda request: request.headers.pop("signature"), "signature_malformed"),
        (lambda request: request.headers.pop("signature-input"), "signature_missing"),
    ],
)
def test_what_is_changed_after_signing_is_refused(change, code, signing_guard, signer, issuer):
    class Changing(RequestSigner):
        def sign(self, request):
            signer.sign(request)
            change(request)

    changing = Changing(signer._key.as_dict(private=True))
    assert posting(signing_guard(), changing, token=issuer.token()) == [code]


def test_signature_does_not_pass_with_another_token_of_the_same_client(signing_guard, signer, issuer):
    other = issuer.token()

    class Changing(RequestSigner):
        def sign(self, request):
            signer.sign(request)
            request.headers["authorization"] = f"Bearer {other}"

    changing = Changing(signer._key.as_dict(private=True))
    assert posting(signing_guard(), changing, token=issuer.token()) == ["signature_mismatch"]


def test_query_is_covered(signing_guard, signer, issuer):
    assert posting(signing_guard(), signer, token=issuer.token(), url="/mcp?a=1&b=%20") == ["allowed"]


def test_replayed_request_is_refused(signing_guard, signer, issuer):
    sent = []

    class Repeating(RequestSigner):
        def sign(self, request):
            if not sent:
                signer.sign(request)
                sent.append(dict(request.headers))
            request.headers.update(sent[0])

    repeating = Repeating(signer._key.as_dict(private=True))
    found = posting(signing_guard(), repeating, token=issuer.token(), times=2)

    assert found == ["allowed", "signature_replayed"]


def test_long_body_is_checked_before_and_after_it_is_read(signing_guard, signer, issuer):
    long = {"note": "x" * 100_000}

    assert posting(signing_guard(), signer, token=issuer.token(), arguments=long) == ["allowed"]
    assert posting(signing_guard(), None, token=issuer.token(), arguments=long) == ["signature_missing"]

    class Changing(RequestSigner):
        def sign(self, request):
            signer.sign(request)
            with_body(request.content.replace(b"xx", b"yy"))(request)

    changing = Changing(signer._key.as_dict(private=True))
    assert posting(signing_guard(), changing, token=issuer.token(), arguments=long) == ["digest_mismatch"]


def test_record_names_the_part_that_is_wrong(signing_guard, key, issuer):
    signer = RequestSigner(key.as_dict(private=True), key_id="agent-1", components=("@method", "authorization"))
    guard = signing_guard()

    assert posting(guard, signer, token=issuer.token()) == ["signature_components"]
    assert [found["code"] for found in records(guard) if found.get("result") == "denied"] == ["signature_components"]


def test_file_of_keys_stands_beside_the_configuration(key, issuer, signer, make_guard, tmp_path):
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({**key.as_dict(private=False), "kid": "agent-1"}))
    client = {"client_id": "agent", "jwks_file": str(file)}
    guard = make_guard(signatures={"mode": "required", "clients": [client]})

    assert posting(guard, signer, token=issuer.token()) == ["allowed"]


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (lambda: OKPKey.generate_key("Ed25519").as_dict(private=False), {}),
        (lambda: OKPKey.generate_key("X25519").as_dict(private=True), {}),
        (lambda: ECKey.generate_key("P-521").as_dict(private=True), {}),
        (lambda: ECKey.generate_key("P-256").as_dict(private=True), {"key_id": "a\nb"}),
        (lambda: ECKey.generate_key("P-256").as_dict(private=True), {"tag": "\u00e9"}),
    ],
)
def test_key_that_cannot_sign_requests_is_refused_at_once(key, options):
    with pytest.raises(ValueError, match="a request is signed by|visible ASCII"):
        RequestSigner(key(), **options)


def test_header_that_is_not_there_cannot_be_signed(signer):
    with pytest.raises(ValueError, match="has no `authorization` to sign"):
        signer.sign(httpx2.Request("POST", RESOURCE, content=b"{}"))


# --- http-message-signatures, which no one here wrote ---------------------------------------------

ALGORITHMS = {
    "P-256": algorithms.ECDSA_P256_SHA256,
    "P-384": algorithms.ECDSA_P384_SHA384,
    "Ed25519": algorithms.ED25519,
    "RSA": algorithms.RSA_PSS_SHA512,
}


class Foreign(httpx2.Auth):
    """Signs by the other library."""

    requires_request_body = True

    def __init__(self, kind, key, **options):
        self._signer = HTTPMessageSigner(signature_algorithm=ALGORITHMS[kind], key_resolver=Keys(key))
        self._options = options

    def auth_flow(self, request):
        self._signer.sign(
            request,
            key_id="agent-1",
            nonce=os.urandom(12).hex(),
            covered_component_ids=COMPONENTS,
            body=request.content,
            **self._options,
        )
        yield request


class Keys:
    """One key, in the form that the library wants."""

    def __init__(self, key):
        self._key = key

    def resolve_private_key(self, key_id):
        return self._key.as_pem(private=True)

    def resolve_public_key(self, key_id):
        return self._key.as_pem(private=False)


@pytest.mark.parametrize("kind", KEYS)
def test_other_library_signs_for_us(kind, signing_guard, issuer):
    key = KEYS[kind]()

    assert posting(signing_guard(key), Foreign(kind, key), token=issuer.token(), times=2) == ["allowed"] * 2
    assert posting(signing_guard(key), Foreign(kind, KEYS[kind]()), token=issuer.token()) == ["signature_mismatch"]


@pytest.mark.parametrize("kind", KEYS)
def test_other_library_verifies_what_we_sign(kind):
    key = KEYS[kind]()
    request = httpx2.Request(
        "POST", f"{RESOURCE}?a=1", content=b'{"a": 1}', headers={"authorization": "Bearer a", "x-own": " a "}
    )
    covered = (*COMPONENTS, "@authority", "@path", "@query", "@scheme", "@request-target", "x-own", "host")
    RequestSigner(key.as_dict(private=True), components=covered, tag='a"\\b').sign(request)

    verifier = HTTPMessageVerifier(signature_algorithm=ALGORITHMS[kind], key_resolver=Keys(key))
    (result,) = verifier.verify(request, expect_tag='a"\\b', body=b'{"a": 1}', require_components=COMPONENTS)
    assert result.parameters["keyid"] == key.thumbprint()


# --- the page -------------------------------------------------------------------------------------


def snippet(language, word):
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (one,) = [text for text in found if word in text]
    return one


@pytest.fixture
def signing_server(make_guard, issuer, tmp_path):
    """A server over a port, which takes signed requests of one key; gives its URL and a token."""
    openssl = shutil.which("openssl")
    if openssl is None:
        skip_aloud("openssl is not installed")
    pem = tmp_path / "agent.pem"
    command = re.search(r"`(openssl genpkey [^`]*)`", PAGE.read_text(encoding="utf-8"))[1]
    subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=20, capture_output=True)
    key = OKPKey.import_key(pem.read_bytes())
    found = free_socket()
    url = f"http://127.0.0.1:{found.getsockname()[1]}/mcp"
    client = {"client_id": "agent", "jwks": {**key.as_dict(private=False), "kid": "agent-1"}}
    guard = make_guard(
        resource={"url": url},
        issuers=[{"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
        signatures={"mode": "required", "clients": [client]},
    )
    with running("uvicorn", app_of(guard), socket=found):
        yield url, issuer.token(aud=url)


def test_client_of_the_page_in_python_is_let_in(signing_server, tmp_path):
    url, token = signing_server
    code = snippet("python", "RequestSigner")
    assert len(code.strip().splitlines()) <= 10
    found = headers(None, "tools/call", "add")
    code = code.replace('headers={"accept"', 'headers={**more, "accept"')
    given = f"url, token, message, more = {url!r}, {token!r}, {message('tools/call', CALL)!r}, {found!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", given + code], cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False
    )

    assert done.stdout.startswith("200 "), done.stdout + done.stderr


def test_client_of_the_page_in_a_shell_is_let_in(signing_server, tmp_path):
    if shutil.which("curl") is None:
        skip_aloud("curl is not installed")
    url, token = signing_server
    script = snippet("sh", "openssl pkeyutl")
    assert len(script.replace("\\\n", "").strip().splitlines()) <= 10
    found = headers(None, "tools/call", "add")
    more = "".join(f" -H '{name}: {value}'" for name, value in found.items() if name.startswith("mcp-"))
    (tmp_path / "body.json").write_text(json.dumps(message("tools/call", CALL)))
    done = subprocess.run(
        ["bash", "-euc", script.strip() + more],
        cwd=tmp_path,
        env={**os.environ, "url": url, "token": token, "no_proxy": "127.0.0.1"},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )

    assert '"text":"3"' in done.stdout.replace(" ", ""), done.stdout + done.stderr
