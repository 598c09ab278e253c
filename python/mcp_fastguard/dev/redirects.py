"""Redirect URIs: which a client may register, which of them a request names, and where an answer goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from mcp_fastguard.dev.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["form_source", "is_registered", "redirected", "require_redirect_uri"]

#: Schemes that a browser runs, shows or mails itself: no application of somebody's can be meant.
_OWN_SCHEMES: Final = frozenset(
    {"about", "blob", "chrome", "data", "file", "filesystem", "ftp", "jar", "javascript"}
    | {"mailto", "sms", "tel", "vbscript", "view-source", "ws", "wss"}
)

#: RFC 3986 section 2: what a URI is made of. Anything else could be read in two ways, or end a header.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")

#: Hosts and ports. RFC 3986 section 3.2.2 has names of other characters too, which no host has and which would end a
#: directive of Content Security Policy.
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

#: A loopback address as a literal, and its port apart (RFC 8252 section 7.3). `localhost` is none: it may be resolved elsewhere.
_LOOPBACK: Final = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?((?:[/?].*)?)", re.DOTALL)


def require_redirect_uri(uri: str) -> None:
    """Refuses what no client may register.

    Allowed are ``https``, ``http`` on loopback, and private-use schemes of applications (RFC 8252 sections 7.1 to 7.3).

    Raises:
        ValueError: it is none of these, has a fragment (RFC 6749 section 3.1.2) or holds a user's name.
    """
    parsed = _parsed(uri)
    if parsed is None:
        message = "a redirect URI is absolute, has no fragment and no user, and is made of a URI's characters"
        raise ValueError(message)
    scheme, host = parsed
    if scheme in _OWN_SCHEMES:
        message = f"a redirect URI cannot have the scheme `{scheme}`"
        raise ValueError(message)
    if scheme in {"http", "https"} and not _AUTHORITY.fullmatch(urlsplit(uri).netloc):
        message = "a redirect URI over http(s) names a host, by letters, digits, dots and hyphens or by its address"
        raise ValueError(message)
    if scheme == "http" and not is_loopback(host):
        message = "a redirect URI over http is on loopback"
        raise ValueError(message)


def _parsed(uri: str) -> tuple[str, str | None] | None:
    """Scheme and host."""
    if not _URI.fullmatch(uri):
        return None
    try:
        parsed = urlsplit(uri)
        # Reading the port raises where it is none.
        has_user = "@" in parsed.netloc or (parsed.port or 0) < 0
    except ValueError:
        return None
    return None if has_user else (parsed.scheme, parsed.hostname)


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Whether a client has registered this redirect URI, letter by letter (RFC 9700 section 2.1).

    Only the port of a loopback address may differ: an application learns its port when it starts (RFC 8252 section 7.3).
    """
    wanted = _without_port(uri)
    return any(uri == one or (wanted is not None and wanted == _without_port(one)) for one in registered)


def _without_port(uri: str) -> tuple[str, str] | None:
    found = _LOOPBACK.fullmatch(uri)
    # What has a port that is none would be refused at its registration, but a request comes unchecked.
    return (found[1], found[2]) if found and _parsed(uri) else None


def redirected(uri: str, answer: Mapping[str, str]) -> str:
    """The redirect URI with an answer in its query. What stood there stays as it was (RFC 6749 section 3.1.2)."""
    separator = "&" if "?" in uri else "?"
    return f"{uri}{separator}{urlencode(answer)}"


def form_source(uri: str) -> str:
    """The source expression of Content Security Policy for where a form may lead to."""
    parsed = urlsplit(uri)
    # CSP has no expression for an IPv6 address, and none for a host of a private-use scheme.
    if parsed.scheme not in {"http", "https"} or "[" in parsed.netloc:
        return f"{parsed.scheme}:"
    return f"{parsed.scheme}://{parsed.netloc}"
