"""The embedded authorization server, RFC by RFC."""

from __future__ import annotations

import asyncio
import base64

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError
from joserfc.jwk import KeySet

from mcp_fastguard.dev import AuthorizationServer, require_loopback
from mcp_fastguard.dev.authorization_server import LIFETIME, MAX_KEYS, OVERLAP

ISSUER = "http://127.0.0.1:8765"
RESOURCE = "http://127.0.0.1:8766/mcp"
SCHEMA, QUERY = "warehouse:schema:read", "warehouse:query:read"


class FakeClock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return AuthorizationServer(ISSUER, RESOURCE, clock=clock)


@pytest.fixture
def secret(server):
    return server.add_client("analyst", [SCHEMA, QUERY])


def request(server, method, path, *, peer="127.0.0.1", base=ISSUER, **options):
    async def send():
        transport = httpx2.ASGITransport(server.app(), client=(peer, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def ask(server, secret, *, headers=None, **changes):
    form = {
        "grant_type": "client_credentials",
        "client_id": "analyst",
        "client_secret": secret,
        "resource": RESOURCE,
        "scope": SCHEMA,
    }
    form = {name: value for name, value in {**form, **changes}.items() if value is not None}
    return request(server, "POST", "/token", data=form, headers=headers)


def basic(client_id, secret):
    return {"authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def decoded(server, token):
    return jwt.decode(token, KeySet.import_key_set(server.jwks), algorithms=["ES256"])


def error(response):
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, response.json()["error"]


# --- metadata and keys ----------------------------------------------------------------------------


def test_metadata_name_the_issuer_and_its_endpoints(server, secret):
    found = request(server, "GET", "/.well-known/oauth-authorization-server").json()

    # RFC 8414 section 3.3: the issuer is compared letter by letter.
    assert found["issuer"] == ISSUER
    assert found["token_endpoint"] == f"{ISSUER}/token"
    assert found["jwks_uri"] == f"{ISSUER}/jwks"
    assert found["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["registration_endpoint"] == f"{ISSUER}/register"
    # RFC 9207 section 3.
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["scopes_supported"] == sorted([SCHEMA, QUERY])
    assert request(server, "GET", "/authorize").status_code == 400


def test_metadata_of_an_issuer_with_a_path_are_after_the_well_known_part():
    server = AuthorizationServer(f"{ISSUER}/tenant", RESOURCE)

    found = request(server, "GET", "/.well-known/oauth-authorization-server/tenant").json()

    assert found["issuer"] == f"{ISSUER}/tenant"
    assert request(server, "GET", "/tenant/jwks").json() == server.jwks


def test_published_keys_hold_no_private_part(server):
    found = request(server, "GET", "/jwks").json()

    assert [set(key) for key in found["keys"]] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}]


# --- tokens ---------------------------------------------------------------------------------------


def test_token_has_the_shape_of_rfc_9068(server, secret, clock):
    answer = ask(server, secret)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, SCHEMA)
    token = decoded(server, body["access_token"])
    assert token.header == {"typ": "at+jwt", "alg": "ES256", "kid": server.jwks["keys"][0]["kid"]}
    assert token.claims.pop("jti")
    assert token.claims == {
        "iss": ISSUER,
        "sub": "analyst",
        "aud": RESOURCE,
        "client_id": "analyst",
        "scope": SCHEMA,
        "iat": int(clock.now),
        "exp": int(clock.now) + LIFETIME,
    }


def test_client_authenticates_by_http_basic(server, secret):
    answer = ask(server, None, client_id=None, headers=basic("analyst", secret))

    assert answer.status_code == 200


def test_basic_credentials_are_form_decoded(server):
    # RFC 6749 section 2.3.1.
    secret = server.add_client("team a", [SCHEMA])

    answer = ask(server, None, client_id=None, headers=basic("team+a", secret))

    assert answer.status_code == 200


def test_wrong_secret_is_invalid_client(server, secret):
    assert error(ask(server, "wrong")) == (401, "invalid_client")
    assert error(ask(server, None)) == (401, "invalid_client")
    assert error(ask(server, secret, client_id="nobody")) == (401, "invalid_client")


def test_wrong_basic_credentials_are_answered_with_a_challenge(server, secret):
    # RFC 6749 section 5.2.
    for headers in (basic("analyst", "wrong"), {"authorization": "Basic ???"}, {"authorization": "Bearer x"}):
        answer = ask(server, None, client_id=None, headers=headers)
        assert error(answer) == (401, "invalid_client")
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_two_ways_of_authentication_are_refused(server, secret):
    assert error(ask(server, secret, headers=basic("analyst", secret))) == (400, "invalid_request")


@pytest.mark.parametrize("resource", [None, "", "https://elsewhere.example/mcp", f"{RESOURCE}/", [RESOURCE, RESOURCE]])
def test_resource_other_than_the_one_is_invalid_target(server, secret, resource):
    assert error(ask(server, secret, resource=resource)) == (400, "invalid_target")


@pytest.mark.parametrize("scope", ["pipeline:trigger:write", f"{SCHEMA} pipeline:trigger:write", " "])
def test_scope_beyond_the_registered_is_invalid_scope(server, secret, scope):
    assert error(ask(server, secret, scope=scope)) == (400, "invalid_scope")


def test_scope_that_is_not_asked_for_gives_the_narrow_default(server, secret):
    assert ask(server, secret, scope=None).json()["scope"] == SCHEMA
    assert ask(server, secret, scope=f"{SCHEMA} {QUERY}").json()["scope"] == f"{SCHEMA} {QUERY}"


def test_client_needs_scopes_and_a_default_among_them(server):
    with pytest.raises(ValueError, match="needs scopes"):
        server.add_client("idle", [])
    with pytest.raises(ValueError, match="needs scopes"):
        server.add_client("greedy", [SCHEMA], default_scope=QUERY)


@pytest.mark.parametrize(
    ("grant_type", "code"),
    [
        ("authorization_code", "unauthorized_client"),
        ("password", "unsupported_grant_type"),
        (None, "invalid_request"),
        (["client_credentials", "client_credentials"], "invalid_request"),
    ],
)
def test_other_grants_are_refused(server, secret, grant_type, code):
    assert error(ask(server, secret, grant_type=grant_type)) == (400, code)


def test_long_body_is_refused(server, secret):
    assert ask(server, secret, scope="x" * 20_000).status_code == 413


def test_odd_tokens_are_what_was_asked_for(server, clock):
    expired = decoded(server, server.issue("analyst", SCHEMA, lifetime=-60))
    assert expired.claims["exp"] == int(clock.now) - 60
    assert expired.claims["exp"] - expired.claims["iat"] == LIFETIME

    without = decoded(server, server.issue("analyst", SCHEMA, aud="https://elsewhere.example", jti=None))
    assert without.claims["aud"] == "https://elsewhere.example"
    assert "jti" not in without.claims

    stranger = AuthorizationServer(ISSUER, RESOURCE)
    with pytest.raises(InvalidKeyIdError):
        decoded(server, stranger.issue("analyst", SCHEMA))


# --- tokens for whoever knows the admin secret -------------------------------------------------------


def issued(server, secret=None, **changes):
    form = {"subject": "alice", "scope": f"{SCHEMA} {QUERY}", "lifetime": "60"}
    form = {name: value for name, value in {**form, **changes}.items() if value is not None}
    headers = {"authorization": f"Bearer {server.admin_secret if secret is None else secret}"}
    return request(server, "POST", "/dev/token", data=form, headers=headers)


def test_token_of_a_user_needs_the_admin_secret(server, secret, clock):
    assert issued(server, "wrong").status_code == 403

    answer = issued(server)

    assert answer.headers["cache-control"] == "no-store"
    claims = decoded(server, answer.json()["access_token"]).claims
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("alice", "fastguard-cli", f"{SCHEMA} {QUERY}")
    assert claims["exp"] == clock.now + 60


def test_scope_that_the_server_does_not_know_is_issued_and_named(server, secret):
    assert issued(server).json()["unknown_scopes"] == []
    assert issued(server, scope=f"{SCHEMA} other").json()["unknown_scopes"] == ["other"]


@pytest.mark.parametrize(
    "changes",
    [{"subject": None}, {"scope": None}, {"scope": 'a"b'}, {"scope": "a  b"}]
    + [{"lifetime": lifetime} for lifetime in ("0", "-1", "86401", "15m")]
    + [{"subject": ["alice", "bob"]}],
)
def test_odd_request_for_a_user_s_token_is_refused_with_the_scopes(server, secret, changes):
    answer = issued(server, **changes)

    assert (answer.status_code, answer.json()["scopes_supported"]) == (400, sorted([SCHEMA, QUERY]))


# --- rotation -------------------------------------------------------------------------------------


def test_rotation_signs_with_the_new_key_and_publishes_both(server):
    old = server.issue("analyst", SCHEMA)

    key_id = server.rotate()

    assert decoded(server, server.issue("analyst", SCHEMA)).header["kid"] == key_id
    assert decoded(server, old).claims["sub"] == "analyst"
    assert server.jwks["keys"][0]["kid"] == key_id


def test_old_key_leaves_when_its_last_token_has_expired(server, clock):
    server.rotate()
    clock.now += OVERLAP - 1
    assert len(server.jwks["keys"]) == 2

    clock.now += 1
    assert len(server.jwks["keys"]) == 1


def test_old_keys_leave_at_once_when_retired(server):
    key_id = server.rotate()

    server.retire_old()

    assert [key["kid"] for key in server.jwks["keys"]] == [key_id]


def test_rotating_in_a_loop_keeps_a_bounded_number_of_keys(server):
    for _ in range(3 * MAX_KEYS):
        newest = server.rotate()

    assert len(server.jwks["keys"]) == MAX_KEYS
    assert server.jwks["keys"][0]["kid"] == newest


def test_rotation_over_http_needs_the_admin_secret(server):
    (before,) = server.jwks["keys"]
    for authorization in ("", "Bearer", "Bearer wrong", server.admin_secret):
        refused = request(server, "POST", "/dev/rotate", headers={"authorization": authorization})
        assert refused.status_code == 403
    assert server.jwks["keys"] == [before]

    answer = request(server, "POST", "/dev/rotate", headers={"authorization": f"Bearer {server.admin_secret}"})

    assert answer.json()["kid"] == server.jwks["keys"][0]["kid"] != before["kid"]


# --- loopback -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_is_accepted(host):
    assert require_loopback(host) == host


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.7", "example.com", "localhost.example.com", "127.1"])
def test_other_hosts_are_refused(host):
    with pytest.raises(ValueError, match="loopback only"):
        require_loopback(host)


@pytest.mark.parametrize(
    "issuer",
    ["https://auth.example.com", "http://0.0.0.0:8765", f"{ISSUER}/", f"{ISSUER}?a", "ftp://127.0.0.1", "127.0.0.1"],
)
def test_issuer_off_loopback_or_malformed_is_refused(issuer):
    with pytest.raises(ValueError, match=r"loopback only|an issuer is"):
        AuthorizationServer(issuer, RESOURCE)


def test_request_of_another_machine_is_refused(server):
    # As if somebody had started it on 0.0.0.0.
    assert request(server, "GET", "/jwks", peer="192.0.2.7").status_code == 403


@pytest.mark.parametrize("base", ["http://attacker.example:8765", "http://192.0.2.1:8765"])
def test_request_under_another_name_is_refused(server, base):
    # DNS rebinding: a page whose name points to 127.0.0.1 sends its own name.
    assert request(server, "GET", "/jwks", base=base).status_code == 403


def test_request_with_two_hosts_is_refused(server):
    headers = [("host", "127.0.0.1:8765"), ("host", "attacker.example")]
    assert request(server, "GET", "/jwks", headers=headers).status_code == 403
