"""For clients of guarded servers: tokens that are bound to a key (RFC 9449), as an auth of httpx2.

The MCP SDK's client takes it: ``streamable_http_client(url, http_client=httpx2.AsyncClient(auth=DPoPAuth(...)))``. Needs
``joserfc`` (extra ``client``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

import httpx2
from joserfc import jws
from joserfc.jwk import ECKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

__all__ = ["ClientCredentials", "DPoPAuth"]

#: A token is renewed so many seconds before it expires.
_EARLY: Final = 30.0

#: Nonces are kept for so many origins; a client seldom has more than two.
_MAX_ORIGINS: Final = 64


class ClientCredentials:
    """How a token is got: the client credentials grant (RFC 6749 section 4.4), bound to the key of the auth that uses it.

    Args:
        token_endpoint: its URL.
        client_id: the OAuth client.
        client_secret: its secret.
        resource: the resource's URL (RFC 8707).
        scopes: what to ask for; empty for the client's default.
    """

    def __init__(
        self, token_endpoint: str, *, client_id: str, client_secret: str, resource: str, scopes: Sequence[str] = ()
    ) -> None:
        self.token_endpoint = token_endpoint
        self._credentials = (client_id, client_secret)
        self._form = {"grant_type": "client_credentials", "resource": resource}
        if scopes:
            self._form["scope"] = " ".join(scopes)

    def request(self, proof: str) -> httpx2.Request:
        """The token request."""
        pair = ":".join(quote_plus(part) for part in self._credentials)
        # RFC 6749 section 2.3.1: both are form-encoded in it.
        basic = base64.b64encode(pair.encode()).decode()
        headers = {"authorization": f"Basic {basic}", "dpop": proof, "accept": "application/json"}
        return httpx2.Request("POST", self.token_endpoint, data=self._form, headers=headers)


class DPoPAuth(httpx2.Auth):
    """Sends every request with a proof of its own, follows nonces, and gets bound tokens.

    Args:
        token: the access token, or how one is got.
        key: a private P-256 key as a JWK; default: a new one, which lives as long as this object. A token that was got with
            the key of another process needs that key.

    Raises:
        ValueError: the key is no private key of P-256.
    """

    def __init__(self, token: str | ClientCredentials, *, key: dict[str, Any] | None = None) -> None:
        self._key = ECKey.generate_key("P-256") if key is None else ECKey.import_key(key)
        public = self._key.as_dict(private=False)
        if not self._key.is_private or public.get("crv") != "P-256":
            message = "a DPoP key must be a private key of P-256"
            raise ValueError(message)
        self._public = {name: public[name] for name in ("kty", "crv", "x", "y")}
        self._source = token if isinstance(token, ClientCredentials) else None
        self._token = token if isinstance(token, str) else ""
        self._renewed_at = 0.0
        self._nonces: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<DPoPAuth {self.thumbprint}>"

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the key (RFC 7638): ``cnf.jkt`` of the tokens that are bound to it."""
        return str(self._key.thumbprint())

    def proof(self, method: str, url: str, *, token: str | None = None) -> str:
        """A proof for one request (RFC 9449 section 4.2).

        Args:
            method: of the request, in upper case.
            url: of the request; query and fragment are left out.
            token: what the proof goes with; None for a token request.
        """
        target = httpx2.URL(url).copy_with(query=None, fragment=None)
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": str(target),
            "iat": int(time.time()),
        }
        if token is not None:
            claims["ath"] = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        nonce = self._nonces.get(_origin(target))
        if nonce is not None:
            claims["nonce"] = nonce
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self._public}
        return jws.serialize_compact(header, json.dumps(claims).encode(), self._key)

    # --- the flows, which differ only in how a body is awaited ------------------------------------

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Of a blocking client."""
        while self._is_due():
            response = yield self._token_request()
            response.read()
            self._take_token(response)
        for is_last in (False, True):
            response = yield self._signed(request)
            if not self._is_asked_again(response) or is_last:
                return

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Of an asynchronous client."""
        while self._is_due():
            response = yield self._token_request()
            await response.aread()
            self._take_token(response)
        for is_last in (False, True):
            response = yield self._signed(request)
            if not self._is_asked_again(response) or is_last:
                return

    def _is_due(self) -> bool:
        return self._source is not None and time.monotonic() >= self._renewed_at

    def _token_request(self) -> httpx2.Request:
        if self._source is None:
            message = "no way to get a token was given"
            raise RuntimeError(message)
        return self._source.request(self.proof("POST", self._source.token_endpoint))

    def _take_token(self, response: httpx2.Response) -> None:
        """Takes the token in, or the nonce that the authorization server wants first (RFC 9449 section 8).

        Raises:
            httpx2.HTTPStatusError: it refused.
            ValueError: the token is not bound to this key.
        """
        had = self._nonces.get(_origin(response.request.url))
        self._keep_nonce(response)
        answer = _json(response)
        if response.is_success and answer.get("token_type", "").lower() == "dpop":
            self._token = str(answer["access_token"])
            self._renewed_at = time.monotonic() + max(0.0, float(answer.get("expires_in", 60)) - _EARLY)
            return
        if answer.get("error") == "use_dpop_nonce" and self._nonces.get(_origin(response.request.url)) != had:
            return
        response.raise_for_status()
        message = "the authorization server gave a token that is not bound to the key"
        raise ValueError(message)

    def _signed(self, request: httpx2.Request) -> httpx2.Request:
        request.headers["authorization"] = f"DPoP {self._token}"
        request.headers["dpop"] = self.proof(request.method, str(request.url), token=self._token)
        return request

    def _is_asked_again(self, response: httpx2.Response) -> bool:
        """Whether the server refused for the nonce alone (RFC 9449 section 9). Its next one is kept in any case."""
        self._keep_nonce(response)
        challenges = response.headers.get("www-authenticate", "")
        return response.status_code == httpx2.codes.UNAUTHORIZED and 'error="use_dpop_nonce"' in challenges

    def _keep_nonce(self, response: httpx2.Response) -> None:
        nonce = response.headers.get("dpop-nonce")
        if nonce is not None and (len(self._nonces) < _MAX_ORIGINS or _origin(response.request.url) in self._nonces):
            self._nonces[_origin(response.request.url)] = nonce


def _origin(url: httpx2.URL) -> str:
    """A nonce is of one server (RFC 9449 section 8.2)."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
