"""Fetches one JSON document: bounded in time and size, no redirects, no proxies of the environment."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2

from mcp_fastguard._fastguard import MAX_KEY_SET_BYTES
from mcp_fastguard.keys.addresses import AddressRefusedError, addresses_of, in_turn
from mcp_fastguard.keys.discovery import MetadataError, jwks_uri_of, metadata_places

if TYPE_CHECKING:
    import ssl

__all__ = ["DEADLINE", "FetchError", "KeySource", "fetch_keys"]

#: The whole fetch, discovery included, ends after so many seconds (F1, F2: a total, not per read).
DEADLINE: Final = 5.0

#: So much of a text that a server chose goes into a reason.
MAX_QUOTED: Final = 120


class FetchError(Exception):
    """A document could not be fetched. The text names the place and the reason, and holds no secret."""


class KeySource(NamedTuple):
    """Where an issuer's keys are.

    Args:
        issuer: as tokens spell it.
        jwks_uri: of its key set; None: found in the issuer's metadata.
        allow_http_loopback: lets a host on loopback pass, and `http` there. Elsewhere, who is on the way would choose the keys.
        allow_networks: in CIDR form, that the hosts may be in beside the Internet.
    """

    issuer: str
    jwks_uri: str | None
    allow_http_loopback: bool
    allow_networks: tuple[str, ...] = ()


async def fetch_keys(source: KeySource, *, deadline: float = DEADLINE) -> bytes:
    """The issuer's key set, as it came.

    Args:
        source: where it is.
        deadline: seconds for all of it.

    Raises:
        FetchError: it did not come.
    """
    try:
        async with asyncio.timeout(deadline), _client(source, deadline) as client:
            uri = source.jwks_uri or await _discover(client, source)
            return await _read(client, uri, source)
    except TimeoutError as error:
        raise FetchError(f"no key set within {deadline:g} s") from error


def _client(source: KeySource, deadline: float) -> httpx2.AsyncClient:
    """A client for one fetch, so that no cookie outlives it."""
    return httpx2.AsyncClient(
        transport=_CheckedTransport(source), trust_env=False, follow_redirects=False, timeout=deadline
    )


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    """Resolves the host itself, checks every address, and connects to one of those: nothing is resolved a second time (F4).

    The name stays in the `Host` header, which is made before this, and in TLS, which checks the certificate against it.
    """

    def __init__(self, source: KeySource) -> None:
        # No connection is used twice: servers may close one unannounced while the next request is on its way.
        limits = httpx2.Limits(max_keepalive_connections=0)
        super().__init__(verify=_tls(), trust_env=False, limits=limits)
        self._source = source

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        host = url.raw_host.decode("ascii")
        is_local = self._source.allow_http_loopback and is_loopback(url.host)
        try:
            addresses = await addresses_of(
                host, url.port or 443, networks=self._source.allow_networks, is_loopback=is_local
            )
        except AddressRefusedError as error:
            raise _failed(url, str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(f"the name has no address: {error}") from error
        chosen = in_turn(addresses)
        timeout = request.extensions["timeout"]
        # One address that swallows packets must not use up the time of the others, nor that of the answer.
        timeout = {**timeout, "connect": timeout["connect"] / (len(chosen) + 1)}
        request.extensions = {**request.extensions, "timeout": timeout, "sni_hostname": host}
        failure: httpx2.HTTPError | None = None
        for address in chosen:
            request.url = url.copy_with(host=address)
            try:
                return await super().handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
            finally:
                request.url = url
        raise failure or httpx2.ConnectError("the name has no address")


async def _discover(client: httpx2.AsyncClient, source: KeySource) -> str:
    """Asks the places in their order; one that has no usable metadata leaves the answer to the next."""
    reasons = []
    try:
        places = metadata_places(source.issuer)
    except MetadataError as error:
        raise FetchError(str(error)) from error
    for place in places:
        try:
            return jwks_uri_of(await _read(client, place, source), source.issuer)
        except MetadataError as error:
            reasons.append(f"{place}: {error}")
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError("no metadata: " + "; ".join(reasons))


async def _read(client: httpx2.AsyncClient, uri: str, source: KeySource) -> bytes:
    url = checked_url(uri, allow_http_loopback=source.allow_http_loopback)
    # Compressed bodies are neither asked for nor read: a small one can unfold to any size before its length is known.
    headers = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}
    try:
        async with client.stream("GET", url, headers=headers) as response:
            _check_head(response, url)
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_KEY_SET_BYTES:
                    raise _failed(url, f"more than {MAX_KEY_SET_BYTES} bytes")
            return bytes(content)
    except httpx2.HTTPError as error:
        raise _failed(url, f"{type(error).__name__} {_quoted(str(error))}") from error


def _check_head(response: httpx2.Response, url: httpx2.URL) -> None:
    # Redirects end here too: what the configuration did not name is not asked.
    if response.status_code != httpx2.codes.OK:
        raise _failed(url, f"status {response.status_code}")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise _failed(url, f"content encoding {_quoted(encoding)}")
    media_type = response.headers.get("content-type", "")
    if not _is_json(media_type):
        raise _failed(url, f"not JSON but {_quoted(media_type)}")
    length = response.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_KEY_SET_BYTES:
        raise _failed(url, f"more than {MAX_KEY_SET_BYTES} bytes")


def _is_json(media_type: str) -> bool:
    """RFC 8259 section 11 and the `+json` suffix of RFC 6839, which RFC 7517's `application/jwk-set+json` bears."""
    name = media_type.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


def checked_url(uri: str, *, allow_http_loopback: bool) -> httpx2.URL:
    """The URL, parsed once by the client that will send it: `https`, or by leave `http` on loopback.

    Raises:
        FetchError: it may not be asked.
    """
    try:
        url = httpx2.URL(uri)
        has_user = "@" in urlsplit(uri).netloc
    except (httpx2.InvalidURL, ValueError) as error:
        # Not shown either: a secret may stand in what cannot be read.
        raise FetchError("a URL that cannot be read is refused") from error
    # What is before the `@` may be a secret, so the URL is not shown.
    if has_user or url.userinfo:
        raise FetchError("a URL with a user in it is refused")
    if url.scheme == "https" and url.host:
        return url
    if url.scheme == "http" and allow_http_loopback and is_loopback(url.host):
        return url
    raise _failed(url, "not https")


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or an address on loopback, also one of IPv4 mapped into IPv6."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the system's certificates takes 25 ms, so it is done once; a change of them is seen by a new process.
    return httpx2.create_ssl_context(trust_env=False)


def _failed(url: httpx2.URL, reason: str) -> FetchError:
    # Without the query: some issuers take an API key there.
    return FetchError(f"{_quoted(str(url.copy_with(query=None, fragment=None)))}: {reason}")


def _quoted(text: str) -> str:
    """A text that a server chose, fit for a log: one line of ASCII, not long."""
    return f"`{ascii(text)[1:-1][:MAX_QUOTED]}`"
