"""`[[issuers]]` for identity providers whose access tokens are not those of RFC 9068 (decision 15).

Each recipe says why every key is as it is, and names the provider's own page.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["RECIPES", "Recipe"]


class Recipe(NamedTuple):
    """One provider."""

    title: str
    #: The provider's page on the shape of its access tokens.
    page: str
    #: What the recipe must be told, by option -> an example of it.
    needs: dict[str, str]
    #: TOML with ``{option}`` in place of each need.
    text: str

    def toml(self, given: dict[str, str]) -> str:
        """The table, with every need filled in.

        Raises:
            ValueError: a need is missing, or holds what cannot stand in a URL.
        """
        missing = [name for name in self.needs if not given.get(name)]
        if missing:
            wanted = ", ".join(f"--{name} (such as {self.needs[name]})" for name in missing)
            message = f"{self.title} needs {wanted}; `fastguard init --idp help` lists the providers that are known"
            raise ValueError(message)
        for name, value in given.items():
            if not value.isascii() or any(character in value for character in '"\\{}') or not value.isprintable():
                message = f"--{name} holds a character that has no place in it"
                raise ValueError(message)
        text = self.text
        for name in self.needs:
            text = text.replace("{" + name + "}", given[name])
        return f"# {self.title}: {self.page}\n{text}"


RECIPES: Final[dict[str, Recipe]] = {
    "rfc9068": Recipe(
        "Any issuer of access tokens as RFC 9068 has them",
        "https://www.rfc-editor.org/rfc/rfc9068",
        {"issuer": "https://auth.example.com"},
        """\
[[issuers]]
issuer = "{issuer}"
# Keys are found by the issuer's metadata (RFC 8414), and `aud` must be the resource's URL.
""",
    ),
    "entra": Recipe(
        "Microsoft Entra ID, tokens of version 2.0",
        "https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference",
        {"tenant": "a GUID", "audience": "the API's application ID"},
        """\
[[issuers]]
issuer = "https://login.microsoftonline.com/{tenant}/v2.0"
jwks_uri = "https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys"
algorithms = ["RS256"]
# In version 2.0 `aud` is always the API's application ID, never its URI.
audiences = ["{audience}"]
# Entra names all its tokens JWT. ID tokens have no `azp`; `ver` keeps tokens of version 1.0 out.
types = ["JWT"]
require = { ver = "2.0", azp = true }
# Delegated permissions stand in `scp`; those of an application that acts for itself in `roles`.
scope_claims = ["scp", "roles"]
client_claims = ["azp"]
organisation_claim = "tid"
roles_claim = "roles"
# 60 to 90 minutes, chosen at random by Entra.
max_lifetime = "90m"
""",
    ),
    "entra-v1": Recipe(
        "Microsoft Entra ID, tokens of version 1.0",
        "https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference",
        {"tenant": "a GUID", "audience": "api://…"},
        """\
[[issuers]]
# The slash at the end is part of the name.
issuer = "https://sts.windows.net/{tenant}/"
jwks_uri = "https://login.microsoftonline.com/{tenant}/discovery/keys"
algorithms = ["RS256"]
# In version 1.0 `aud` is what the client asked for: the API's URI, or its application ID.
audiences = ["{audience}"]
# Entra names all its tokens JWT. ID tokens have no `appid`.
types = ["JWT"]
require = { ver = "1.0", appid = true }
scope_claims = ["scp", "roles"]
client_claims = ["appid"]
organisation_claim = "tid"
roles_claim = "roles"
max_lifetime = "90m"
""",
    ),
    "okta": Recipe(
        "Okta, a custom authorization server",
        "https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/",
        {"domain": "example.okta.com", "server": "default", "audience": "api://default"},
        """\
[[issuers]]
# Tokens of Okta's own (org) authorization server are for Okta alone and cannot be verified here: use a custom one.
issuer = "https://{domain}/oauth2/{server}"
jwks_uri = "https://{domain}/oauth2/{server}/v1/keys"
algorithms = ["RS256"]
audiences = ["{audience}"]
# The header has no `typ`. ID tokens have no `cid`.
types = [""]
require = { cid = true, ver = 1 }
scope_claims = ["scp"]
client_claims = ["cid"]
# As the access policy of the server says: one hour, at most 24.
max_lifetime = "1h"
""",
    ),
    "auth0": Recipe(
        "Auth0",
        "https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles",
        {"domain": "example.eu.auth0.com", "audience": "the API's identifier"},
        """\
