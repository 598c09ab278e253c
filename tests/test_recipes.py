"""Access tokens of real identity providers, in the shape of their own documentation, against `fastguard init --idp`."""

from __future__ import annotations

import itertools
import json
import re
import time
import tomllib
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import KeySet, RSAKey
from typer.testing import CliRunner

from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.cli.commands import app
from mcp_fastguard.cli.recipes import RECIPES
from mcp_fastguard.cli.scaffold import scaffold
from support import RESOURCE

TENANT, API, CLIENT = "8e6f0a4c-1c0a-4a36-9f0e-6c8f2d9b1a11", "d1f0c1de-0000-4000-8000-00000000a001", "c1ien7"
POOL = "eu-west-1_AbCdEfGhI"

GIVEN = {
    "rfc9068": {"issuer": "https://auth.example.com"},
    "entra": {"tenant": TENANT, "audience": API},
    "entra-v1": {"tenant": TENANT, "audience": f"api://{API}"},
    "okta": {"domain": "example.okta.com", "server": "default", "audience": "api://default"},
    "auth0": {"domain": "example.eu.auth0.com", "audience": RESOURCE},
    "cognito": {"region": "eu-west-1", "pool": POOL, "client": CLIENT},
    "keycloak": {"url": "https://id.example.com", "realm": "main", "audience": RESOURCE},
    "google": {"audience": RESOURCE},
    "github": {"repository": "acme/shop", "audience": RESOURCE},
    "ping": {"domain": "auth.pingone.eu", "environment": TENANT, "audience": RESOURCE},
}

#: Provider -> header and claims of an access token, `iat` and `exp` left out, and who it speaks of.
ACCESS = {
    "rfc9068": (
        {"typ": "at+jwt"},
        {"iss": "https://auth.example.com", "aud": RESOURCE, "sub": "alice", "client_id": CLIENT, "jti": "1", "scope": "q:read"},
    ),
    "entra": (
        {"typ": "JWT"},
        {
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "aud": API, "azp": CLIENT, "azpacr": "1", "oid": "0id",
            "scp": "q:read", "sub": "alice", "tid": TENANT, "uti": "u", "ver": "2.0",
        },
    ),
    "entra-v1": (
        {"typ": "JWT", "x5t": "k"},
        {
            "iss": f"https://sts.windows.net/{TENANT}/", "aud": f"api://{API}", "appid": CLIENT, "appidacr": "1", "oid": "0id",
            "scp": "q:read", "sub": "alice", "tid": TENANT, "unique_name": "a@example.com", "ver": "1.0",
        },
    ),
    "okta": (
        {},
        {
            "ver": 1, "jti": "AT.1", "iss": "https://example.okta.com/oauth2/default", "aud": "api://default",
            "cid": CLIENT, "uid": "00u1", "scp": ["openid", "q:read"], "sub": "alice", "auth_time": 1,
        },
    ),
    "auth0": (
        {"typ": "JWT"},
        {
            "iss": "https://example.eu.auth0.com/", "sub": "alice", "azp": CLIENT, "scope": "openid q:read", "gty": "password",
            "aud": [RESOURCE, "https://example.eu.auth0.com/userinfo"],
        },
    ),
    "cognito": (
        {},
        {
            "sub": "alice", "iss": f"https://cognito-idp.eu-west-1.amazonaws.com/{POOL}", "client_id": CLIENT, "origin_jti": "o",
            "event_id": "e", "token_use": "access", "scope": "q:read", "auth_time": 1, "jti": "1", "username": "alice",
            "version": 2, "cognito:groups": ["analysts"],
        },
    ),
    "keycloak": (
        {"typ": "JWT"},
        {
            "jti": "onrtac:1", "iss": "https://id.example.com/realms/main", "aud": [RESOURCE, "account"], "sub": "alice",
            "typ": "Bearer", "azp": CLIENT, "sid": "s", "acr": "1", "realm_access": {"roles": ["analyst"]},
            "scope": "openid q:read",
        },
    ),
    "google": (
        {"typ": "JWT"},
        {
            "iss": "https://accounts.google.com", "aud": RESOURCE, "azp": CLIENT, "sub": "alice", "email_verified": True,
            "email": "robot@example.iam.gserviceaccount.com",
        },
    ),
    "github": (
        {"typ": "JWT", "x5t": "k"},
        {
            "jti": "1", "sub": "repo:acme/shop:ref:refs/heads/main", "aud": RESOURCE, "ref": "refs/heads/main",
            "repository": "acme/shop", "repository_owner": "acme", "actor": "alice", "event_name": "push",
            "workflow_ref": "acme/shop/.github/workflows/ci.yml@refs/heads/main", "runner_environment": "github-hosted",
            "iss": "https://token.actions.githubusercontent.com",
        },
    ),
    "ping": (
        {},
        {
            "client_id": CLIENT, "iss": f"https://auth.pingone.eu/{TENANT}/as", "jti": "1", "aud": [RESOURCE], "scope": "q:read",
            "sub": "alice", "sid": "s", "env": TENANT, "org": "0rg", "p1.rid": "r",
        },
    ),
}  # fmt: skip

