"""The caller, in the shape of the MCP SDK's own authentication."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from contextvars import Token

    from mcp_fastguard._fastguard import VerifiedToken

__all__ = ["access_token", "as_user", "hold_tokens_as"]

#: The class that servers hold tokens as.
_token_class: type[AccessToken] = AccessToken


def hold_tokens_as(token_class: type[AccessToken]) -> None:
    """Has tokens held as a framework's own class, which it would make of the SDK's several times a call otherwise."""
    global _token_class  # noqa: PLW0603 - one for the process: what the SDK takes it takes of a child class too
    _token_class = token_class
    _users.clear()


def bearer_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The token text of the one ``Authorization`` header."""
    for name, value in headers:
        if name == b"authorization":
            return value.split(b" ", 1)[-1].decode("ascii")
    return ""


def access_token(token: VerifiedToken, text: str) -> AccessToken:
    """The verified token as the SDK holds one; subject and issuer are set, so that its session ownership works."""
    return _token_class(
        token=text,
        client_id=token.client_id or token.subject or "",
        scopes=list(token.scopes),
        expires_at=int(token.expires_at),
        resource=token.audience[0],
        subject=token.subject,
        claims=token.claims,
    )


#: Made once per verified token, which is the same for as long as the verdict is cached.
_users: dict[VerifiedToken, tuple[AuthenticatedUser, AuthCredentials]] = {}
_MOST_USERS: Final = 1_024


def _user_of(token: VerifiedToken, headers: list[tuple[bytes, bytes]]) -> tuple[AuthenticatedUser, AuthCredentials]:
    found = access_token(token, bearer_of(headers))
    while len(_users) >= _MOST_USERS:
        # Threads may be at it together: the first may be gone already.
        _users.pop(next(iter(_users), token), None)
    _users[token] = known = AuthenticatedUser(found), AuthCredentials(found.scopes)
    return known


def as_user(scope: MutableMapping[str, Any], token: VerifiedToken) -> Token[AuthenticatedUser | None]:
    """Names the user in the scope and in the context, so that the SDK's session ownership and ``get_access_token`` work.

    Gives what takes the name back.
    """
    user, credentials = _users.get(token) or _user_of(token, scope["headers"])
    scope["user"], scope["auth"] = user, credentials
    return auth_context_var.set(user)
