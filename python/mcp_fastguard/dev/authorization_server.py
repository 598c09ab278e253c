"""An authorization server for development: client credentials, ES256 access tokens by RFC 9068, key rotation.

Its keys and its clients' secrets are made at the start and live in memory.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote_plus, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey
from mcp.server.auth.handlers.token import TokenErrorResponse, TokenSuccessResponse
from mcp.server.auth.json_response import PydanticJSONResponse
from mcp.server.auth.provider import TokenError
from mcp.server.auth.routes import cors_middleware
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.auth import InvalidScopeError, OAuthClientInformationFull, OAuthMetadata
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from mcp_fastguard.dev.loopback import LoopbackOnly, require_loopback
from mcp_fastguard.dev.proofs import BadProofError, bound_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["LIFETIME", "AuthorizationServer"]

#: Lifetime of access tokens, in seconds.
LIFETIME: Final = 900

#: A token that is issued by hand lives at most so long, in seconds: what guards accept by default.
MAX_LIFETIME: Final = 3_600

#: An old key stays published for so many seconds: until its last token has expired, with a minute for clocks that differ.
OVERLAP: Final = LIFETIME + 60

#: Keys published at most, so that rotating in a loop cannot fill the memory. The oldest go first.
MAX_KEYS: Final = 8

#: Longest body of a request, in bytes: a token request with everything in it has less than one KiB.
MAX_BODY: Final = 16 * 1024

#: What RFC 6749 section 5.1 wants on every answer with a token in it, and what does no harm on the others.
_NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True)
class _PublishedKey:
    key: ECKey
    #: When the key leaves the set; None for the one that signs.
    until: float | None = None


class _InvalidClientError(Exception):
    """The client could not be authenticated (RFC 6749 section 5.2, ``invalid_client``)."""


class AuthorizationServer:
    """Issues tokens for one resource to clients that are registered with :meth:`add_client`.

    Args:
        issuer: its URL, on loopback, without a slash at the end.
        resource: the only audience that it issues for (RFC 8707).
        clock: seconds since the epoch.

    Raises:
        ValueError: the issuer is not on loopback, or no issuer identifier (RFC 8414 section 2).
    """

    def __init__(self, issuer: str, resource: str, *, clock: Callable[[], float] = time.time) -> None:
        url = urlsplit(issuer)
        require_loopback(url.hostname or "")
        if url.scheme not in {"http", "https"} or url.query or url.fragment or issuer.endswith("/"):
            message = f"an issuer is an http(s) URL without query, fragment and slash at the end, not `{issuer}`"
            raise ValueError(message)
        self.issuer = issuer
        self.resource = resource
        #: Whoever knows it may rotate the keys over HTTP.
        self.admin_secret = secrets.token_urlsafe(24)
        self._clock = clock
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._default_scopes: dict[str, str] = {}
        self._proofs: dict[str, float] = {}
        #: The first one signs.
        self._keys: list[_PublishedKey] = []
        self.rotate()

    # --- clients and keys -----------------------------------------------------------------------

    def add_client(self, client_id: str, scopes: Sequence[str], *, default_scope: str | None = None) -> str:
        """Registers a client for client credentials and gives its secret.

        Args:
            client_id: its name.
            scopes: what it may ask for.
            default_scope: what it gets if it asks for nothing (RFC 6749 section 3.3); default: the first of ``scopes``.

        Raises:
            ValueError: no scopes, or a default beyond them.
        """
        default = scopes[0] if default_scope is None and scopes else default_scope
        if default is None or not set(default.split()) <= set(scopes):
            message = f"client `{client_id}` needs scopes, and a default among them"
            raise ValueError(message)
        secret = secrets.token_urlsafe(24)
        self._default_scopes[client_id] = default
        self._clients[client_id] = OAuthClientInformationFull(
            client_id=client_id,
            client_secret=secret,
            grant_types=["client_credentials"],
            token_endpoint_auth_method="client_secret_basic",
            scope=" ".join(scopes),
        )
        return secret

    def rotate(self) -> str:
        """Signs with a new key from now on; gives its ``kid``. Older ones stay published while their tokens live."""
        now = self._clock()
        key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"})
        kept = [_PublishedKey(old.key, old.until or now + OVERLAP) for old in self._published(now)]
        self._keys = [_PublishedKey(key), *kept[: MAX_KEYS - 1]]
        return str(key.kid)

    def retire_old(self) -> None:
        """Publishes only the key that signs, from now on."""
        del self._keys[1:]

    @property
    def jwks(self) -> dict[str, Any]:
        """The published key set (RFC 7517)."""
        return {"keys": [found.key.as_dict(private=False) for found in self._published(self._clock())]}

    def _published(self, now: float) -> list[_PublishedKey]:
        return [found for found in self._keys if found.until is None or now < found.until]

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
        """An access token (RFC 9068 section 2); with the options, one that a resource server must refuse.

        Args:
            subject: ``sub`` and ``client_id``: a client that acts for itself is the subject (RFC 9068 section 2.2).
            scope: scopes, separated by spaces.
            lifetime: seconds; negative for one that has expired.
            key: another key than the one that signs now, for instance one that was never published.
            header: members of the header to add or replace.
            claims: claims to add or replace; None leaves one out.
        """
        key = key or self._keys[0].key
        now = int(self._clock())
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
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt", **(header or {})}, payload, key)

    # --- endpoints ------------------------------------------------------------------------------

    def app(self) -> Starlette:
        """The ASGI application: metadata (RFC 8414), key set, token endpoint, rotation. Answers loopback only."""
        path = urlsplit(self.issuer).path
        read, write = ["GET", "OPTIONS"], ["POST", "OPTIONS"]
        # RFC 8414 section 3.1: the path of the issuer comes after the well-known part.
        metadata_path = f"/.well-known/oauth-authorization-server{path}"
        return Starlette(
            routes=[
                Route(metadata_path, cors_middleware(self._metadata, read), methods=read),
                Route(f"{path}/jwks", cors_middleware(self._jwks, read), methods=read),
                Route(f"{path}/token", cors_middleware(self._token, write), methods=write),
                Route(f"{path}/authorize", self._authorize, methods=["GET", "POST"]),
                Route(f"{path}/dev/rotate", self._rotate, methods=["POST"]),
                Route(f"{path}/dev/issue", self._issue, methods=["POST"]),
            ],
            middleware=[Middleware(LoopbackOnly), Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)],
        )

    async def _metadata(self, _: Request) -> Response:
        scopes = sorted({scope for client in self._clients.values() for scope in (client.scope or "").split()})
        metadata = OAuthMetadata(
            issuer=AnyHttpUrl(self.issuer),
            # RFC 8414 does not ask for one with these grants, but the SDK's clients do; it refuses every request.
            authorization_endpoint=AnyHttpUrl(f"{self.issuer}/authorize"),
            token_endpoint=AnyHttpUrl(f"{self.issuer}/token"),
            scopes_supported=scopes,
            response_types_supported=[],
            grant_types_supported=["client_credentials"],
            token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
        ).model_dump(mode="json", exclude_none=True)
        # The model writes a bare origin with a slash, and issuers are compared letter by letter (RFC 8414 section 3.3); it
        # does not know `jwks_uri`, by which resource servers find the keys.
        return JSONResponse(
            {
                **metadata,
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks",
                "dpop_signing_alg_values_supported": ["ES256"],
            }
        )

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self.jwks)

    async def _authorize(self, _: Request) -> Response:
        # Not redirected: no client has a registered address (RFC 6749 section 4.1.2.1).
        answer = {
            "error": "unsupported_response_type",
            "error_description": "this server knows client credentials only",
        }
        return JSONResponse(answer, status_code=400)

    async def _rotate(self, request: Request) -> Response:
        if not self._is_admin(request):
            return JSONResponse({"error": "access_denied"}, status_code=403)
        return JSONResponse({"kid": self.rotate()})

    async def _issue(self, request: Request) -> Response:
        """A token for whoever started this server, in anybody's name."""
        if not self._is_admin(request):
            return JSONResponse({"error": "access_denied"}, status_code=403)
        try:
            asked = await request.json()
            subject, scope, lifetime = str(asked["subject"]), str(asked["scope"]), int(asked["lifetime"])
        except (KeyError, TypeError, ValueError):
            return JSONResponse({"error": "invalid_request"}, status_code=400)
        if not subject or not 1 <= lifetime <= MAX_LIFETIME:
            return JSONResponse({"error": "invalid_request"}, status_code=400)
        token = self.issue(subject, scope, lifetime=lifetime)
        return JSONResponse({"access_token": token, "expires_in": lifetime}, headers=_NOT_STORED)

    def _is_admin(self, request: Request) -> bool:
        presented = request.headers.get("authorization", "")
        return secrets.compare_digest(presented.encode(), f"Bearer {self.admin_secret}".encode())

    async def _token(self, request: Request) -> Response:
        """Client credentials (RFC 6749 section 4.4) with a resource indicator (RFC 8707)."""
        form = await request.form()
        try:
            client = self._authenticate(request, form)
            scope = self._granted(client, form)
        except _InvalidClientError as error:
            # RFC 6749 section 5.2: the challenge names the scheme that the client used.
            basic = {"WWW-Authenticate": 'Basic realm="token"'} if "authorization" in request.headers else {}
            return _refusal(TokenError("invalid_client", str(error)), status=401, headers=basic)
        except TokenError as error:
            return _refusal(error)
        proofs = request.headers.getlist("dpop")
        if not proofs:
            answer = TokenSuccessResponse(
                access_token=self.issue(client.client_id, scope), expires_in=LIFETIME, scope=scope
            )
            return PydanticJSONResponse(content=answer, headers=_NOT_STORED)
        try:
            thumbprint = bound_to(proofs, url=f"{self.issuer}/token", now=self._clock(), used=self._proofs)
        except BadProofError as error:
            refusal = {"error": "invalid_dpop_proof", "error_description": str(error)}
            return JSONResponse(refusal, status_code=400, headers=_NOT_STORED)
        token = self.issue(client.client_id, scope, cnf={"jkt": thumbprint})
        # The SDK's model knows Bearer alone (RFC 9449 section 5: `token_type` is DPoP).
        bound = {"access_token": token, "token_type": "DPoP", "expires_in": LIFETIME, "scope": scope}
        return JSONResponse(bound, headers=_NOT_STORED)

    def _authenticate(self, request: Request, form: FormData) -> OAuthClientInformationFull:
        """The client, by HTTP Basic or by the form (RFC 6749 section 2.3.1).

        The SDK's own authenticator cannot serve here: it wants ``client_id`` in the form even with Basic, where neither the
        RFC nor the SDK's client has it.
        """
        client_id, secret = _basic(request.headers["authorization"]) if "authorization" in request.headers else ("", "")
        if client_id and "client_secret" in form:
            # RFC 6749 section 2.3: not more than one method in a request.
            raise TokenError("invalid_request", "the client authenticates in two ways")
        if not client_id:
            client_id, secret = _single(form, "client_id") or "", _single(form, "client_secret") or ""
        client = self._clients.get(client_id)
        # Compared for unknown clients too, so that the time does not tell which ones exist.
        expected = (client.client_secret if client else None) or secrets.token_urlsafe(24)
        if not secrets.compare_digest(secret.encode(), expected.encode()) or client is None:
            message = "unknown client or wrong secret"
            raise _InvalidClientError(message)
        return client

    def _granted(self, client: OAuthClientInformationFull, form: FormData) -> str:
        """The scope of the token that a client asks for."""
        if _single(form, "grant_type") != "client_credentials":
            problem: Literal["invalid_request", "unsupported_grant_type"]
            problem = "unsupported_grant_type" if "grant_type" in form else "invalid_request"
            raise TokenError(problem, "`grant_type` must be client_credentials")
        # RFC 8707 allows several and a default; a token with one audience that was asked for can be misused nowhere else.
        if form.getlist("resource") != [self.resource]:
            raise TokenError("invalid_target", f"`resource` must be {self.resource}, once")
        asked = " ".join((_single(form, "scope") or self._default_scopes[client.client_id]).split())
        try:
            client.validate_scope(asked)
        except InvalidScopeError as error:
            raise TokenError("invalid_scope", error.message) from None
        return asked


def _single(form: FormData, name: str) -> str | None:
    """A parameter, which may not be there twice (RFC 6749 section 3.2)."""
    values = form.getlist(name)
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise TokenError("invalid_request", f"`{name}` must be there once, as text")
    return str(values[0]) if values else None


def _basic(header: str) -> tuple[str, str]:
    """Client and secret of an ``Authorization`` header. Both are form-encoded in it (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        message = "the Authorization header is no HTTP Basic"
        raise _InvalidClientError(message)
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal(error: TokenError, *, status: int = 400, headers: Mapping[str, str] | None = None) -> Response:
    answer = TokenErrorResponse(error=error.error, error_description=error.error_description)
    return PydanticJSONResponse(content=answer, status_code=status, headers={**_NOT_STORED, **(headers or {})})
