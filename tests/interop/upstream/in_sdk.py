"""A plugin of pytest: our verifier in the place of the SDK's ``TokenVerifier`` implementations.

The SDK's tests invent texts such as ``tok-valid`` and say what a verifier answers to each. Here that answer is signed as a JWT, and
ours verifies it; what the SDK is handed was read from our proof. Where a test says nothing of a resource, the JWT is one for this
server, and the SDK is told nothing of it either.
"""

from __future__ import annotations

import time

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from mcp.server.auth import provider as theirs
from mcp.server.auth.provider import AccessToken
from outcomes import refusals

from mcp_fastguard import Denied
from mcp_fastguard.token import KeySet, TokenVerifier

ISSUER = "https://issuer.example"
#: The resources of the tests' servers.
RESOURCES = ["http://127.0.0.1:8000/mcp", "https://api.example.com/mcp"]

_key = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256", "use": "sig"})
_verifier = TokenVerifier(
    issuer=ISSUER, audience=RESOURCES, keys=KeySet.from_jwks(_key.as_dict(private=False)), algorithms=["ES256"]
)


def verified(asked: AccessToken | None, *, lifetime: int | None = None) -> AccessToken | None:
    """What the SDK is handed for a token; ``lifetime`` in seconds where a test is not about expiry."""
    if asked is None:
        return None
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "client_id": asked.client_id,
        "scope": " ".join(asked.scopes),
        "iat": now if asked.expires_at is None or asked.expires_at > now else asked.expires_at - 60,
        "exp": asked.expires_at if lifetime is None else now + lifetime,
        "aud": asked.resource or RESOURCES[0],
        "sub": asked.subject,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    try:
        found = _verifier.verify(jwt.encode({"alg": "ES256", "kid": "k", "typ": "at+jwt"}, claims, _key))
    except Denied as denied:
        refusals.append(denied.code)
        return None
    return AccessToken(
        token=asked.token,
        client_id=found.client_id,
        scopes=list(found.scopes),
        expires_at=int(found.expires_at) if lifetime is None else asked.expires_at,
        resource=found.audience[0] if asked.resource else None,
        subject=found.subject,
    )


class StaticTokenVerifier:
    def __init__(self, tokens):
        self._tokens = dict(tokens)

    async def verify_token(self, token):
        return verified(self._tokens.get(token))


class SingleTokenVerifier:
    def __init__(self, access_token):
        self._access_token = access_token

    async def verify_token(self, token):
        return verified(self._access_token if token == self._access_token.token else None, lifetime=60)


class ProviderTokenVerifier(theirs.ProviderTokenVerifier):
    async def verify_token(self, token):
        return verified(await super().verify_token(token))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {item.module for item in items}:
        for ours in (StaticTokenVerifier, SingleTokenVerifier, ProviderTokenVerifier):
            if hasattr(module, ours.__name__):
                setattr(module, ours.__name__, ours)