#: Provider -> an ID token of the same issuer. Google's recipe takes ID tokens, but none that are made for a client.
IDENTITY = {
    "rfc9068": ({"typ": "JWT"}, {"iss": "https://auth.example.com", "aud": CLIENT, "sub": "alice"}),
    # The API is its own client: `aud` fits, and `azp` is not there.
    "entra": (
        {"typ": "JWT"},
        {**{k: v for k, v in ACCESS["entra"][1].items() if k not in {"azp", "scp"}}, "nonce": "n"},
    ),
    "entra-v1": ({"typ": "JWT"}, {**{k: v for k, v in ACCESS["entra-v1"][1].items() if k not in {"appid", "scp"}}}),
    "okta": (
        {},
        {
            "ver": 1,
            "iss": "https://example.okta.com/oauth2/default",
            "aud": "api://default",
            "sub": "alice",
            "amr": ["pwd"],
        },
    ),
    "auth0": ({"typ": "JWT"}, {"iss": "https://example.eu.auth0.com/", "aud": RESOURCE, "sub": "alice", "nonce": "n"}),
    "cognito": ({}, {**ACCESS["cognito"][1], "token_use": "id", "aud": CLIENT}),
    "keycloak": ({"typ": "JWT"}, {**ACCESS["keycloak"][1], "typ": "ID"}),
    "google": ({"typ": "JWT"}, {**ACCESS["google"][1], "aud": f"{CLIENT}.apps.googleusercontent.com"}),
    # A workflow of another repository.
    "github": ({"typ": "JWT"}, {**ACCESS["github"][1], "repository": "evil/shop"}),
    "ping": (
        {},
        {"iss": f"https://auth.pingone.eu/{TENANT}/as", "aud": [RESOURCE], "sub": "alice", "acr": "Single_Factor"},
    ),
}

KEY = RSAKey.generate_key(2048, {"kid": "k", "use": "sig", "alg": "RS256"})


def token(shape, **claims):
    header, payload = shape
    now = int(time.time())
    # GitHub's live for five minutes.
    lifetime = 300 if "workflow_ref" in payload else 3_600
    found = {"iat": now, "nbf": now, "exp": now + lifetime, **payload, **claims}
    # Not `jwt.encode`, which writes `typ` into a header that has none.
    return jws.serialize_compact({"alg": "RS256", "kid": "k", **header}, json.dumps(found).encode(), KEY)


@pytest.fixture(scope="module")
def guards(tmp_path_factory):
    """A guard by each recipe, with our key in the place of the provider's."""
    found = {}
    for name, given in GIVEN.items():
        config = tomllib.loads(scaffold(RESOURCE, RECIPES[name].toml(given), None))
        issuer = config["issuers"][0]
        issuer.pop("jwks_uri", None)
        issuer["jwks"] = KeySet([KEY]).as_dict(private=False)
        config["tools"] = {"query": {"scopes": ["q:read"]}, "open": {"open": True}}
        config["audit"] = {"path": str(tmp_path_factory.mktemp(name))}
        found[name] = Guard.from_dict(config)
    yield found
    for guard in found.values():
        guard.close()


