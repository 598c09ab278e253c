"""What people have allowed: codes, refresh tokens, and the end of both."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from mcp.server.auth.provider import TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CODE_LIFETIME", "REFRESH_LIFETIME", "Grant", "Grants"]

V = TypeVar("V")

#: Lifetime of a code, in seconds. RFC 6749 section 4.1.2 allows ten minutes; a client is redirected within one.
CODE_LIFETIME: Final = 60

#: Lifetime of a refresh token, in seconds: a day of development.
REFRESH_LIFETIME: Final = 24 * 3600

#: Codes and refresh tokens that are remembered, used ones among them, at most. The oldest go first.
MAX_REMEMBERED: Final = 4096

#: RFC 7636 section 4.1.
_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


@dataclass(eq=False)
class Grant:
    """What a person has allowed a client. All tokens of it carry its ``id`` as ``sid``, and end with it."""

    client_id: str
    subject: str
    scopes: tuple[str, ...]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    is_revoked: bool = False


@dataclass(eq=False)
class _Code:
    grant: Grant
    redirect_uri: str
    challenge: str
    expires_at: float
    is_used: bool = False


@dataclass(eq=False)
class _Refresh:
    grant: Grant
    expires_at: float
    #: The thumbprint of the key that it is bound to, or None.
    key: str | None = None
    is_used: bool = False


class Grants:
    """Keeps codes and refresh tokens, each good for one use.

    Args:
        clock: seconds since the epoch.
        on_revoked: called with a grant's ``id`` when its tokens must not be taken any more.
    """

    def __init__(self, clock: Callable[[], float], on_revoked: Callable[[str], None]) -> None:
        self._clock = clock
        self._on_revoked = on_revoked
        self._codes: dict[str, _Code] = {}
        self._refreshes: dict[str, _Refresh] = {}

    def code(self, grant: Grant, redirect_uri: str, challenge: str) -> str:
        """A code for what was allowed, bound to the redirect URI and the challenge of its request."""
        expires_at = self._clock() + CODE_LIFETIME
        return _remembered(self._codes, _Code(grant, redirect_uri, challenge, expires_at))

    def redeem(self, code: str, client_id: str, redirect_uri: str | None, verifier: str) -> Grant:
        """What a code stands for. It is used up by this, whatever comes of it.

        Args:
            code: the code.
            client_id: the client that presents it.
            redirect_uri: as in the request for the code, or None: PKCE binds it already (OAuth 2.1 section 10.2).
            verifier: of PKCE.

        Raises:
            TokenError: ``invalid_grant``. Where the code was used before, all that it gave is revoked (RFC 6749 section 4.1.2).
        """
        found = self._codes.get(code)
        if found is None or found.grant.client_id != client_id:
            raise TokenError("invalid_grant", "no code of this client's")
        if found.is_used:
            self.revoke(found.grant)
            raise TokenError("invalid_grant", "the code was used before: what it gave is revoked")
        found.is_used = True
        if self._clock() >= found.expires_at:
            raise TokenError("invalid_grant", f"the code has expired: it lives {CODE_LIFETIME} seconds")
        if redirect_uri is not None and redirect_uri != found.redirect_uri:
            raise TokenError("invalid_grant", "`redirect_uri` is not the one that the code was asked for with")
        if not _proves(verifier, found.challenge):
            raise TokenError("invalid_grant", "`code_verifier` does not fit the challenge")
        return found.grant

    def refresh_token(self, grant: Grant, key: str | None = None) -> str:
        """A refresh token for what was allowed; ``key`` is the thumbprint of the key that it is bound to, if any."""
        return _remembered(self._refreshes, _Refresh(grant, self._clock() + REFRESH_LIFETIME, key))

    def refresh(self, token: str, client_id: str, key: str | None = None) -> Grant:
        """What a refresh token stands for. It is used up by this; the client gets another.

        Args:
            token: the refresh token.
            client_id: the client that presents it.
            key: the thumbprint of the key whose proof came with it, if one did.

        Raises:
            TokenError: ``invalid_grant``. Where the token was used before, somebody has a copy: all is revoked (RFC 9700
                section 4.14.2).
        """
        found = self._refreshes.get(token)
        if found is None or found.grant.client_id != client_id:
            raise TokenError("invalid_grant", "no refresh token of this client's")
        # RFC 9449 section 5. Nothing is revoked by a thief without the key.
        if found.key not in {None, key}:
            raise TokenError("invalid_grant", "the refresh token is bound to a key, and needs a proof of it")
        if found.is_used:
            self.revoke(found.grant)
            raise TokenError("invalid_grant", "the refresh token was used before: all of its login is revoked")
        if found.grant.is_revoked or self._clock() >= found.expires_at:
            raise TokenError("invalid_grant", "the refresh token is revoked or has expired")
        return found.grant

    def use_up(self, token: str) -> None:
        """Marks a refresh token as used: the next time it is a copy."""
        self._refreshes[token].is_used = True

    def revoke(self, grant: Grant) -> None:
        """Ends a grant, its refresh tokens, and its access tokens wherever somebody listens."""
        grant.is_revoked = True
        self._on_revoked(grant.id)


def _remembered(table: dict[str, V], value: V) -> str:
    while len(table) >= MAX_REMEMBERED:
        del table[next(iter(table))]
    # 256 bits, where RFC 6749 section 10.10 wants 128.
    name = secrets.token_urlsafe(32)
    table[name] = value
    return name


def _proves(verifier: str, challenge: str) -> bool:
    """PKCE with S256 (RFC 7636 section 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return secrets.compare_digest(digest, challenge.encode())
