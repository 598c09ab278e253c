"""An outage that lasts, and keys that are denied, as calls see them (F1, F7)."""

from __future__ import annotations

import asyncio
import json

import pytest
from joserfc import jwt

from keys_support import respond
from mcp_fastguard import Guard, GuardConfigError, ToolRequest
from mcp_fastguard._fastguard import Waiting
from mcp_fastguard.errors import TokenDenied
from support import ISSUER, Issuer

HOUR = 3_600.0


@pytest.fixture
def build(make_guard, issuer, loopback):
    """Builds guards whose issuer is down, with its table changed."""
    loopback.routes["/jwks"] = respond(b"", status=503)

    def make(**table):
        place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True}
        return make_guard(issuers=[{"issuer": issuer.issuer, "algorithms": ["ES256"], **place, **table}])

    return make


def jwks(issuer):
    return json.dumps(issuer.jwks).encode()


def request(token):
    return ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=token)


def decided(guard, token):
    """What the gate says to a call whose need was answered: nothing is asked of the network."""
    return guard.gate.decide(request(token), has_waited=True)


def refused(guard, token):
    with pytest.raises(TokenDenied) as denied:
        decided(guard, token)
    return denied.value


# --- age ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_stale", "stale"), [(None, 24 * HOUR - 60), ("1h", HOUR - 60), ("0s", -60.0), (0, -60.0), ("7d", 167 * HOUR)]
)
def test_f1_last_good_set_serves_until_it_is_too_old(build, issuer, max_stale, stale):
    guard = build() if max_stale is None else build(max_stale=max_stale)
    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=-stale)

    assert decided(guard, issuer.token()).subject == "alice"
    assert guard.gate.key_figures() == [(ISSUER, 0, True)]


@pytest.mark.parametrize(("max_stale", "stale"), [(None, 24 * HOUR), ("1h", HOUR), ("0s", 0.0), (0, 60.0)])
def test_f1_set_that_is_too_old_is_503_and_not_401(build, issuer, max_stale, stale):
    guard = build() if max_stale is None else build(max_stale=max_stale)
    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=-stale)
    guard.gate.keys_failed(ISSUER, "down", 17.0)

    denied = refused(guard, issuer.token())

    assert (denied.code, denied.status, denied.challenge) == ("keys_unavailable", 503, None)
    assert 16.0 < denied.retry_after <= 17.0
    assert guard.gate.key_figures() == [(ISSUER, 1, False)]


def test_f1_token_that_was_verified_before_is_refused_with_its_keys(build, issuer):
    guard = build(max_stale="1h")
    guard.gate.replace_keys(ISSUER, jwks(issuer))
    token = issuer.token()
    decided(guard, token)

    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=-2 * HOUR)

    assert refused(guard, token).code == "keys_unavailable"


def test_f1_new_set_ends_the_outage(build, issuer):
    guard = build(max_stale=0)
    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=-1.0)
    token = issuer.token()
    assert refused(guard, token).code == "keys_unavailable"

    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=600.0)

    assert decided(guard, token).subject == "alice"


def test_f1_call_with_keys_that_are_too_old_waits_for_the_fetch_under_way(build, issuer, loopback):
    guard = build(max_stale=0)
    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=-1.0)
    token = issuer.token()
    assert isinstance(guard.gate.decide(request(token)), Waiting)

    loopback.routes["/jwks"] = respond(jwks(issuer))

    assert asyncio.run(guard.authorize(request(token))).subject == "alice"


def test_f1_outage_before_the_first_set_is_503_with_the_time_of_the_next_fetch(build, issuer):
    guard = build()

    with pytest.raises(TokenDenied) as denied:
        asyncio.run(guard.authorize(request(issuer.token())))

    assert (denied.value.code, denied.value.status) == ("keys_unavailable", 503)
    assert 1.0 <= denied.value.retry_after <= 10.0


def test_age_of_keys_does_not_go_by_the_clock_of_the_caller(build, issuer):
    guard = build(max_stale=0)
    guard.gate.replace_keys(ISSUER, jwks(issuer), fresh=600.0)
    later = 4_000_000_000.0

    allowed = guard.gate.decide(request(issuer.token(now=later)), has_waited=True, now=later)

    assert allowed.subject == "alice"


def test_keys_of_the_configuration_never_grow_old(make_guard, issuer):
    guard = make_guard(
        issuers=[{"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"], "max_stale": 0}]
    )

    assert guard.check(request(issuer.token())).subject == "alice"


def test_status_tells_whether_keys_can_be_used_and_how_many_were_missed(build, issuer, loopback):
    loopback.routes["/jwks"] = respond(jwks(issuer))
    guard = build()
    asyncio.run(guard.authorize(request(issuer.token())))
    with pytest.raises(TokenDenied):
        asyncio.run(guard.authorize(request(Issuer(key_id="key-9").token(header={"kid": "key-9"}))))

    status = guard.key_status()[ISSUER]

    assert (status["usable"], status["misses"], status["stale"], status["failures"]) == (True, 1, 0.0, 0)


