"""What `fastguard.toml` refuses, and in which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mcp_fastguard import Guard, GuardConfig, GuardConfigError
from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.config import json_schema

GOOD = """\
version = 1
[resource]
url = "https://mcp.example.com/mcp"
public = ["/health"]
[[issuers]]
issuer = "https://auth.example.com"
jwks_uri = "https://auth.example.com/jwks"
algorithms = ["ES256", "RS256", "EdDSA"]
audiences = ["https://mcp.example.com/mcp"]
types = ["at+jwt"]
require = { azp = true }
scope_claims = ["scope", "scp"]
client_claims = ["client_id", "azp"]
organisation_claim = "org_id"
max_lifetime = "60m"
[tokens]
leeway = "30s"
[dpop]
mode = "optional"
max_age = "5m"
[proxies]
addresses = ["10.0.0.0/8"]
[limits]
rules = [{ per = "principal", quota = "1000/minute" }, { per = "session", quota = "100/minute" }, { per = "tool", tool = "run_query", quota = "20/minute" }]
[tools."list_*"]
scopes = ["warehouse:schema:read"]
[tools.run_query]
scopes = ["warehouse:query:read"]
tier = "log"
log_arguments = ["sql"]
[audit]
path = "audit"
"""


#: The start of a table that needs no more.
ADMIN = '[admin]\nissuer = "https://auth.example.com"\n'


def wrong(text):
    with pytest.raises(GuardConfigError) as error:
        config_warnings(text, "fastguard.toml")
    return str(error.value)


def test_sample_of_the_documentation_is_right():
    assert config_warnings(GOOD, "fastguard.toml") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("jwks_uri =", "jwks_url =", "fastguard.toml:7: issuers[0].jwks_url: unknown key; the nearest is `jwks_uri`"),
        ("[limits]", "[limit]", "fastguard.toml:23: limit: unknown key; the nearest is `limits`"),
        ('tier = "log"', 'tier = "logg"', "`logg` is none of `auto`, `log`, `approve`, `block`; the nearest is `log`"),
        (
            '"ES256", "RS256"',
            '"ES265", "RS256"',
            "issuers[0].algorithms: `ES265` is not a known algorithm; the nearest is `ES256`",
        ),
        ('"ES256", "RS256"', '"HS256", "RS256"', "`HS256` is symmetric"),
        ('"ES256", "RS256"', '"none", "RS256"', "`none` is not a known algorithm"),
        ('["ES256", "RS256", "EdDSA"]', "[]", "issuers[0].algorithms: must not be empty"),
        ('"60m"', '"60x"', "`60x` is no duration"),
        ('"60m"', '"48h"', "issuers[0].max_lifetime: between 1s and 24h"),
        ('"30s"', '"6m"', "tokens.leeway: at most 5m"),
        ('"1000/minute"', '"1000/fortnight"', "`1000/fortnight` is no quota"),
        ('scopes = ["warehouse:schema:read"]', "", 'tools."list_*": says nothing of who may'),
        ('scopes = ["warehouse:schema:read"]', "scopes = []", "must not be empty"),
        ('scopes = ["warehouse:schema:read"]', 'scopes = ["a"]\nopen = true', "contradicts the scopes"),
        ('scopes = ["warehouse:schema:read"]', 'scopes = ["a b"]', "is no scope"),
        ('issuer = "https://auth', 'issuer = "http://auth', "issuers[0].issuer: must be https"),
        ('url = "https://mcp.example.com/mcp"', 'url = "mcp.example.com"', "resource.url: not an absolute URL"),
        (
            'url = "https://mcp.example.com/mcp"',
            'url = "https://mcp.example.com/mcp?x=1"',
            "must have no user, query or fragment",
        ),
        ('"/health"', '"/mcp"', "the guarded path cannot be public"),
        ('"/health"', '"/a/../mcp"', "is no plain path"),
        ('types = ["at+jwt"]\nrequire = { azp = true }', 'types = ["JWT"]', "needs `require`"),
        ('max_age = "5m"', 'max_age = "6m"', "dpop.max_age: between 1s and 5m"),
        ('max_age = "5m"', "algorithms = []", "dpop.algorithms: must not be empty"),
        ('max_age = "5m"', 'algorithms = ["HS256"]', "dpop.algorithms: `HS256` is no algorithm of proofs"),
        ('max_age = "5m"', 'algorithms = ["RS512"]', "`RS512` is no algorithm of proofs; the nearest is `ES512`"),
        ('max_age = "5m"', "replay_entries = 1023", "dpop.replay_entries: between 1024 and 100000000"),
        ('max_age = "5m"', 'nonce_secret_file = "s"', 'dpop.nonce_secret_file: contradicts `dpop.nonce = "off"`'),
        ('mode = "optional"', 'mode = "off"\nnonce = "required"', 'dpop.nonce: contradicts `dpop.mode = "off"`'),
        (
            'mode = "optional"\nmax_age = "5m"',
            'mode = "required"\n[stdio]\ntoken_file = "t"',
            "dpop.mode: `required` contradicts [stdio]",
        ),
        ('tier = "log"', "signed = true", '"run_query".signed: contradicts `signatures.mode = "off"`'),
        ("[dpop]", "[admin]\n[dpop]", "admin.issuer: missing"),
        (
            "[dpop]",
            '[admin]\nissuer = "https://auth.example.org"\n[dpop]',
            "admin.issuer: `https://auth.example.org` is none",
        ),
        ("[dpop]", f'{ADMIN}path = "/mcp"\n[dpop]', "admin.path: the guarded path and public paths lead elsewhere"),
        ("[dpop]", f'{ADMIN}path = "/health"\n[dpop]', "admin.path: the guarded path and public paths lead elsewhere"),
        ("[dpop]", f'{ADMIN}path = "/a/../b"\n[dpop]', "admin.path: a path of its own"),
        ("[dpop]", f'{ADMIN}path = "/admin/"\n[dpop]', "admin.path: a path of its own"),
        ("[dpop]", f'{ADMIN}path = "/"\n[dpop]', "admin.path: a path of its own"),
        ("[dpop]", f'{ADMIN}path = "/.well-known/admin"\n[dpop]', "well-known paths are for documents"),
        ("[dpop]", f'{ADMIN}scope = "a b"\n[dpop]', "admin.scope: must not be empty"),
        ("[dpop]", f'{ADMIN}quota = "0/minute"\n[dpop]', "admin.quota: between 1 and 10000"),
        ("[dpop]", f"{ADMIN}audiences = []\n[dpop]", "admin.audiences: must not be empty"),
        ("[dpop]", f'{ADMIN}audiences = ["https://mcp.example.com/mcp"]\n[dpop]', "accepted of callers of tools"),
        ("[dpop]", f"{ADMIN}scopes = []\n[dpop]", "the nearest is `scope`"),
        ("[dpop]", '[signatures]\nmode = "on"\n[dpop]', "`on` is none of `off`"),
        ("[dpop]", '[signatures]\nalgorithms = ["ed25518"]\n[dpop]', "`ed25518` is no algorithm of signed requests"),
        ("[dpop]", '[signatures]\nalgorithms = ["hmac-sha256"]\n[dpop]', "`hmac-sha256` is no algorithm"),
        ("[dpop]", "[signatures]\nalgorithms = []\n[dpop]", "signatures.algorithms: must not be empty"),
        ("[dpop]", "[signatures]\ncomponents = []\n[dpop]", "signatures.components: must not be empty"),
        ("[dpop]", '[signatures]\ncomponents = ["@methode"]\n[dpop]', "the nearest is `@method`"),
        ("[dpop]", '[signatures]\ncomponents = ["Content-Digest"]\n[dpop]', "no field in lower case"),
        ("[dpop]", '[signatures]\nmax_age = "6m"\n[dpop]', "signatures.max_age: between 1s and 5m"),
        ("[dpop]", '[signatures]\ntag = ""\n[dpop]', "signatures.tag: must not be empty"),
        (
            "[dpop]",
            '[signatures]\nmode = "optional"\n[[signatures.clients]]\nclient_id = "a"\n[dpop]',
            "signatures.clients[0].jwks: `jwks` or `jwks_file` is needed",
        ),
        (
            "[dpop]",
            '[[signatures.clients]]\nclient_id = "a"\njwks_file = "a.json"\n[dpop]',
            'signatures.clients: contradicts `signatures.mode = "off"`',
        ),
        (
            "[dpop]",
            '[signatures]\nmode = "optional"\n[[signatures.clients]]\nclient_id = "a"\njwks_file = "a"\nissuer = "x"\n[dpop]',
            "signatures.clients[0].issuer: `x` is none of the issuers",
        ),
        ("[dpop]", "[certificates]\nrequired = true\n[dpop]", 'contradicts `certificates.source = "off"`'),
        (
            "[dpop]",
            '[certificates]\nsource = "tls"\n[[certificates.clients]]\nclient_id = "a"\nsubject_alt_names = ["*.a"]\n[dpop]',
            "`*.a` is no URI and no name of the DNS",
        ),
        (
            "[dpop]",
            '[certificates]\nsource = "tls"\n[[certificates.clients]]\nclient_id = "a"\nsubject_alt_names = []\n[dpop]',
            "certificates.clients[0].subject_alt_names: must not be empty",
        ),
        ('tier = "log"', 'binding = "mtls"', "`mtls` is none of `dpop`"),
        ('["10.0.0.0/8"]', '["10.0.0.1/8"]', "has bits set behind its prefix"),
        ("version = 1", "version = 2", "reads version 1, not 2"),
        ("version = 1", "", "version: missing"),
        ("version = 1", "version = ", "fastguard.toml:1: not TOML"),
    ],
)
def test_mistake_is_named_with_its_place_and_cure(old, new, message):
    assert old in GOOD
    assert message in wrong(GOOD.replace(old, new, 1))


def test_all_mistakes_are_named_at_once():
    text = GOOD.replace('"ES256", "RS256"', '"ES265"').replace('"30s"', '"6m"')
    assert len(wrong(text).splitlines()) == 2


def test_ties_of_patterns_stop_the_start():
    assert "it is not decided" in wrong(GOOD + '[tools."list_*_x"]\nopen = true\n')


def test_second_issuer_must_say_what_it_asserts():
    text = GOOD.replace("[tokens]", '[[issuers]]\nissuer = "https://b.example"\n[tokens]')
    assert "asserts_scopes: needed" in wrong(text)


def test_hierarchy_must_not_be_a_circle():
    assert "implies itself" in wrong(GOOD + '[scopes.a]\nimplies = ["b"]\n[scopes.b]\nimplies = ["a"]\n')


@pytest.mark.parametrize("scope", ["admin", "api", "full-access", "customers"])
def test_scope_that_says_too_little_is_warned_about(scope):
    found = config_warnings(GOOD.replace("warehouse:schema:read", scope), None)
    assert any(scope in message for _, message in found)


def test_unknown_variable_of_the_environment_stops_the_start(config, monkeypatch):
    monkeypatch.setenv("FASTGUARD_ISSUER", "https://evil.example")
    with pytest.raises(GuardConfigError, match="sets nothing"):
        Guard.from_dict(config)


def test_variable_may_name_proxies(config, monkeypatch):
    monkeypatch.setenv("FASTGUARD_PROXIES_ADDRESSES", "10.0.0.0/8, 192.0.2.1")
    with Guard.from_dict(config) as guard:
        assert json.loads(guard.gate.config_json())["proxies"]["addresses"] == ["10.0.0.0/8", "192.0.2.1/32"]


def test_published_private_key_is_refused(config):
    # RFC 8037 appendix A.
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    config["issuers"][0] |= {"jwks": {"keys": [jwk]}, "algorithms": ["EdDSA"]}
    with pytest.raises(GuardConfigError, match="no key of the set can verify"):
        Guard.from_dict(config)


def test_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(GuardConfigError, match="No such file"):
        Guard.from_file(tmp_path / "none.toml")


@pytest.mark.parametrize("value", [object(), float("nan"), datetime(2026, 11, 28, tzinfo=UTC), {1}])
def test_value_that_toml_could_not_hold_is_refused(config, value):
    with pytest.raises(GuardConfigError, match="a value that TOML could not"):
        Guard.from_dict({**config, "limits": {"rules": value}})


def test_configurations_for_looking_record_and_learn_nothing_and_share_what_they_say():
    shared = {"state": {"url": "redis://127.0.0.1/0"}, "revocations": {"shared": True}}
    limits = {"limits": {"mode": "exact", "rules": []}, "dpop": {"replays": "shared", "mode": "required"}}
    config = GuardConfig.from_dict({"resource": {"url": "https://mcp.example.com/mcp"}, **shared, **limits})
    unlogged = {"resource": {"url": "https://mcp.example.com/mcp"}, "audit": {"enabled": False}}

    assert config.unrecorded() == {**unlogged, "state": shared["state"], **limits}
    assert config.by_itself() == {**unlogged, "limits": {"rules": []}, "dpop": {"mode": "required"}}


def test_schema_knows_every_table():
    schema = json_schema()
    assert {"resource", "issuers", "limits", "tools", "audit"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_schema_file_of_the_package_is_up_to_date():
    from pathlib import Path

    import mcp_fastguard

    file = Path(mcp_fastguard.__file__).with_name("fastguard.schema.json")
    assert json.loads(file.read_text()) == json_schema()


def test_limit_rules_that_differ_only_in_their_count_are_refused():
    told = wrong(GOOD.replace('{ per = "session", quota = "100/minute" }', '{ per = "principal", quota = "5/minute" }'))

    assert "limits.rules[1].quota" in told
    assert "nothing but the count" in told
