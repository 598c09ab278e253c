"""The caller, in the shape of the MCP SDK's own authentication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall

__all__ = ["access_token", "authenticated_user"]


def bearer_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The token text of the one ``Authorization`` header."""
    for name, value in headers:
        if name == b"authorization":
            return value.split(b" ", 1)[-1].decode("ascii")
    return ""


def access_token(proof: AllowedCall, text: str) -> AccessToken:
    """The verified token as the SDK holds one; subject and issuer are set, so that its session ownership works."""
    token = proof.token
    return AccessToken(
        token=text,
        client_id=proof.client_id or proof.subject or "",
        scopes=list(proof.scopes),
        expires_at=int(token.expires_at),
        resource=token.audience[0],
        subject=proof.subject,
        claims=token.claims,
    )


def authenticated_user(
    proof: AllowedCall, headers: list[tuple[bytes, bytes]]
) -> tuple[AuthenticatedUser, AuthCredentials]:
    """``scope["user"]`` and ``scope["auth"]``."""
    token = access_token(proof, bearer_of(headers))
    return AuthenticatedUser(token), AuthCredentials(token.scopes)
