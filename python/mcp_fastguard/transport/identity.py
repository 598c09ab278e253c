"""The caller, in the shape of the MCP SDK's own authentication."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from mcp_fastguard._fastguard import AllowedCall

__all__ = ["access_token", "as_user"]


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


@contextmanager
def as_user(scope: MutableMapping[str, Any], proof: AllowedCall) -> Iterator[None]:
    """Names the user in the scope and in the context, so that the SDK's session ownership and ``get_access_token`` work."""
    token = access_token(proof, bearer_of(scope["headers"]))
    user = AuthenticatedUser(token)
    scope["user"], scope["auth"] = user, AuthCredentials(token.scopes)
    reset = auth_context_var.set(user)
    try:
        yield
    finally:
        auth_context_var.reset(reset)
