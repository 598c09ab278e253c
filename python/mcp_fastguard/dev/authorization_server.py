"""An authorization server for development: client credentials, ES256 access tokens by RFC 9068, key rotation.

Its keys and its clients' secrets are made at the start and live in memory.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey
from mcp.server.auth.handlers.token import TokenErrorResponse, TokenSuccessResponse
from mcp.server.auth.json_response import PydanticJSONResponse
from mcp.server.auth.middleware.client_auth import AuthenticationError, ClientAuthenticator
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from mcp_fastguard.dev import require_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.auth.provider import OAuthAuthorizationServerProvider, TokenErrorCode
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["AuthorizationServer"]

#: Lifetime of access tokens, in seconds.
LIFETIME: Final = 900


class AuthorizationServer:
    """Issues tokens for one resource to clients that are registered with :meth:`add_client`.

    Args:
        issuer: its URL, on loopback.
        resource: the only audience that it issues for (RFC 8707).

    Raises:
        ValueError: the issuer is not on loopback.
    """

    def __init__(self, issuer: str, resource: str) -> None:
        require_loopback(urlsplit(issuer).hostname or "")
        self.issuer = issuer
        self.resource = resource
        #: Whoever knows it may rotate the keys over HTTP.
        self.admin_secret = secrets.token_urlsafe(24)
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._keys: list[ECKey] = []
        self.rotate()

    # --- clients and keys -----------------------------------------------------------------------

    def add_client(self, client_id: str, scopes: list[str]) -> str:
        """Registers a client for client credentials and gives its secret."""
        secret = secrets.token_urlsafe(24)
        self._clients[client_id] = OAuthClientInformationFull(
            client_id=client_id,
            client_secret=secret,
            redirect_uris=None,
            grant_types=["client_credentials"],
            token_endpoint_auth_method="client_secret_post",
            scope=" ".join(scopes),
        )
        return secret

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """The registered client, for the SDK's authenticator."""
        return self._clients.get(client_id)

    def rotate(self) -> str:
        """Signs with a new key from now on. The old ones stay published. Gives the new ``kid``."""
        key_id = secrets.token_hex(8)
        self._keys.insert(0, ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": "ES256"}))
        return key_id

    def retire_old(self) -> None:
        """Publishes the newest key only."""
        del self._keys[1:]

    @property
    def jwks(self) -> dict[str, Any]:
        """The published key set (RFC 7517)."""
        return {"keys": [key.as_dict(private=False) for key in self._keys]}

    # --- tokens ---------------------------------------------------------------------------------

    def issue(
        self,
        subject: str,
        scope: str,
        *,
        lifetime: int = LIFETIME,
        key: ECKey | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """An access token (RFC 9068 section 2).

        Args:
            subject: ``sub`` and ``client_id``.
            scope: scopes, separated by spaces.
            lifetime: seconds; negative for one that has expired.
            key: another key than the newest, for tokens that must be refused.
            header: members of the header to add or replace.
            claims: claims to add or replace.
        """
        key = key or self._keys[0]
        now = int(time.time())
        issued_at = now if lifetime > 0 else now + lifetime - LIFETIME
        payload = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.resource,
            "client_id": subject,
            "scope": scope,
            "iat": issued_at,
            "exp": now + lifetime,
            "jti": secrets.token_urlsafe(12),
            **claims,
        }
        return jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt", **(header or {})}, payload, key)

    # --- endpoints ------------------------------------------------------------------------------

    def app(self) -> Starlette:
        """The ASGI application: metadata (RFC 8414), key set, token endpoint, rotation."""
        path = urlsplit(self.issuer).path.rstrip("/")
        return Starlette(
            routes=[
                Route(f"/.well-known/oauth-authorization-server{path}", self._metadata),
                Route(f"{path}/jwks", self._jwks),
                Route(f"{path}/authorize", self._authorize),
                Route(f"{path}/token", self._token, methods=["POST"]),
                Route(f"{path}/dev/rotate", self._rotate, methods=["POST"]),
            ]
        )

    async def _metadata(self, _: Request) -> Response:
        scopes = sorted({scope for client in self._clients.values() for scope in (client.scope or "").split()})
        metadata = OAuthMetadata(
            issuer=AnyHttpUrl(self.issuer),
            # The SDK's model wants one (RFC 8414 does not, for these grants); it refuses every request.
            authorization_endpoint=AnyHttpUrl(f"{self.issuer}/authorize"),
            token_endpoint=AnyHttpUrl(f"{self.issuer}/token"),
            scopes_supported=scopes,
            response_types_supported=[],
            grant_types_supported=["client_credentials"],
            token_endpoint_auth_methods_supported=["client_secret_post"],
        ).model_dump(mode="json", exclude_none=True)
        # The model writes a bare origin with a slash, and issuers are compared letter by letter (RFC 8414 section 3.3); it
        # does not know `jwks_uri`, by which resource servers find the keys.
        return JSONResponse({**metadata, "issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"})

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self.jwks)

    async def _authorize(self, _: Request) -> Response:
        return _refusal("unsupported_response_type", "this server knows client credentials only")

    async def _rotate(self, request: Request) -> Response:
        presented = request.headers.get("authorization", "")
        if not secrets.compare_digest(presented.encode(), f"Bearer {self.admin_secret}".encode()):
            return JSONResponse({"error": "access_denied"}, status_code=403)
        return JSONResponse({"kid": self.rotate()})

    async def _token(self, request: Request) -> Response:
        """Client credentials (RFC 6749 section 4.4) with a resource indicator (RFC 8707)."""
        provider: OAuthAuthorizationServerProvider[Any, Any, Any] = self  # type: ignore[assignment]
        try:
            client = await ClientAuthenticator(provider).authenticate_request(request)
        except AuthenticationError as error:
            return _refusal("invalid_client", error.message, status=401)
        form = await request.form()
        if form.get("grant_type") != "client_credentials":
            return _refusal("unsupported_grant_type", "only client_credentials")
        if form.get("resource") != self.resource:
            return _refusal("invalid_target", f"`resource` must be {self.resource}")
        registered = (client.scope or "").split()
        asked = str(form.get("scope") or "").split() or registered
        if not set(asked) <= set(registered):
            return _refusal("invalid_scope", "the client is not registered for all of these scopes")
        scope = " ".join(asked)
        token = self.issue(client.client_id or "", scope)
        answer = TokenSuccessResponse(access_token=token, expires_in=LIFETIME, scope=scope)
        return PydanticJSONResponse(content=answer, headers={"cache-control": "no-store"})


def _refusal(code: str, description: str, *, status: int = 400) -> Response:
    known: TokenErrorCode = code  # type: ignore[assignment]
    try:
        answer = TokenErrorResponse(error=known, error_description=description).model_dump(exclude_none=True)
    except ValueError:
        # RFC 8707 adds `invalid_target`, which the SDK's model does not know.
        answer = {"error": code, "error_description": description}
    return JSONResponse(answer, status_code=status, headers={"cache-control": "no-store"})