# --- denied keys --------------------------------------------------------------------------------


def thumbprint(issuer):
    return issuer.key.thumbprint()


@pytest.mark.parametrize("name", [lambda _: "key-1", thumbprint], ids=["kid", "thumbprint"])
def test_f7_denied_key_is_refused_though_it_is_published(build, issuer, name):
    guard = build(denied_keys=["other", name(issuer)])
    guard.gate.replace_keys(ISSUER, jwks(issuer))

    denied = refused(guard, issuer.token())

    assert (denied.code, denied.status) == ("key_denied", 401)


def test_f7_denied_key_is_refused_without_its_name_in_the_token(build, issuer):
    guard = build(denied_keys=["key-1"])
    guard.gate.replace_keys(ISSUER, jwks(issuer))

    claims = jwt.decode(issuer.token(), issuer.key).claims
    nameless = jwt.encode({"alg": "ES256", "typ": "at+jwt"}, claims, issuer.key)

    assert refused(guard, nameless).code == "key_denied"


def test_f7_denied_key_of_the_configuration_is_refused(make_guard, issuer):
    table = {"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"], "denied_keys": ["key-1"]}

    with pytest.raises(TokenDenied) as denied:
        make_guard(issuers=[table]).check(request(issuer.token()))

    assert denied.value.code == "key_denied"


def test_f7_denied_key_that_is_not_published_causes_no_fetch(build, issuer):
    guard = build(denied_keys=["key-9"])
    guard.gate.replace_keys(ISSUER, jwks(issuer))

    with pytest.raises(TokenDenied) as denied:
        guard.gate.decide(request(Issuer(key_id="key-9").token(header={"kid": "key-9"})))

    assert denied.value.code == "key_denied"


def test_key_that_is_not_denied_passes_beside_one_that_is(build, issuer):
    guard = build(denied_keys=["key"])
    guard.gate.replace_keys(ISSUER, jwks(issuer))

    assert decided(guard, issuer.token()).subject == "alice"


def test_f7_key_that_a_reload_denies_ends_calls_under_way(tmp_path, issuer):
    def write(denied):
        (tmp_path / "fastguard.toml").write_text(
            f"""
            version = 1
            audit = {{ enabled = false }}
            [resource]
            url = "https://mcp.example.com/mcp"
            [[issuers]]
            issuer = "{ISSUER}"
            algorithms = ["ES256"]
            denied_keys = {json.dumps(denied)}
            jwks = '{json.dumps(issuer.jwks)}'
            [tools.run_query]
            scopes = ["warehouse:query:read"]
            """
        )

    write([])
    with Guard.from_file(tmp_path / "fastguard.toml") as guard:
        allowed = guard.check(request(issuer.token()))
        guard.reload()
        guard.gate.recheck(allowed)

        write(["key-1"])
        guard.reload()

        with pytest.raises(TokenDenied) as denied:
            guard.gate.recheck(allowed)
    assert denied.value.code == "key_denied"


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"allow_networks": ["0.0.0.0/0"]}, "too wide"),
        ({"allow_networks": ["::/0"]}, "too wide"),
        ({"allow_networks": ["0.0.0.0/7"]}, "too wide"),
        ({"allow_networks": ["10.0.0.1/8"]}, "bits set"),
        ({"allow_networks": ["internal"]}, "neither an address"),
        ({"max_stale": "8d"}, "at most 7d"),
        ({"max_stale": -1}, "not negative"),
        ({"client_key": "key.pem"}, "only with `client_certificate`"),
        ({"ca_file": ""}, "must not be empty"),
        ({"ca_file": "missing.pem"}, "missing.pem"),
        ({"bearer_file": "missing"}, "missing"),
        ({"denied_keys": [""]}, "must not be empty"),
        ({"verify": False}, "verify"),
        ({"tls_verify": False}, "tls_verify"),
        ({"insecure": True}, "insecure"),
    ],
)
def test_table_that_cannot_be_meant_stops_the_start(build, table, told):
    with pytest.raises(GuardConfigError) as found:
        build(**table)

    assert told in str(found.value)


def test_ways_to_fetch_beside_given_keys_stop_the_start(make_guard, issuer):
    table = {"issuer": issuer.issuer, "jwks": issuer.jwks, "allow_networks": ["10.0.0.0/8"]}

    with pytest.raises(GuardConfigError, match="are given by"):
        make_guard(issuers=[table])


def test_core_hands_over_all_that_fetching_needs(make_guard, issuer, tmp_path):
    names = ("ca.pem", "certificate.pem", "key.pem", "bearer")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.touch()
    table = dict(zip(("ca_file", "client_certificate", "client_key", "bearer_file"), map(str, paths), strict=True))
    guard = make_guard(
        issuers=[{"issuer": issuer.issuer, "jwks_uri": f"{ISSUER}/jwks", "allow_networks": ["10.0.0.0/8"], **table}]
    )

    assert guard.gate.key_sources() == [(ISSUER, f"{ISSUER}/jwks", False, ("10.0.0.0/8",), *paths)]
