"""A plugin of pytest: our verifier in the place of FastMCP's ``JWTVerifier``.

FastMCP's class is kept for what is FastMCP's: options, their errors, the fetch of the key set, ``required_scopes``. Whether a token
is valid is decided by ours alone. Where a test leaves issuer or audience unset, so that FastMCP does not look at them, ours is
told to expect what the token says: it has no way to leave them out.
"""

from __future__ import annotations

import base64
import json

from fastmcp.server.auth import AccessToken
from fastmcp.server.auth.providers import jwt as theirs
from joserfc import jwk
from outcomes import refusals

from mcp_fastguard import Denied
from mcp_fastguard.token import KeySet, TokenVerifier


class JWTVerifier(theirs.JWTVerifier):
    async def load_access_token(self, token):
        try:
            keys = KeySet.from_jwks(await self._key_set(), allow_symmetric=self.algorithm.startswith("HS"))
        except ValueError as error:
            refusals.append(str(error))
            return None
        for issuer in _listed(self.issuer) or _claimed(token, "iss"):
            try:
                found = TokenVerifier(
                    issuer=issuer,
                    audience=_listed(self.audience) or _claimed(token, "aud") or ["urn:nobody"],
                    keys=keys,
                    algorithms=[self.algorithm],
                    types=["at+jwt", "JWT", ""],
                    require={"exp": True},
                ).verify(token)
            except Denied as denied:
                refusals.append(denied.code)
            except ValueError as error:
                refusals.append(str(error))
            else:
                return self._access_token(token, found)
        return None

    def _access_token(self, token, found):
        if not set(self.required_scopes or ()) <= set(found.scopes):
            return None
        return AccessToken(
            token=token,
            client_id=found.client_id or found.subject,
            scopes=list(found.scopes),
            expires_at=int(found.expires_at),
            subject=found.subject,
            claims=found.claims,
        )

    async def _key_set(self):
        if self.jwks_uri:
            return await self._fetch_jwks()
        if self.algorithm.startswith("HS"):
            secret = self.public_key if isinstance(self.public_key, bytes) else self.public_key.encode()
            return {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
        family = {"E": "OKP", "R": "RSA", "P": "RSA"}["E" if self.algorithm.startswith("Ed") else self.algorithm[0]]
        return jwk.import_key(self.public_key, family).as_dict(private=False)


def _listed(value):
    return [value] if isinstance(value, str) else list(value or ())


def _claimed(token, name):
    """What the token says, unverified."""
    try:
        payload = token.split(".")[1]
        return _listed(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get(name))
    except (IndexError, ValueError, AttributeError):
        return []


theirs.JWTVerifier = JWTVerifier
