"""Pages of browsers: which origins may call, and what they may read of an answer (Fetch standard, CORS).

A CORS middleware of the guarded app never sees a refusal, so a page behind it could not read why it was refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import RequestDenied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    Headers = list[tuple[bytes, bytes]]
    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Origins"]

#: As a browser serialises one (HTML standard, ASCII serialisation of an origin): no path, no default port, lower case.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

#: Names of headers that a preflight asks for, as RFC 9110 section 5.6.2 spells them.
_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")

#: Seconds for which a preflight's answer holds: the most that every browser keeps one (Safari's bound is the lowest).
_PREFLIGHT_AGE: Final = b"600"

#: What a client needs of an answer, beyond the body (RFC 9728 section 5.1, RFC 9449 section 8.2, RFC 9110 section 10.2.3, MCP
#: streamable HTTP).
_EXPOSED: Final = b"WWW-Authenticate, DPoP-Nonce, Retry-After, Mcp-Session-Id, Mcp-Protocol-Version"


class Origins:
    """The origins whose pages may call.

    Cookies are never allowed (no ``Access-Control-Allow-Credentials``): the token is in a header that the page sets itself.

    Args:
        resource_url: its own origin is always allowed.
        allowed: other origins, or ``["*"]`` alone for all.

    Raises:
        ValueError: an entry is no origin as browsers write them.
    """

    def __init__(self, resource_url: str, allowed: Sequence[str]) -> None:
        if isinstance(allowed, str):
            message = "cors_origins must be a list of origins, not one text"
            raise ValueError(message)  # noqa: TRY004 - all mistakes of this option are of one kind
        self._is_any = "*" in allowed
        if self._is_any and len(allowed) > 1:
            message = 'cors_origins: "*" allows all origins, so it stands alone'
            raise ValueError(message)
        for origin in () if self._is_any else allowed:
            _check(origin)
        scheme, _, rest = resource_url.partition("://")
        own = f"{scheme}://{rest.partition('/')[0]}".lower().removesuffix(_DEFAULT_PORTS.get(scheme, " "))
        self._allowed = frozenset(origin.encode() for origin in (own, *allowed))

    def headers(self, request: Headers) -> Headers:
        """What an answer says to the page that asked. Nothing where no page did.

        Raises:
            RequestDenied: 403, the origin is not allowed (MCP: servers must refuse it, against DNS rebinding).
        """
        found = [value for name, value in request if name == b"origin"]
        if not found:
            return [] if self._is_any else [(b"vary", b"Origin")]
        if self._is_any:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        if len(found) > 1 or found[0] not in self._allowed:
            raise RequestDenied("origin_refused", "the request's origin is not in `cors_origins`", 403)
        return [
            (b"access-control-allow-origin", found[0]),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def preflight(self, request: Headers) -> Headers:
        """The answer to a preflight. The headers that it asks for are granted: those of MCP's tools cannot be listed in advance.

        Raises:
            RequestDenied: 403, the origin is not allowed.
        """
        asked = b", ".join(value for name, value in request if name == b"access-control-request-headers")
        found = [
            (name, value)
            for name, value in self.headers(request)
            if name not in {b"access-control-expose-headers", b"vary"}
        ]
        found.append((b"access-control-allow-methods", b"GET, POST, DELETE"))
        if _NAMES.fullmatch(asked):
            found.append((b"access-control-allow-headers", asked))
        found.append((b"access-control-max-age", _PREFLIGHT_AGE))
        found.append((b"vary", b"Origin, Access-Control-Request-Headers"))
        return found

    @staticmethod
    def adding(headers: Headers, send: Send) -> Send:
        """Adds the headers to the app's answer, unless a CORS middleware of the app has spoken already."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                if not any(name.lower() == b"access-control-allow-origin" for name, _ in own):
                    message = {**message, "headers": [*own, *headers]}
            await send(message)

        return sending


def _check(origin: str) -> None:
    scheme = origin.partition("://")[0]
    if not _ORIGIN.fullmatch(origin) or origin.endswith(_DEFAULT_PORTS.get(scheme, "/")):
        message = f"cors_origins: {origin!r} is no origin as browsers write it, such as 'https://app.example.com'"
        raise ValueError(message)
