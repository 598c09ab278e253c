"""The authorization endpoint: asks a person, and hands out codes (RFC 6749 section 4.1, with PKCE by RFC 7636)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mcp.server.auth.provider import AuthorizeError, TokenError
from starlette.responses import Response

from mcp_fastguard.dev.clients import single
from mcp_fastguard.dev.grants import Grant
from mcp_fastguard.dev.pages import consent_page, refusal_page
from mcp_fastguard.dev.redirects import is_registered, redirected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.datastructures import FormData, QueryParams
    from starlette.requests import Request

    from mcp_fastguard.dev.clients import Client, Clients
    from mcp_fastguard.dev.grants import Grants

__all__ = ["Authorization"]

#: A page waits for its answer for so many seconds.
PATIENCE: Final = 600

#: Pages that wait at the same time, at most. Everybody may ask for one, so the oldest go first.
MAX_WAITING: Final = 256

#: A challenge by S256: 32 bytes in base64url (RFC 7636 section 4.2).
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request that a person has been asked about."""

    client: Client
    redirect_uri: str
    state: str | None
    scopes: tuple[str, ...]
    challenge: str
    expires_at: float
    #: Stands in the page, which no other origin can read.
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    #: Stands in a cookie: the page is answered by the browser that it was shown in.
    browser: str = field(default_factory=lambda: secrets.token_urlsafe(32))


