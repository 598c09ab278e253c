"""Opaque tokens and the server that is asked about them (RFC 7662): the embedded one, and others that misbehave, on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import threading
import time

import httpx2
import pytest

from keys_support import respond
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.dev import AuthorizationServer
from mcp_fastguard.errors import GuardConfigError, GuardFault, TokenDenied
from mcp_fastguard.keys.introspection import Introspector
from servers_support import free_socket, running
from support import RESOURCE, records

SECRET = "the-secret-of-this-server"
SCOPE = "warehouse:query:read"


@pytest.fixture
def secret_file(tmp_path):
    file = tmp_path / "introspection.secret"
    file.write_text(f"{SECRET}\n")
    return file


@pytest.fixture
def make_opaque(make_guard, loopback, secret_file):
    """A guard that asks the loopback server about opaque tokens."""

    def make(**options):
        table = {
            "issuer": loopback.url,
            "allow_http_loopback": True,
            "introspection_endpoint": f"{loopback.url}/introspect",
            "introspection_client_id": "mcp server",
            "introspection_client_secret_file": str(secret_file),
            **options,
        }
        return make_guard(issuers=[{key: value for key, value in table.items() if value is not None}])

    return make


@pytest.fixture
def guard(make_opaque):
    return make_opaque()


def answer(loopback, **changes):
    now = int(time.time())
    members = {
        "active": True,
        "iss": loopback.url,
        "aud": RESOURCE,
        "sub": "alice",
        "client_id": "agent",
        "scope": SCOPE,
        "iat": now,
        "exp": now + 600,
        **changes,
    }
    return respond(json.dumps({name: value for name, value in members.items() if value is not None}).encode())


def request(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)


def call(guard, token, tool="run_query"):
    return asyncio.run(guard.authorize(request(token, tool)))


def refusal(guard, token, tool="run_query"):
    with pytest.raises(TokenDenied) as denied:
        call(guard, token, tool)
    return denied.value


# --- the question ------------------------------------------------------------------------------


def test_server_is_asked_as_the_client_that_the_configuration_names(guard, loopback):
    loopback.routes["/introspect"] = answer(loopback)

    allowed = call(guard, "opaque+token/1=")

    assert (allowed.subject, allowed.client_id) == ("alice", "agent")
    ((path, headers),) = loopback.requests
    assert path == "/introspect"
    # RFC 6749 section 2.3.1 has both encoded as a form, and RFC 7662 section 2.1 wants the token in one.
    pair = base64.b64encode(f"mcp+server:{SECRET}".encode()).decode()
    assert headers["authorization"] == f"Basic {pair}"
    assert headers["accept"] == "application/json"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert loopback.bodies == [b"token=opaque%2Btoken%2F1%3D&token_type_hint=access_token"]


def test_secret_is_read_anew_for_each_lookup(guard, loopback, secret_file):
    loopback.routes["/introspect"] = answer(loopback)
    call(guard, "first")
    secret_file.write_text("renewed")
    call(guard, "second")

    given = [base64.b64decode(headers["authorization"].split()[1]) for _, headers in loopback.requests]
    assert given == [f"mcp+server:{SECRET}".encode(), b"mcp+server:renewed"]


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 5000, None])
def test_secret_file_that_holds_no_secret_asks_nobody(guard, loopback, secret_file, content, caplog):
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_bytes(content)

    assert refusal(guard, "opaque").code == "introspection_unavailable"

    assert loopback.requests == []
    assert "introspection_client_secret_file" in caplog.text


def test_thousand_calls_with_one_token_ask_once(guard, loopback):
    def held(handler):
        loopback.released.wait()
        answer(loopback)(handler)

    loopback.routes["/introspect"] = held

    async def all_of_them():
        calls = [asyncio.create_task(guard.authorize(request("opaque"))) for _ in range(1_000)]
        await asyncio.sleep(0)
        loopback.released.set()
        return await asyncio.gather(*calls)

    assert {allowed.subject for allowed in asyncio.run(all_of_them())} == {"alice"}
    assert loopback.paths == ["/introspect"]


def test_answer_is_kept_so_that_check_needs_nobody(guard, loopback):
    loopback.routes["/introspect"] = answer(loopback)
    with pytest.raises(GuardFault) as fault:
        guard.check(request("opaque"))
    assert fault.value.code == "needs_authorize"

    call(guard, "opaque")

    assert guard.check(request("opaque")).subject == "alice"
    assert len(loopback.requests) == 1


def test_caller_that_gives_up_leaves_the_answer_to_the_others(guard, loopback):
    def held(handler):
        loopback.released.wait()
        answer(loopback)(handler)

    loopback.routes["/introspect"] = held

    async def two():
        first = asyncio.create_task(guard.authorize(request("opaque")))
        second = asyncio.create_task(guard.authorize(request("opaque")))
        await asyncio.to_thread(loopback.wait, 1)
        first.cancel()
        await asyncio.sleep(0.01)
        loopback.released.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(two()).subject == "alice"
    assert len(loopback.requests) == 1


def test_loops_in_several_threads_share_one_answer(guard, loopback, monkeypatch):
    def held(handler):
        loopback.released.wait()
        answer(loopback)(handler)

    joined = threading.Semaphore(0)
    join = Introspector._joined

    async def counted(*given):
        # The key thread goes on to the shared lookup before anything else can happen on it.
        joined.release()
        return await join(*given)

    monkeypatch.setattr(Introspector, "_joined", counted)
    loopback.routes["/introspect"] = held
    found = []
    threads = [threading.Thread(target=lambda: found.append(call(guard, "opaque").subject)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert joined.acquire(timeout=20)
    loopback.released.set()
    for thread in threads:
        thread.join(20)

    assert found == ["alice"] * 8
    assert loopback.paths == ["/introspect"]


# --- the answer --------------------------------------------------------------------------------


def test_token_that_is_not_active_is_refused_and_not_asked_about_again(guard, loopback):
    loopback.routes["/introspect"] = respond(b'{"active": false}')

    first, second = refusal(guard, "opaque"), refusal(guard, "opaque")

    assert (first.code, second.code) == ("token_inactive", "token_inactive")
    assert len(loopback.requests) == 1


def test_answer_passes_the_checks_of_claims(guard, loopback):
    now = int(time.time())
    for number, (changes, code) in enumerate(
        [
            ({"iss": "https://other.example.com"}, "issuer_unknown"),
            ({"aud": "https://other.example.com"}, "audience_mismatch"),
            ({"aud": None}, "claim_missing"),
            ({"exp": now - 60}, "token_expired"),
            ({"exp": now + 86_400}, "lifetime_too_long"),
            ({"exp": str(now + 60)}, "claim_invalid"),
            ({"token_type": "refresh_token"}, "type_refused"),
        ]
    ):
        loopback.routes["/introspect"] = answer(loopback, **changes)
        assert refusal(guard, f"opaque-{number}").code == code, changes


@pytest.mark.parametrize(
    "route",
    [
        respond(b"{", status=200),
        respond(b'{"active": "true"}'),
        respond(b'{"active": true, "active": false}'),
        respond(b'{"active": true}' + b" " * 70_000),
        respond(b'{"active": true}', media_type="text/html"),
        respond(b'{"active": true}', media_type=None),
        respond(b'{"active": true}', content_encoding="gzip"),
        respond(b'{"active": true}', status=302, location="/elsewhere"),
        respond(b"", status=401),
        respond(b"", status=403),
        respond(b"", status=404),
        respond(b"", status=500),
    ],
)
def test_what_is_no_answer_lets_nobody_in(guard, loopback, route):
    loopback.routes["/introspect"] = route
    loopback.routes["/elsewhere"] = answer(loopback)

    denied = refusal(guard, "opaque")

    assert denied.code == "introspection_unavailable"
    assert denied.retry_after >= 1
    assert loopback.paths == ["/introspect"]


def test_nobody_there_is_503_and_known_tokens_go_on(make_opaque, loopback):
    guard = make_opaque()
    loopback.routes["/introspect"] = answer(loopback)
    call(guard, "known")
    loopback.server.shutdown()
    loopback.server.server_close()

    assert refusal(guard, "unknown").code == "introspection_unavailable"
    assert call(guard, "known").subject == "alice"


def test_endpoint_that_hangs_ends_after_a_total_time(guard, loopback, monkeypatch):
    monkeypatch.setattr("mcp_fastguard.keys.introspection.DEADLINE", 0.3)

    def slow(handler):
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if loopback.released.wait(0.05):
                return

    loopback.routes["/introspect"] = slow

    assert refusal(guard, "opaque").code == "introspection_unavailable"


def test_endpoint_that_wants_to_be_left_alone_is(guard, loopback):
    loopback.routes["/introspect"] = respond(b"", status=429, retry_after="120")

    assert 119 <= refusal(guard, "opaque").retry_after <= 120
    assert refusal(guard, "another").code == "introspection_unavailable"
    assert len(loopback.requests) == 1


# --- what is never asked -----------------------------------------------------------------------


def test_signed_text_is_judged_here_and_nowhere_else(guard, issuer, loopback):
    loopback.routes["/introspect"] = answer(loopback)

    for token in (issuer.token(), "a.b.c", "eyJ0eXAiOiJKV1QifQ", "a.b.c.d.e"):
        assert refusal(guard, token).code in {"token_malformed", "issuer_unknown", "key_unknown", "key_ambiguous"}

    assert loopback.requests == []


def test_signed_tokens_of_one_issuer_and_opaque_ones_of_another(make_guard, issuer, loopback, secret_file):
    opaque = {
        "issuer": loopback.url,
        "allow_http_loopback": True,
        "asserts_scopes": [SCOPE],
        "introspection_endpoint": f"{loopback.url}/introspect",
        "introspection_client_id": "mcp",
        "introspection_client_secret_file": str(secret_file),
    }
    signing = {"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"], "asserts_scopes": ["*"]}
    guard = make_guard(issuers=[signing, opaque])
    loopback.routes["/introspect"] = answer(loopback, sub="bob", scope=f"{SCOPE} secret:use")

    assert call(guard, issuer.token()).subject == "alice"
    assert call(guard, "opaque").subject == "bob"
    # It may not assert the other scope, so it opens nothing.
    with pytest.raises(Exception, match="scope") as denied:
        call(guard, "opaque", "secret")
    assert denied.value.code == "scope_insufficient"


def test_made_up_tokens_are_bounded_by_address(make_opaque, loopback):
    guard = make_opaque(introspection_lookups_per_address="5/minute")
    loopback.routes["/introspect"] = respond(b'{"active": false}')
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}

    async def inner(scope, receive, send):
        raise AssertionError("nobody gets through")

    async def flood(address, count):
        transport = httpx2.ASGITransport(guard.asgi(inner), client=(address, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url="https://mcp.example.com") as http:
            found = []
            for _ in range(count):
                headers = {"authorization": f"Bearer {os.urandom(12).hex()}", "accept": "application/json"}
                found.append((await http.post("/mcp", json=body, headers=headers)).status_code)
            return found

    assert asyncio.run(flood("192.0.2.1", 9)) == [401] * 5 + [429] * 4
    assert asyncio.run(flood("192.0.2.2", 1)) == [401]
    assert len(loopback.requests) == 6


# --- nothing leaks -----------------------------------------------------------------------------


def test_neither_token_nor_secret_nor_answer_is_in_log_or_record(guard, loopback, caplog):
    caplog.set_level(logging.DEBUG, logger="mcp_fastguard")
    quoting = respond(b'{"error": "quoted-token-text"}', status=500)
    for number, route in enumerate([answer(loopback), respond(b'{"active": false}'), quoting]):
        loopback.routes["/introspect"] = route
        token = f"quoted-token-text-{number}"
        try:
            call(guard, token)
        except TokenDenied as denied:
            assert "quoted" not in str(denied)

    found = json.dumps(records(guard)) + caplog.text
    assert "introspection failed: status 500" in found
    assert "quoted-token-text" not in found
    assert SECRET not in found


# --- the configuration -------------------------------------------------------------------------


def test_configuration_names_what_is_wrong(config, secret_file):
    base = {"issuer": "https://opaque.example.com", "introspection_client_id": "mcp"}
    secret = {"introspection_client_secret_file": str(secret_file)}
    for issuers, text in [
        ([base], "introspection_client_secret_file"),
        ([{"issuer": "https://a.example.com", **secret}], "only with `introspection_client_id`"),
        ([{**base, **secret, "introspection_cache": "11m"}], "at most 10m"),
        ([{**base, **secret, "introspection_lookups": "0/minute"}], "introspection_lookups"),
        ([{**base, **secret, "introspection_endpoint": "http://opaque.example.com/"}], "introspection_endpoint"),
        (
            [
                {**base, **secret, "asserts_scopes": ["*"]},
                {**base, **secret, "issuer": "https://b.example.com", "asserts_scopes": ["b"]},
            ],
            "one issuer at most",
        ),
    ]:
        with pytest.raises(GuardConfigError, match=text):
            Guard.from_dict({**config, "issuers": issuers})


def test_reload_asks_the_new_endpoint(loopback, secret_file, tmp_path):
    file = tmp_path / "fastguard.toml"

    def text(endpoint):
        return f"""
            version = 1
            resource.url = "{RESOURCE}"
            tools.run_query.open = true
            audit.path = "{tmp_path / "audit"}"
            [[issuers]]
            issuer = "{loopback.url}"
            allow_http_loopback = true
            introspection_endpoint = "{loopback.url}{endpoint}"
            introspection_client_id = "mcp"
            introspection_client_secret_file = "{secret_file}"
        """

    file.write_text(text("/old"))
    loopback.routes["/old"] = loopback.routes["/new"] = answer(loopback)
    with Guard.from_file(file) as guard:
        call(guard, "opaque")
        file.write_text(text("/new"))
        guard.reload()
        call(guard, "opaque")

    assert loopback.paths == ["/old", "/new"]


# --- the embedded server -----------------------------------------------------------------------


@pytest.fixture
def server():
    with free_socket() as socket:
        issuer = f"http://127.0.0.1:{socket.getsockname()[1]}"
        server = AuthorizationServer(issuer, RESOURCE, scopes=[SCOPE])
        with running("uvicorn", server.app, socket=socket):
            yield server


def test_endpoint_is_discovered_and_a_revoked_token_ends_with_its_cache(make_guard, server, tmp_path):
    secret_file = tmp_path / "secret"
    secret_file.write_text(server.add_resource_server("mcp"))
    table = {
        "issuer": server.issuer,
        "allow_http_loopback": True,
        "introspection_client_id": "mcp",
        "introspection_client_secret_file": str(secret_file),
        "introspection_cache": 0,
    }
    guard = make_guard(issuers=[table])
    token = server.reference_tokens.issue("agent", SCOPE, 600)

    assert call(guard, token).subject == "agent"
    server.reference_tokens.revoke(token)
    assert refusal(guard, token).code == "token_inactive"
    assert server.reference_tokens.asked == 2


def test_embedded_server_tells_resource_servers_alone(server):
    resource_secret = server.add_resource_server("mcp")
    agent_secret = server.add_client("agent", [SCOPE])
    token = server.reference_tokens.issue("agent", SCOPE, 600)

    def ask(auth, **form):
        return httpx2.post(f"{server.issuer}/introspect", data=form, auth=auth)

    assert ask(("mcp", resource_secret), token=token).json()["active"] is True
    assert ask(("mcp", resource_secret), token="made-up").json() == {"active": False}
    assert ask(("mcp", resource_secret)).status_code == 400
    assert ask(("mcp", "wrong"), token=token).status_code == 401
    assert ask(("agent", agent_secret), token=token).status_code == 401
    assert ask(None, token=token).status_code == 401
    # A resource server gets no tokens by this name.
    grant = {"grant_type": "client_credentials", "resource": RESOURCE}
    answer = httpx2.post(f"{server.issuer}/token", data=grant, auth=("mcp", resource_secret))
    assert answer.status_code >= 400
