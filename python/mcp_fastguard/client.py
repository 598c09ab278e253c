"""For clients of guarded servers: tokens that are bound to a key (RFC 9449) and signed requests (RFC 9421), as auths of httpx2.

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
from joserfc.jwk import ECKey, import_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

__all__ = ["ClientCredentials", "DPoPAuth", "RequestSigner"]

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
        source = self._due()
        if source is not None:
            response = yield self._token_request(source)
            response.read()
            if not self._takes_token(response, is_last=False):
                response = yield self._token_request(source)
                response.read()
                self._takes_token(response, is_last=True)
        response = yield self._signed(request)
        if self._is_asked_again(response):
            self._keep_nonce((yield self._signed(request)))

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Of an asynchronous client."""
        source = self._due()
        if source is not None:
            response = yield self._token_request(source)
            await response.aread()
            if not self._takes_token(response, is_last=False):
                response = yield self._token_request(source)
                await response.aread()
                self._takes_token(response, is_last=True)
        response = yield self._signed(request)
        if self._is_asked_again(response):
            self._keep_nonce((yield self._signed(request)))

    def _due(self) -> ClientCredentials | None:
        """Where a token is got, if one is needed now."""
        return self._source if time.monotonic() >= self._renewed_at else None

    def _token_request(self, source: ClientCredentials) -> httpx2.Request:
        return source.request(self.proof("POST", source.token_endpoint))

    def _takes_token(self, response: httpx2.Response, *, is_last: bool) -> bool:
        """Takes the token in, or the nonce that the authorization server wants first (RFC 9449 section 8): then it must be asked
        again, once.

        Raises:
            httpx2.HTTPStatusError: it refused.
            ValueError: the token is not bound to this key.
        """
        self._keep_nonce(response)
        answer = _json(response)
        if response.is_success and answer.get("token_type", "").lower() == "dpop":
            self._token = str(answer["access_token"])
            self._renewed_at = time.monotonic() + max(0.0, float(answer.get("expires_in", 60)) - _EARLY)
            return True
        if answer.get("error") == "use_dpop_nonce" and not is_last:
            return False
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


#: The algorithm of each kind of key, as RFC 9421 section 3.3 has it, by its name in JOSE.
_ALGORITHMS: Final = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "Ed25519", "RSA": "PS512"}


class RequestSigner(httpx2.Auth):
    """Signs every request (RFC 9421), after another auth has put the token into it.

    ``httpx2.AsyncClient(auth=RequestSigner(key, inner=DPoPAuth(...)))``, or without ``inner`` and with the token among the
    client's headers. A request is signed anew each time that it is sent: its nonce passes once.

    Args:
        key: a private key as a JWK: P-256, P-384, Ed25519 or RSA, which signs by RSA-PSS.
        key_id: the name by which the server knows the key; default: its thumbprint (RFC 7638).
        components: what is covered. ``content-digest`` is added to requests with a body, and left out of others.
        tag: tells this signature apart from those of proxies.
        inner: an auth that brings the token. Requests of its own, for a token, are not signed.

    Raises:
        ValueError: the key cannot sign, or a text cannot stand in a header.
    """

    def __init__(
        self,
        key: dict[str, Any],
        *,
        key_id: str | None = None,
        components: Sequence[str] = ("@method", "@target-uri", "content-digest", "authorization"),
        tag: str | None = None,
        inner: httpx2.Auth | None = None,
    ) -> None:
        self._key = import_key(key)
        public = self._key.as_dict(private=False)
        algorithm = _ALGORITHMS.get(str(public.get("crv", public["kty"])))
        if algorithm is None or not self._key.is_private:
            message = "a request is signed by a private key of P-256, P-384, Ed25519 or RSA"
            raise ValueError(message)
        self._algorithm = jws.JWSRegistry.algorithms[algorithm]
        self.key_id = str(self._key.thumbprint()) if key_id is None else key_id
        self._parameters = f";keyid={_quoted(self.key_id)}" + (f";tag={_quoted(tag)}" if tag is not None else "")
        self._components = tuple(components)
        self._inner = inner

    def __repr__(self) -> str:
        return f"<RequestSigner {self.key_id}>"

    def sign(self, request: httpx2.Request) -> None:
        """Signs one request, whose body has been read: ``Content-Digest``, ``Signature-Input`` and ``Signature``.

        Raises:
            ValueError: a covered header is not there.
        """
        components = self._components
        if request.content:
            digest = base64.b64encode(hashlib.sha256(request.content).digest()).decode()
            request.headers["content-digest"] = f"sha-256=:{digest}:"
        else:
            components = tuple(name for name in components if name != "content-digest")
        covered = " ".join(f'"{name}"' for name in components)
        nonce = secrets.token_urlsafe(16)
        parameters = f'({covered});created={int(time.time())};nonce="{nonce}"{self._parameters}'
        lines = [f'"{name}": {_component(request, name)}' for name in components]
        base = "\n".join([*lines, f'"@signature-params": {parameters}'])
        signature = base64.b64encode(self._algorithm.sign(base.encode(), self._key)).decode()
        request.headers["signature-input"] = f"sig={parameters}"
        request.headers["signature"] = f"sig=:{signature}:"

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Of a blocking client."""
        request.read()
        flow = (self._inner or httpx2.Auth()).sync_auth_flow(request)
        outgoing = next(flow)
        while True:
            if outgoing is request:
                self.sign(request)
            response = yield outgoing
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Of an asynchronous client."""
        await request.aread()
        flow = (self._inner or httpx2.Auth()).async_auth_flow(request)
        outgoing = await anext(flow)
        while True:
            if outgoing is request:
                self.sign(request)
            response = yield outgoing
            try:
                outgoing = await flow.asend(response)
            except StopAsyncIteration:
                return


def _component(request: httpx2.Request, name: str) -> str:
    """The value of a covered component (RFC 9421 section 2)."""
    url = request.url
    derived = {
        "@method": request.method,
        "@target-uri": str(url.copy_with(fragment=None)),
        "@authority": url.netloc.decode("ascii"),
        "@scheme": url.scheme,
        "@request-target": url.raw_path.decode("ascii"),
        "@path": url.raw_path.decode("ascii").partition("?")[0],
        "@query": f"?{url.query.decode('ascii')}",
    }
    if name.startswith("@"):
        return derived[name]
    values = [value.strip() for found, value in request.headers.multi_items() if found == name]
    if not values:
        message = f"the request has no `{name}` to sign"
        raise ValueError(message)
    return ", ".join(values)


def _quoted(text: str) -> str:
    """A string of structured fields (RFC 9651 section 4.1.6)."""
    if not text.isascii() or not text.isprintable():
        message = "the name of a key and a tag are visible ASCII"
        raise ValueError(message)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _origin(url: httpx2.URL) -> str:
    """A nonce is of one server (RFC 9449 section 8.2)."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
