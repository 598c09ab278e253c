"""Reference tokens, which say nothing by themselves, and the endpoint that tells what they stand for (RFC 7662)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from mcp.server.auth.provider import TokenError
from starlette.responses import JSONResponse

from mcp_fastguard.dev.clients import single

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from mcp_fastguard.dev.clients import Clients

__all__ = ["ReferenceTokens"]

#: Reference tokens that are remembered, at most. The oldest go first.
MAX_REMEMBERED: Final = 4096

#: RFC 7662 section 2.2: an answer is about one moment.
_NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class ReferenceTokens:
    """Keeps what reference tokens stand for, and tells resource servers.

    Args:
        issuer: ``iss`` of every answer.
        resource: ``aud`` of every answer.
        clients: who may ask.
        clock: seconds since the epoch.
    """

    def __init__(self, issuer: str, resource: str, *, clients: Clients, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._resource = resource
        self._clients = clients
        self._clock = clock
        self._tokens: dict[str, dict[str, Any]] = {}
        #: How often the endpoint was asked, and answered a client that may ask.
        self.asked = 0

    def issue(self, subject: str, scope: str, lifetime: int, **claims: Any) -> str:
        """A token for this; ``claims`` are members of the answer to add or replace, None leaves one out."""
        now = int(self._clock())
        answer = {
            "iss": self._issuer,
            "sub": subject,
            "aud": self._resource,
            "client_id": subject,
            "scope": scope,
            "token_type": "Bearer",
            "iat": now,
            "exp": now + lifetime,
            "jti": secrets.token_urlsafe(12),
            **claims,
        }
        while len(self._tokens) >= MAX_REMEMBERED:
            del self._tokens[next(iter(self._tokens))]
        token = secrets.token_urlsafe(32)
        self._tokens[token] = {name: value for name, value in answer.items() if value is not None}
        return token

    def revoke(self, token: str) -> None:
        """Ends a token. Whether it was one is not told."""
        self._tokens.pop(token, None)

    async def answer(self, request: Request) -> Response:
        """``POST /introspect``: for resource servers alone, so that nobody else can try tokens (RFC 7662 section 2.1)."""
        form = await request.form()
        try:
            token = self._asked_about(request, form)
        except TokenError as error:
            is_unknown = error.error == "invalid_client"
            headers = {**_NOT_STORED, **({"WWW-Authenticate": 'Basic realm="introspection"'} if is_unknown else {})}
            refusal = {"error": error.error, "error_description": error.error_description}
            return JSONResponse(refusal, status_code=401 if is_unknown else 400, headers=headers)
        self.asked += 1
        return JSONResponse(self._found(token), headers=_NOT_STORED)

    def _asked_about(self, request: Request, form: FormData) -> str:
        client = self._clients.authenticate(request, form)
        if not client.introspects:
            raise TokenError("invalid_client", "this client may not ask about tokens")
        token = single(form, "token")
        if token is None:
            raise TokenError("invalid_request", "`token` is missing")
        return token

    def _found(self, token: str) -> dict[str, Any]:
        """What a token stands for. One that is unknown, revoked or expired is not active, and no more is said of it."""
        found = self._tokens.get(token)
        if found is None or self._clock() >= found.get("exp", float("inf")):
            return {"active": False}
        return {"active": True, **found}