def decide(guard, text, tool="query"):
    return guard.check(ToolRequest.direct(tool=tool, arguments={}, token=text))


def test_every_recipe_has_its_shapes():
    assert set(RECIPES) == set(GIVEN) == set(ACCESS) == set(IDENTITY)


@pytest.mark.parametrize("name", sorted(ACCESS))
def test_access_token_of_a_provider_is_accepted_by_its_recipe(guards, name):
    # Those of services have no scopes.
    allowed = decide(guards[name], token(ACCESS[name]), "open" if name in {"github", "google"} else "query")

    claims = ACCESS[name][1]
    assert (allowed.subject, allowed.client_id) == (claims["sub"], claims.get("workflow_ref", CLIENT))


@pytest.mark.parametrize(
    ("name", "recipe"), [pair for pair in itertools.product(ACCESS, RECIPES) if pair[0] != pair[1]]
)
def test_access_token_of_a_provider_is_refused_by_every_other_recipe(guards, name, recipe):
    with pytest.raises(Denied) as denied:
        decide(guards[recipe], token(ACCESS[name]), "open")
    assert denied.value.status == 401
    assert denied.value.config_key.startswith("issuers.")


@pytest.mark.parametrize("name", sorted(IDENTITY))
def test_identity_token_of_a_provider_is_refused_by_its_recipe(guards, name):
    with pytest.raises(Denied) as denied:
        decide(guards[name], token(IDENTITY[name]), "open")

    expected = {
        "rfc9068": "type_refused",
        "cognito": "claim_refused",
        "keycloak": "claim_refused",
        "google": "audience_mismatch",
        "github": "claim_refused",
    }
    assert denied.value.code == expected.get(name, "claim_missing")


def test_application_of_entra_acts_by_its_roles(guards):
    header, claims = ACCESS["entra"]
    claims = {name: value for name, value in claims.items() if name != "scp"} | {"roles": ["q:read"], "idtyp": "app"}

    assert decide(guards["entra"], token((header, claims))).scopes == ("q:read",)


def test_organisation_and_longest_life_are_the_providers(guards):
    assert decide(guards["entra"], token(ACCESS["entra"])).organisation == TENANT
    now = int(time.time())
    assert decide(guards["auth0"], token(ACCESS["auth0"], exp=now + 86_400)).subject == "alice"
    with pytest.raises(Denied) as denied:
        decide(guards["okta"], token(ACCESS["okta"], exp=now + 7_200))
    assert denied.value.code == "lifetime_too_long"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_says_what_it_must_be_told(name):
    for need in RECIPES[name].needs:
        with pytest.raises(ValueError, match=f"--{need}"):
            RECIPES[name].toml({**GIVEN[name], need: ""})
        with pytest.raises(ValueError, match="no place"):
            RECIPES[name].toml({**GIVEN[name], need: 'x"\nalgorithms = ["none"]'})


def test_recipe_cites_the_providers_page():
    assert all(
        recipe.page.startswith("https://") and recipe.page in recipe.toml(GIVEN[name])
        for name, recipe in RECIPES.items()
    )


def test_page_of_the_providers_has_a_command_for_each_that_writes_a_configuration():
    page = (Path(__file__).parents[1] / "docs" / "providers.md").read_text(encoding="utf-8")
    commands = dict(re.findall(r"^\$ fastguard (init --idp (\S+).*)$", page, re.MULTILINE))
    assert set(commands.values()) == set(RECIPES)
    for command in commands:
        printed = CliRunner().invoke(app, [*command.split(), "--output", "-"])
        assert printed.exit_code == 0, printed.output
        assert config_warnings(printed.output) == []
