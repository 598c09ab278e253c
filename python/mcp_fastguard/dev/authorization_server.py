"""An authorization server for development: logins by browser and client credentials, ES256 access tokens by RFC 9068.

Its keys, its clients and their secrets are made at the start or register themselves, and live in memory.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey
from mcp.server.auth.handlers.register import RegistrationErrorResponse
from mcp.server.auth.handlers.token import TokenErrorResponse, TokenSuccessResponse
from mcp.server.auth.json_response import PydanticJSONResponse
from mcp.server.auth.provider import RegistrationError, TokenError
from mcp.server.auth.routes import cors_middleware
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.auth import OAuthMetadata
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from mcp_fastguard.dev.authorization import Authorization
from mcp_fastguard.dev.clients import AUTH_METHODS, Clients, single
from mcp_fastguard.dev.grants import Grants
from mcp_fastguard.dev.introspection import ReferenceTokens
from mcp_fastguard.dev.loopback import LoopbackOnly, require_loopback
from mcp_fastguard.dev.proofs import BadProofError, bound_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from mcp_fastguard.dev.clients import Client
    from mcp_fastguard.dev.grants import Grant

__all__ = ["GRANT_TYPES", "LIFETIME", "MAX_LIFETIME", "USERS", "AuthorizationServer"]

#: Lifetime of access tokens, in seconds.
LIFETIME: Final = 900

#: Longest lifetime that may be asked for with the admin secret, in seconds: a day of development.
MAX_LIFETIME: Final = 24 * 3600

#: An old key stays published for so many seconds: until its last token has expired, with a minute for clocks that differ.
OVERLAP: Final = LIFETIME + 60

#: Keys published at most, so that rotating in a loop cannot fill the memory. The oldest go first.
MAX_KEYS: Final = 8

#: Longest body of a request, in bytes: a token request with everything in it has less than one KiB.
MAX_BODY: Final = 16 * 1024

#: Who a person may log in as, unless the developer names others.
USERS: Final = ("alice", "bob")

#: The ways to a token.
GRANT_TYPES: Final = ("authorization_code", "refresh_token", "client_credentials")

#: ``client_id`` of tokens that are issued with the admin secret for a user.
ADMIN_CLIENT: Final = "fastguard-cli"

#: What RFC 6749 section 5.1 wants on every answer with a token in it, and what does no harm on the others.
_NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

#: RFC 6749 section 3.3.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")


@dataclass(frozen=True)
class _PublishedKey:
    key: ECKey
    #: When the key leaves the set; None for the one that signs.
    until: float | None = None


class AuthorizationServer:
    """Issues tokens for one resource: to clients of :meth:`add_client` by their secret, and to those that register
    themselves (RFC 7591) where a person allows it in a browser.

    Args:
        issuer: its URL, on loopback, without a slash at the end.
        resource: the only audience that it issues for (RFC 8707).
        scopes: what people may allow, besides the scopes of :meth:`add_client`.
        users: who a person may log in as; nobody is asked for a password. Default: alice and bob.
        clock: seconds since the epoch.

    Raises:
        ValueError: the issuer is not on loopback, or no issuer identifier (RFC 8414 section 2).
    """

    def __init__(
        self,
        issuer: str,
        resource: str,
        *,
        scopes: Sequence[str] = (),
        users: Sequence[str] = USERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
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
        self._scopes = tuple(scopes)
        self._proofs: dict[str, float] = {}
        self._clients = Clients(clock)
        self._listeners: list[Callable[[str], None]] = []
        self._grants = Grants(clock, self._revoked)
        #: Tokens that say nothing by themselves.
        self.reference_tokens = ReferenceTokens(issuer, resource, clients=self._clients, clock=clock)
        self._authorization = Authorization(
            issuer,
            resource,
            clients=self._clients,
            grants=self._grants,
            scopes=lambda: self.scopes,
            users=users,
            clock=clock,
        )
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
        return self._clients.add(client_id, scopes, default_scope)

    def add_resource_server(self, client_id: str) -> str:
        """Registers a resource server, which may ask about reference tokens (RFC 7662), and gives its secret."""
        return self._clients.add_resource_server(client_id)

    @property
    def scopes(self) -> list[str]:
        """All scopes that this server knows, in order."""
        return sorted({*self._scopes, *self._clients.scopes})

    def on_revoked(self, listener: Callable[[str], None]) -> None:
        """Has ``listener`` called with the ``sid`` of tokens that must not be taken any more, though they verify."""
        self._listeners.append(listener)

    def _revoked(self, session: str) -> None:
        for listener in self._listeners:
            listener(session)

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
        """The ASGI application: metadata (RFC 8414), key set, registration, login, token endpoint; and what the admin
        secret opens. Answers loopback only.
        """
        path = urlsplit(self.issuer).path
        read, write = ["GET", "OPTIONS"], ["POST", "OPTIONS"]
        # RFC 8414 section 3.1: the path of the issuer comes after the well-known part.
        metadata_path = f"/.well-known/oauth-authorization-server{path}"
        return Starlette(
            routes=[
                Route(metadata_path, cors_middleware(self._metadata, read), methods=read),
                Route(f"{path}/jwks", cors_middleware(self._jwks, read), methods=read),
                Route(f"{path}/token", cors_middleware(self._token, write), methods=write),
                # Without CORS: resource servers ask, and no page.
                Route(f"{path}/introspect", self.reference_tokens.answer, methods=["POST"]),
                Route(f"{path}/register", cors_middleware(self._register, write), methods=write),
                # Without CORS: people come here, and no page may read what they are shown.
                Route(f"{path}/authorize", self._authorization.ask, methods=["GET"]),
                Route(f"{path}/consent", self._authorization.decide, methods=["POST"]),
                Route(f"{path}/dev/rotate", self._rotate, methods=["POST"]),
                Route(f"{path}/dev/token", self._issue_for_admin, methods=["POST"]),
            ],
            middleware=[Middleware(LoopbackOnly), Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)],
        )

    async def _metadata(self, _: Request) -> Response:
        metadata = OAuthMetadata(
            issuer=AnyHttpUrl(self.issuer),
            authorization_endpoint=AnyHttpUrl(f"{self.issuer}/authorize"),
            token_endpoint=AnyHttpUrl(f"{self.issuer}/token"),
            registration_endpoint=AnyHttpUrl(f"{self.issuer}/register"),
            scopes_supported=self.scopes,
            response_types_supported=["code"],
            grant_types_supported=list(GRANT_TYPES),
            token_endpoint_auth_methods_supported=list(AUTH_METHODS),
            code_challenge_methods_supported=["S256"],
            authorization_response_iss_parameter_supported=True,
        ).model_dump(mode="json", exclude_none=True)
        # The model writes a bare origin with a slash, and issuers are compared letter by letter (RFC 8414 section 3.3); it
        # does not know `jwks_uri`, by which resource servers find the keys.
        return JSONResponse(
            {
                **metadata,
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks",
                "introspection_endpoint": f"{self.issuer}/introspect",
                "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "dpop_signing_alg_values_supported": ["ES256"],
            }
        )

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(self.jwks)

    # --- for whoever knows the admin secret -----------------------------------------------------------

    async def _rotate(self, request: Request) -> Response:
        if not self._is_admin(request):
            return JSONResponse({"error": "access_denied"}, status_code=403)
        return JSONResponse({"kid": self.rotate()})

    async def _issue_for_admin(self, request: Request) -> Response:
        """A token without a login: for ``fastguard token issue``."""
        if not self._is_admin(request):
            return JSONResponse({"error": "access_denied"}, status_code=403)
        form = await request.form()
        try:
            subject, scope = single(form, "subject") or "", single(form, "scope") or ""
            lifetime = int(single(form, "lifetime") or LIFETIME)
        except (TokenError, ValueError):
            subject, scope, lifetime = "", "", 0
        if not subject or not _SCOPE.fullmatch(scope) or not 0 < lifetime <= MAX_LIFETIME:
            answer = {"error": "invalid_request", "scopes_supported": self.scopes, "max_lifetime": MAX_LIFETIME}
            return JSONResponse(answer, status_code=400)
        token = self.issue(subject, scope, lifetime=lifetime, client_id=ADMIN_CLIENT)
        unknown = [name for name in scope.split() if name not in self.scopes]
        answer = {"access_token": token, "expires_in": lifetime, "unknown_scopes": unknown}
        return JSONResponse({**answer, "scopes_supported": self.scopes}, headers=_NOT_STORED)

    def _is_admin(self, request: Request) -> bool:
        presented = request.headers.get("authorization", "")
        return secrets.compare_digest(presented.encode(), f"Bearer {self.admin_secret}".encode())

    # --- registration and tokens ----------------------------------------------------------------------

    async def _register(self, request: Request) -> Response:
        """Dynamic client registration (RFC 7591 section 3), open to everybody on this machine."""
        try:
            answer = self._clients.register(await request.body(), " ".join(self.scopes))
        except RegistrationError as error:
            refusal = RegistrationErrorResponse(error=error.error, error_description=error.error_description)
            return PydanticJSONResponse(content=refusal, status_code=400, headers=_NOT_STORED)
        return JSONResponse(answer, status_code=201, headers=_NOT_STORED)

    async def _token(self, request: Request) -> Response:
        """The token endpoint (RFC 6749 section 3.2) with a resource indicator (RFC 8707)."""
        form = await request.form()
        try:
            client = self._clients.authenticate(request, form)
            bound = self._bound(request)
            answer = self._granted(client, form, bound)
        except BadProofError as error:
            # RFC 9449 section 5.
            refusal = {"error": "invalid_dpop_proof", "error_description": str(error)}
            return JSONResponse(refusal, status_code=400, headers=_NOT_STORED)
        except TokenError as error:
            if error.error != "invalid_client":
                return _refusal(error)
            # RFC 6749 section 5.2: the challenge names the scheme that the client used.
            basic = {"WWW-Authenticate": 'Basic realm="token"'} if "authorization" in request.headers else {}
            return _refusal(error, status=401, headers=basic)
        # The SDK's model knows Bearer alone (RFC 9449 section 5: `token_type` is DPoP).
        kind = {"token_type": "DPoP"} if bound else {}
        return JSONResponse({**answer.model_dump(mode="json", exclude_none=True), **kind}, headers=_NOT_STORED)

    def _bound(self, request: Request) -> dict[str, Any]:
        """``cnf`` of the token, if the request shows a key."""
        proofs = request.headers.getlist("dpop")
        if not proofs:
            return {}
        thumbprint = bound_to(proofs, url=f"{self.issuer}/token", now=self._clock(), used=self._proofs)
        return {"cnf": {"jkt": thumbprint}}

    def _granted(self, client: Client, form: FormData, bound: Mapping[str, Any]) -> TokenSuccessResponse:
        """The tokens that a client asks for; ``bound`` is the claim that ties them to its key, if any."""
        grant_type = single(form, "grant_type")
        if grant_type is None:
            raise TokenError("invalid_request", "`grant_type` is missing")
        if grant_type not in GRANT_TYPES:
            raise TokenError("unsupported_grant_type", f"`grant_type` must be one of {', '.join(GRANT_TYPES)}")
        if grant_type not in client.grant_types:
            raise TokenError("unauthorized_client", f"this client has not registered {grant_type}")
        if grant_type == "authorization_code":
            return self._by_code(client, form, bound)
        # RFC 8707 allows several and a default; a token with one audience that was asked for can be misused nowhere else.
        self._require_resource(form)
        if grant_type == "refresh_token":
            return self._by_refresh_token(client, form, bound)
        scope = _within(single(form, "scope") or client.default_scope, client.scopes or ())
        token = self.issue(client.client_id, scope, **bound)
        return TokenSuccessResponse(access_token=token, expires_in=LIFETIME, scope=scope)

    def _by_code(self, client: Client, form: FormData, bound: Mapping[str, Any]) -> TokenSuccessResponse:
        code, verifier = single(form, "code"), single(form, "code_verifier")
        if code is None or verifier is None:
            raise TokenError("invalid_request", "`code` and `code_verifier` are needed")
        # The code first: it is used up whatever else is wrong.
        grant = self._grants.redeem(code, client.client_id, single(form, "redirect_uri"), verifier)
        self._require_resource(form)
        return self._tokens(client, grant, " ".join(grant.scopes), bound)

    def _by_refresh_token(self, client: Client, form: FormData, bound: Mapping[str, Any]) -> TokenSuccessResponse:
        presented = single(form, "refresh_token") or ""
        grant = self._grants.refresh(presented, client.client_id, _key_of(bound))
        # RFC 6749 section 6: less than was allowed may be asked for, and for this token only.
        scope = _within(single(form, "scope") or " ".join(grant.scopes), grant.scopes)
        self._grants.use_up(presented)
        return self._tokens(client, grant, scope, bound)

    def _tokens(self, client: Client, grant: Grant, scope: str, bound: Mapping[str, Any]) -> TokenSuccessResponse:
        token = self.issue(grant.subject, scope, client_id=client.client_id, sid=grant.id, **bound)
        # Of a public client it is bound too; another authenticates, and may change its key (RFC 9449 section 5).
        key = _key_of(bound) if client.secret is None else None
        refresh = self._grants.refresh_token(grant, key) if "refresh_token" in client.grant_types else None
        return TokenSuccessResponse(access_token=token, expires_in=LIFETIME, scope=scope, refresh_token=refresh)

    def _require_resource(self, form: FormData) -> None:
        if form.getlist("resource") != [self.resource]:
            raise TokenError("invalid_target", f"`resource` must be {self.resource}, once")


def _key_of(bound: Mapping[str, Any]) -> str | None:
    """The thumbprint of the key that tokens of this request are bound to, if it showed one."""
    return str(bound["cnf"]["jkt"]) if bound else None


def _within(scope: str, allowed: Sequence[str]) -> str:
    """A scope that was asked for, if it is allowed."""
    asked = scope.split()
    beyond = [name for name in asked if name not in allowed]
    if beyond or not asked:
        raise TokenError("invalid_scope", f"the scopes that can be had are {' '.join(allowed)}")
    return " ".join(asked)


def _refusal(error: TokenError, *, status: int = 400, headers: Mapping[str, str] | None = None) -> Response:
    answer = TokenErrorResponse(error=error.error, error_description=error.error_description)
    return PydanticJSONResponse(content=answer, status_code=status, headers={**_NOT_STORED, **(headers or {})})
