"""The clients of the authorization server: those of the developer, and those that register themselves (RFC 7591)."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from mcp.server.auth.provider import RegistrationError, TokenError
from mcp.shared.auth import OAuthClientMetadata
from pydantic import ValidationError

from mcp_fastguard.dev.redirects import require_redirect_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.datastructures import FormData, ImmutableMultiDict
    from starlette.requests import Request

__all__ = ["AUTH_METHODS", "MAX_REGISTERED", "Client", "Clients", "single"]

#: Clients that have registered themselves, at most: everybody may register, so the oldest go first.
MAX_REGISTERED: Final = 1000

#: How a client may authenticate at the token endpoint (RFC 6749 section 2.3.1, RFC 7591 section 2).
AUTH_METHODS: Final = ("client_secret_basic", "client_secret_post", "none")

#: What a client that registers itself may be granted: nothing without a person.
_REGISTERED_GRANTS: Final = ("authorization_code", "refresh_token")


@dataclass(frozen=True)
class Client:
    """A client, and what it may ask for."""

    client_id: str
    #: None for a public client, which has nothing to authenticate with.
    secret: str | None
    grant_types: tuple[str, ...]
    #: None: whatever the server has, because a person decides.
    scopes: tuple[str, ...] | None = None
    default_scope: str = ""
    name: str = ""
    redirect_uris: tuple[str, ...] = ()
    #: It is a resource server, and may ask about tokens.
    introspects: bool = False


class Clients:
    """Knows all clients.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._own: dict[str, Client] = {}
        self._registered: dict[str, Client] = {}

    @property
    def scopes(self) -> set[str]:
        """All scopes of the developer's clients."""
        return {scope for client in self._own.values() for scope in client.scopes or ()}

    def find(self, client_id: str) -> Client | None:
        """The client of this name."""
        return self._own.get(client_id) or self._registered.get(client_id)

    def add(self, client_id: str, scopes: Sequence[str], default_scope: str | None) -> str:
        """Adds a client for client credentials; gives its secret."""
        default = scopes[0] if default_scope is None and scopes else default_scope
        if default is None or not set(default.split()) <= set(scopes):
            message = f"client `{client_id}` needs scopes, and a default among them"
            raise ValueError(message)
        secret = secrets.token_urlsafe(24)
        self._own[client_id] = Client(client_id, secret, ("client_credentials",), tuple(scopes), default)
        return secret

    def add_resource_server(self, client_id: str) -> str:
        """Adds a client that gets no tokens and may ask about those of others; gives its secret."""
        secret = secrets.token_urlsafe(24)
        self._own[client_id] = Client(client_id, secret, (), (), introspects=True)
        return secret

    # --- registration -----------------------------------------------------------------------------

    def register(self, body: bytes, scope: str) -> dict[str, Any]:
        """Registers a client; gives what it is told (RFC 7591 section 3.2.1).

        Args:
            body: its metadata, as it sent them.
            scope: what it is told that it may ask for.

        Raises:
            RegistrationError: a redirect URI or something else in its metadata cannot be had.
        """
        metadata = _metadata(body)
        # Of the JSON and not of the model, which rewrites URLs: they are compared letter by letter.
        uris = tuple(str(uri) for uri in json.loads(body)["redirect_uris"])
        for uri in uris:
            try:
                require_redirect_uri(uri)
            except ValueError as error:
                raise RegistrationError("invalid_redirect_uri", str(error)) from None
        method = metadata.token_endpoint_auth_method or "client_secret_basic"
        secret = None if method == "none" else secrets.token_urlsafe(24)
        grants = tuple(grant for grant in _REGISTERED_GRANTS if grant in metadata.grant_types)
        client = Client(
            client_id=secrets.token_urlsafe(16),
            secret=secret,
            grant_types=grants,
            name=metadata.client_name or "",
            redirect_uris=uris,
        )
        while len(self._registered) >= MAX_REGISTERED:
            del self._registered[next(iter(self._registered))]
        self._registered[client.client_id] = client
        return {
            **metadata.model_dump(mode="json", exclude_none=True),
            "redirect_uris": list(uris),
            "grant_types": list(grants),
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "scope": scope,
            "client_id": client.client_id,
            "client_id_issued_at": int(self._clock()),
            **({} if secret is None else {"client_secret": secret, "client_secret_expires_at": 0}),
        }

    # --- authentication ---------------------------------------------------------------------------

    def authenticate(self, request: Request, form: FormData) -> Client:
        """The client of a token request, by HTTP Basic or by the form (RFC 6749 section 2.3.1); a public one by its name.

        The SDK's own authenticator cannot serve here: it wants ``client_id`` in the form even with Basic, where neither the
        RFC nor the SDK's client has it.

        Raises:
            TokenError: it could not be authenticated, or tried in two ways.
        """
        client_id, secret = single(form, "client_id") or "", single(form, "client_secret") or ""
        if "authorization" in request.headers:
            if "client_secret" in form:
                # RFC 6749 section 2.3: not more than one method in a request.
                raise TokenError("invalid_request", "the client authenticates in two ways")
            client_id, secret = _basic(request.headers["authorization"])
        client = self.find(client_id)
        if client is not None and client.secret is None and not secret:
            return client
        # Compared for unknown clients too, so that the time does not tell which ones exist.
        expected = (client.secret if client else None) or secrets.token_urlsafe(24)
        if not secrets.compare_digest(secret.encode(), expected.encode()) or client is None:
            raise TokenError("invalid_client", "unknown client or wrong secret")
        return client


def _metadata(body: bytes) -> OAuthClientMetadata:
    """A client's metadata (RFC 7591 section 2), as far as this server can serve them."""
    try:
        metadata = OAuthClientMetadata.model_validate_json(body)
    except ValidationError as error:
        names = sorted({".".join(str(part) for part in found["loc"]) or "the body" for found in error.errors()})
        raise RegistrationError("invalid_client_metadata", f"not valid: {', '.join(names)}") from None
    if not metadata.redirect_uris:
        raise RegistrationError("invalid_redirect_uri", "a client that logs people in needs a redirect URI")
    if (metadata.token_endpoint_auth_method or AUTH_METHODS[0]) not in AUTH_METHODS:
        raise RegistrationError("invalid_client_metadata", f"this server knows {', '.join(AUTH_METHODS)}")
    # RFC 7591 section 2: the default of grant_types is the code alone, where the model adds refresh_token.
    if "grant_types" not in metadata.model_fields_set:
        metadata.grant_types = ["authorization_code"]
    if "authorization_code" not in metadata.grant_types or "code" not in metadata.response_types:
        raise RegistrationError("invalid_client_metadata", "who registers itself uses authorization_code with code")
    return metadata


def _basic(header: str) -> tuple[str, str]:
    """Client and secret of an ``Authorization`` header. Both are form-encoded in it (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise TokenError("invalid_client", "the Authorization header is no HTTP Basic")
    return unquote_plus(client_id), unquote_plus(secret)


def single(parameters: ImmutableMultiDict[str, Any], name: str) -> str | None:
    """A parameter, which may not be there twice (RFC 6749 sections 3.1 and 3.2)."""
    values = parameters.getlist(name)
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise TokenError("invalid_request", f"`{name}` must be there once, as text")
    return str(values[0]) if values else None
