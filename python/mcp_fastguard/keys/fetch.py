"""Fetches one document: bounded in time and size, no redirects, no proxies of the environment."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2

from mcp_fastguard._fastguard import MAX_KEY_SET_BYTES

__all__ = ["FetchError", "Source", "fetch_keys"]

#: The whole fetch, discovery included, ends after so many seconds (F1, F2: a total, not per read).
DEADLINE: Final = 5.0


class FetchError(Exception):
    """A key set could not be fetched. The text holds no secret."""


class Source(NamedTuple):
    """Where an issuer's keys are."""

    issuer: str
    jwks_uri: str | None
    allow_http_loopback: bool


async def fetch_keys(source: Source, deadline: float = DEADLINE) -> bytes:
    """The issuer's key set, as it came.

    Args:
        source: where it is; without ``jwks_uri`` it is discovered (RFC 8414, OpenID Connect Discovery 1.0).
        deadline: seconds for all of it.

    Raises:
        FetchError: it did not come.
    """
    try:
        async with asyncio.timeout(deadline):
            async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=deadline) as client:
                uri = source.jwks_uri or await _discover(client, source)
                return await _read(client, uri, source)
    except TimeoutError as error:
        message = f"no key set within {deadline:g} s"
        raise FetchError(message) from error
    except httpx2.HTTPError as error:
        message = f"{type(error).__name__}"
        raise FetchError(message) from error


async def _discover(client: httpx2.AsyncClient, source: Source) -> str:
    """``jwks_uri`` of the issuer's metadata, which must name the issuer exactly (RFC 8414 section 3.3)."""
    parts = urlsplit(source.issuer)
    path = parts.path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    places = [
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{source.issuer.rstrip('/')}/.well-known/openid-configuration",
    ]
    last = FetchError("no metadata")
    for place in places:
        try:
            document = _parse(await _read(client, place, source))
        except (FetchError, httpx2.HTTPError) as error:
            last = error if isinstance(error, FetchError) else FetchError(type(error).__name__)
            continue
        if document.get("issuer") != source.issuer:
            message = f"the metadata at {place} name another issuer"
            raise FetchError(message)
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            message = f"the metadata at {place} name no jwks_uri"
            raise FetchError(message)
        return uri
    raise last


async def _read(client: httpx2.AsyncClient, uri: str, source: Source) -> bytes:
    check_uri(uri, allow_http_loopback=source.allow_http_loopback)
    async with client.stream("GET", uri, headers={"accept": "application/json"}) as response:
        if response.status_code != httpx2.codes.OK:
            message = f"status {response.status_code} from {uri}"
            raise FetchError(message)
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_KEY_SET_BYTES:
                message = f"more than {MAX_KEY_SET_BYTES} bytes from {uri}"
                raise FetchError(message)
        return bytes(content)


def check_uri(uri: str, *, allow_http_loopback: bool) -> None:
    """Lets ``https`` pass, and ``http`` only by leave and on loopback."""
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        message = "a URL with a user in it is refused"
        raise FetchError(message)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and allow_http_loopback and _is_loopback(parts.hostname or ""):
        return
    message = f"{uri} is not https"
    raise FetchError(message)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = "the metadata are not JSON"
        raise FetchError(message) from error
    if not isinstance(document, dict):
        message = "the metadata are no JSON object"
        raise FetchError(message)
    return document