class Authorization:
    """Answers ``/authorize`` and the form of its page.

    Args:
        issuer: ``iss`` of every answer (RFC 9207).
        resource: the only resource indicator that is granted (RFC 8707).
        clients: who may ask.
        grants: where what was allowed is kept.
        scopes: gives what can be asked for.
        users: who a person may log in as.
        clock: seconds since the epoch.
    """

    def __init__(  # noqa: PLR0913 - the parts of the server
        self,
        issuer: str,
        resource: str,
        *,
        clients: Clients,
        grants: Grants,
        scopes: Callable[[], Sequence[str]],
        users: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._resource = resource
        self._clients = clients
        self._grants = grants
        self._scopes = scopes
        self._users = tuple(users)
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._form_path = f"{urlsplit(issuer).path}/consent"

    # --- the request ------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        """``GET /authorize``: shows a page, or refuses."""
        parameters = request.query_params
        try:
            client, redirect_uri = self._addressed(parameters)
        except TokenError as error:
            # Not redirected: where to is what is wrong (RFC 6749 section 4.1.2.1).
            return refusal_page("This login cannot be answered", str(error.error_description))
        state: str | None = None
        try:
            state = single(parameters, "state")
            waiting = self._wanted(parameters, client, redirect_uri, state)
        except AuthorizeError as error:
            return self._answer(redirect_uri, state, error=error.error, error_description=error.error_description)
        except TokenError as error:
            return self._answer(redirect_uri, state, error=error.error, error_description=error.error_description)
        name = self._remember(waiting)
        page = self._page(name, waiting)
        page.set_cookie(
            _cookie(name), waiting.browser, max_age=PATIENCE, path=self._form_path, httponly=True, samesite="strict"
        )
        return page

    def _addressed(self, parameters: QueryParams) -> tuple[Client, str]:
        """Who asks, and where the answer goes."""
        client = self._clients.find(single(parameters, "client_id") or "")
        if client is None:
            raise TokenError(
                "invalid_request",
                "This server does not know the client. It forgets all clients when it ends: remove this server in your "
                "client, or clear what it has stored for it, and connect again.",
            )
        redirect_uri = single(parameters, "redirect_uri") or ""
        if not is_registered(redirect_uri, client.redirect_uris):
            raise TokenError(
                "invalid_request",
                "The redirect URI of the request is not one that the client has registered. They are compared letter by "
                "letter; only the port of 127.0.0.1 and [::1] may differ.",
            )
        return client, redirect_uri

    def _wanted(self, parameters: QueryParams, client: Client, redirect_uri: str, state: str | None) -> _Waiting:
        if single(parameters, "response_type") != "code":
            raise AuthorizeError("unsupported_response_type", "`response_type` must be code")
        if single(parameters, "code_challenge_method") != "S256":
            # Left out it would mean `plain` (RFC 7636 section 4.3).
            raise AuthorizeError("invalid_request", "`code_challenge_method` must be S256")
        challenge = single(parameters, "code_challenge") or ""
        if not _CHALLENGE.fullmatch(challenge):
            raise AuthorizeError("invalid_request", "`code_challenge` must be 43 characters of base64url")
        if parameters.getlist("resource") != [self._resource]:
            raise AuthorizeError("invalid_target", f"`resource` must be {self._resource}, once")
        known = self._scopes()
        asked = tuple(dict.fromkeys((single(parameters, "scope") or " ".join(known)).split()))
        unknown = [scope for scope in asked if scope not in known]
        if unknown or not asked:
            raise AuthorizeError("invalid_scope", f"the scopes of this server are {' '.join(known)}")
        return _Waiting(client, redirect_uri, state, asked, challenge, self._clock() + PATIENCE)

    def _remember(self, waiting: _Waiting) -> str:
        now = self._clock()
        self._waiting = {name: found for name, found in self._waiting.items() if now < found.expires_at}
        while len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        name = secrets.token_urlsafe(16)
        self._waiting[name] = waiting
        return name

    def _page(self, name: str, waiting: _Waiting, notice: str = "") -> Response:
        return consent_page(
            action=self._form_path,
            hidden={"request": name, "csrf": waiting.csrf},
            client_name=waiting.client.name,
            redirect_uri=waiting.redirect_uri,
            resource=self._resource,
            scopes=waiting.scopes,
            users=self._users,
            notice=notice,
        )

    # --- the person's answer ----------------------------------------------------------------------

    async def decide(self, request: Request) -> Response:
        """``POST /consent``: the form of the page."""
        form = await request.form()
        name = str(form.get("request", ""))
        waiting = self._waiting.get(name)
        if waiting is None or self._clock() >= waiting.expires_at:
            return refusal_page("This page has been answered or has expired", "Start the login in your client again.")
        if not _is_ours(request, form, name, waiting):
            return refusal_page(
                "This answer did not come from the page", "Start the login in your client again.", status=403
            )
        answer = self._answered(form, name, waiting)
        answer.delete_cookie(_cookie(name), path=self._form_path, httponly=True, samesite="strict")
        return answer

    def _answered(self, form: FormData, name: str, waiting: _Waiting) -> Response:
        if form.get("decision") != "allow":
            del self._waiting[name]
            denied = {"error": "access_denied", "error_description": "the person refused"}
            return self._answer(waiting.redirect_uri, waiting.state, **denied)
        ticked = form.getlist("scope")
        scopes = tuple(scope for scope in waiting.scopes if scope in ticked)
        subject = str(form.get("subject", ""))
        if not scopes or subject not in self._users:
            return self._page(name, waiting, "Tick at least one scope, or deny.")
        del self._waiting[name]
        grant = Grant(waiting.client.client_id, subject, scopes)
        code = self._grants.code(grant, waiting.redirect_uri, waiting.challenge)
        return self._answer(waiting.redirect_uri, waiting.state, code=code)

    def _answer(self, redirect_uri: str, state: str | None, **answer: Any) -> Response:
        """Back to the client. ``iss`` tells it who answers (RFC 9207)."""
        found = {**answer, "state": state, "iss": self._issuer}
        parameters = {name: str(value) for name, value in found.items() if value is not None}
        # 303, so that no browser sends the form on (RFC 9700 section 4.12).
        # Not starlette's RedirectResponse, which rewrites characters of the redirect URI.
        location = redirected(redirect_uri, parameters)
        headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(status_code=303, headers=headers)


def _is_ours(request: Request, form: FormData, name: str, waiting: _Waiting) -> bool:
    """Whether the form is that of the page that this browser was shown."""
    origin = request.headers.get("origin")
    return (
        (origin is None or origin == f"{request.url.scheme}://{request.url.netloc}")
        and secrets.compare_digest(str(form.get("csrf", "")).encode(), waiting.csrf.encode())
        and secrets.compare_digest(request.cookies.get(_cookie(name), "").encode(), waiting.browser.encode())
    )


def _cookie(name: str) -> str:
    """One for each page, so that two of them can wait in one browser."""
    return f"consent-{name}"