[[issuers]]
# The slash at the end is part of the name.
issuer = "https://{domain}/"
jwks_uri = "https://{domain}/.well-known/jwks.json"
algorithms = ["RS256"]
audiences = ["{audience}"]
# `at+jwt` in the profile of RFC 9068, JWT in Auth0's own. ID tokens have no `scope`.
types = ["at+jwt", "JWT"]
require = { scope = true }
scope_claims = ["scope"]
# `client_id` in the profile of RFC 9068, `azp` in Auth0's own.
client_claims = ["client_id", "azp"]
organisation_claim = "org_id"
# Auth0's default.
max_lifetime = "24h"
""",
    ),
    "cognito": Recipe(
        "Amazon Cognito",
        "https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html",
        {"region": "eu-west-1", "pool": "eu-west-1_AbCdEfGhI", "client": "the app client's id"},
        """\
[[issuers]]
issuer = "https://cognito-idp.{region}.amazonaws.com/{pool}"
jwks_uri = "https://cognito-idp.{region}.amazonaws.com/{pool}/.well-known/jwks.json"
algorithms = ["RS256"]
# Access tokens have no `aud` unless resource binding is used: then remove the next line and name the resource here.
audience_claim = "client_id"
audiences = ["{client}"]
# The header has no `typ`; `token_use` keeps ID tokens out.
types = [""]
require = { token_use = "access" }
# Custom scopes read "resource-server/scope".
scope_claims = ["scope"]
client_claims = ["client_id"]
roles_claim = "cognito:groups"
# As the app client says: one hour, at most 24.
max_lifetime = "1h"
""",
    ),
    "keycloak": Recipe(
        "Keycloak",
        "https://www.keycloak.org/docs/latest/server_admin/#_audience",
        {"url": "https://id.example.com", "realm": "main", "audience": "https://mcp.example.com/mcp"},
        """\
[[issuers]]
issuer = "{url}/realms/{realm}"
jwks_uri = "{url}/realms/{realm}/protocol/openid-connect/certs"
algorithms = ["RS256", "ES256", "EdDSA"]
# Add an audience mapper to a client scope; without one, `aud` does not name this server.
audiences = ["{audience}"]
# The header says JWT of every token; the claim `typ` says Bearer of access tokens and ID of ID tokens.
types = ["JWT", "at+jwt"]
require = { typ = "Bearer" }
scope_claims = ["scope"]
client_claims = ["azp", "client_id"]
# Five minutes by Keycloak's default.
max_lifetime = "60m"
""",
    ),
    "google": Recipe(
        "Google, ID tokens of service accounts",
        "https://cloud.google.com/docs/authentication/get-id-token",
        {"audience": "https://mcp.example.com/mcp"},
        """\
[[issuers]]
# Google's access tokens are opaque. Service accounts call with ID tokens that are made for one audience; people need a login of
# your own in front: `Guard.from_file(..., verifier=...)`.
issuer = "https://accounts.google.com"
jwks_uri = "https://www.googleapis.com/oauth2/v3/certs"
algorithms = ["RS256"]
audiences = ["{audience}"]
types = ["JWT"]
require = { azp = true, email_verified = true }
# These tokens have no scopes: rules are `open`, or name none of this issuer's callers.
scope_claims = ["scope"]
client_claims = ["azp"]
organisation_claim = "hd"
max_lifetime = "1h"
""",
    ),
    "github": Recipe(
        "GitHub Actions, ID tokens of workflows",
        "https://docs.github.com/en/actions/reference/security/oidc",
        {"repository": "owner/name", "audience": "https://mcp.example.com/mcp"},
        """\
[[issuers]]
# A workflow asks for a token that is made for one audience: no secret has to be kept in CI.
issuer = "https://token.actions.githubusercontent.com"
jwks_uri = "https://token.actions.githubusercontent.com/.well-known/jwks"
algorithms = ["RS256"]
audiences = ["{audience}"]
# Workflows of everybody have tokens of this issuer: the repository must be named.
types = ["JWT"]
require = { repository = "{repository}" }
# These tokens have no scopes: rules are `open`, or name none of this issuer's callers.
scope_claims = ["scope"]
# The workflow acts for itself.
client_claims = ["workflow_ref"]
organisation_claim = "repository_owner"
# Five minutes by GitHub's default.
max_lifetime = "15m"
""",
    ),
    "ping": Recipe(
        "PingOne, a custom resource",
        "https://docs.pingidentity.com/pingone/applications/p1_access_tokens.html",
        {"domain": "auth.pingone.eu", "environment": "a GUID", "audience": "the resource's audience"},
        """\
[[issuers]]
issuer = "https://{domain}/{environment}/as"
jwks_uri = "https://{domain}/{environment}/as/jwks"
algorithms = ["RS256"]
audiences = ["{audience}"]
# The header has no `typ`. ID tokens have neither `client_id` nor `scope`.
types = ["", "at+jwt"]
require = { client_id = true, scope = true }
scope_claims = ["scope"]
client_claims = ["client_id"]
organisation_claim = "org"
max_lifetime = "1h"
""",
    ),
}
