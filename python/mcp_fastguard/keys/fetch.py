"""Fetches one JSON document: bounded in time and size, no redirects, no proxies of the environment."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx2

from mcp_fastguard._fastguard import MAX_KEY_SET_BYTES
from mcp_fastguard.bearer import BearerFileError, bearer_in
from mcp_fastguard.keys.client import checked_url, client_for, failed, quoted
from mcp_fastguard.keys.discovery import MetadataError, metadata_places, uri_of
from mcp_fastguard.keys.freshness import fresh_for, retry_after
from mcp_fastguard.keys.source import Fetched, FetchError, KeySource, Validator

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEADLINE", "discover", "fetch_keys"]

#: The whole fetch, discovery included, ends after so many seconds (F1, F2: a total, not per read).
DEADLINE: Final = 5.0

#: A validator that is longer is not sent back: some servers refuse long headers.
MAX_ETAG: Final = 256

#: RFC 9110 section 8.8.3. What does not look so could break the header that it is sent back in.
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


class _Ask(NamedTuple):
    client: httpx2.AsyncClient
    source: KeySource
    bearer: str | None


async def fetch_keys(source: KeySource, known: Validator | None = None, *, deadline: float = DEADLINE) -> Fetched:
    """The issuer's key set, as it came.

    Args:
        source: where it is.
        known: names the set at hand; a server that still has the same sends no other.
        deadline: seconds for all of it.

    Raises:
        FetchError: it did not come.
    """
    try:
        async with asyncio.timeout(deadline), client_for(source, deadline) as client:
            ask = _Ask(client, source, _bearer(source.bearer_file))
            uri = source.jwks_uri or await _discover(ask)
            return await _read(ask, uri, known)
    except TimeoutError as error:
        raise FetchError(f"no key set within {deadline:g} s") from error


async def discover(source: KeySource, member: str, *, deadline: float = DEADLINE) -> str:
    """A URI that the issuer's metadata name, such as its ``introspection_endpoint``.

    Raises:
        FetchError: there are no metadata of this issuer's, or they do not name it.
    """
    async with client_for(source, deadline) as client:
        return await _discover(_Ask(client, source, _bearer(source.bearer_file)), member)


async def _discover(ask: _Ask, member: str = "jwks_uri") -> str:
    """Asks the places in their order; one that has no usable metadata leaves the answer to the next."""
    reasons = []
    waits = []
    issuer = ask.source.issuer
    try:
        places = metadata_places(issuer)
    except MetadataError as error:
        raise FetchError(str(error)) from error
    for place in places:
        try:
            return uri_of((await _read(ask, place)).content or b"", issuer, member)
        except MetadataError as error:
            reasons.append(f"{place}: {error}")
        except FetchError as error:
            reasons.append(str(error))
            waits.append(error.retry_after or 0.0)
    raise FetchError("no metadata: " + "; ".join(reasons), max(waits, default=None))


async def _read(ask: _Ask, uri: str, known: Validator | None = None) -> Fetched:
    url = checked_url(uri, allow_http_loopback=ask.source.allow_http_loopback)
    # A server names its own documents only.
    validator = known if known is not None and known.url == str(url) else None
    try:
        async with ask.client.stream("GET", url, headers=_headers(ask, url, validator)) as response:
            fresh = fresh_for(response.headers)
            if validator is not None and response.status_code == httpx2.codes.NOT_MODIFIED:
                return Fetched(None, _validator(response, url) or validator, fresh)
            _check_head(response, url)
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_KEY_SET_BYTES:
                    raise failed(url, f"more than {MAX_KEY_SET_BYTES} bytes")
            return Fetched(bytes(content), _validator(response, url), fresh)
    except (httpx2.HTTPError, OSError) as error:
        # In TLS 1.3 a server refuses a client's certificate after the handshake, which the client library does not translate.
        raise failed(url, f"{type(error).__name__} {quoted(str(error))}") from error


def _headers(ask: _Ask, url: httpx2.URL, validator: Validator | None) -> dict[str, str]:
    # Compressed bodies are neither asked for nor read: a small one can unfold to any size before its length is known.
    headers = {"accept": "application/json, application/jwk-set+json", "accept-encoding": "identity"}
    if validator is not None:
        headers["if-none-match"] = validator.etag
    if ask.bearer is not None and _origin(url) == _origin(httpx2.URL(ask.source.jwks_uri or ask.source.issuer)):
        # Metadata may name another host, which the configuration did not, and which must not learn the token.
        headers["authorization"] = f"Bearer {ask.bearer}"
    return headers


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _bearer(file: Path | None) -> str | None:
    try:
        return bearer_in(file)
    except BearerFileError as error:
        raise FetchError(str(error)) from error


def _validator(response: httpx2.Response, url: httpx2.URL) -> Validator | None:
    etag = response.headers.get("etag", "")
    return Validator(str(url), etag) if len(etag) <= MAX_ETAG and _ETAG.fullmatch(etag) else None


def _check_head(response: httpx2.Response, url: httpx2.URL) -> None:
    # Redirects end here too: what the configuration did not name is not asked.
    if response.status_code != httpx2.codes.OK:
        wait = retry_after(response.headers, dt.datetime.now(dt.UTC))
        raise failed(url, f"status {response.status_code}", wait)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise failed(url, f"content encoding {quoted(encoding)}")
    media_type = response.headers.get("content-type", "")
    if not _is_json(media_type):
        raise failed(url, f"not JSON but {quoted(media_type)}")
    length = response.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_KEY_SET_BYTES:
        raise failed(url, f"more than {MAX_KEY_SET_BYTES} bytes")


def _is_json(media_type: str) -> bool:
    """RFC 8259 section 11 and the `+json` suffix of RFC 6839, which RFC 7517's `application/jwk-set+json` bears."""
    name = media_type.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))
