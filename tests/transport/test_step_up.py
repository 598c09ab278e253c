"""What a client sees whose login is too weak or too old for a tool (RFC 9470)."""

from __future__ import annotations

import time

import httpx2
import pytest

from mcp_fastguard import ToolRequest
from transport_support import BASE, headers, message, run


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def guard(make_guard):
    rule = {"scopes": ["warehouse:query:read"], "acr_values": ["urn:example:mfa"], "max_age": "5m"}
    return make_guard(tools={"pay": rule, "plain": {"open": True}})


def answer(guard, token):
    async def post():
        transport = httpx2.ASGITransport(guard.asgi(inner), client=("192.0.2.7", 1234))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            body = message("tools/call", {"name": "pay", "arguments": {}})
            return await http.post("/mcp", json=body, headers=headers(token, "tools/call", "pay"))

    return run(post())


def test_weak_login_is_answered_by_a_challenge_that_says_what_is_wanted(guard, issuer):
    response = answer(guard, issuer.token(acr="pwd", auth_time=int(time.time())))

    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication", ')
    assert 'acr_values="urn:example:mfa", max_age="300", scope="warehouse:query:read"' in challenge
    # The client learns the demand, and nothing of the token.
    assert "pwd" not in challenge + response.text


def test_strong_and_recent_login_passes(guard, issuer):
    response = answer(guard, issuer.token(acr="urn:example:mfa", auth_time=int(time.time()) - 200))

    assert response.status_code == 200


def test_list_shows_what_a_better_login_would_open(guard, issuer):
    token = guard.check(ToolRequest.direct(tool="plain", token=issuer.token(acr="pwd"))).token

    assert guard.may_see("tool", "pay", token)
