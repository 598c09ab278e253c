"""A guard whose issuer publishes its keys on loopback: core, service and server together."""

from __future__ import annotations

import asyncio
import json

import pytest

from keys_support import respond
from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import TokenDenied
from support import Issuer


def published(*issuers):
    keys = [key for issuer in issuers for key in issuer.jwks["keys"]]
    return respond(json.dumps({"keys": keys}).encode())


@pytest.fixture
def guard(make_guard, issuer, loopback):
    table = {
        "issuer": issuer.issuer,
        "jwks_uri": f"{loopback.url}/jwks",
        "algorithms": ["ES256"],
        "allow_http_loopback": True,
    }
    return make_guard(issuers=[table])


def call(guard, token):
    request = ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=token)
    return asyncio.run(guard.authorize(request))


def test_f6_thousand_first_calls_wait_for_one_fetch(guard, issuer, loopback):
    def held(handler):
        loopback.released.wait()
        published(issuer)(handler)

    loopback.routes["/jwks"] = held
    tokens = [issuer.token(sub=f"user-{number}") for number in range(1_000)]

    async def all_of_them():
        requests = [
            ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=token) for token in tokens
        ]
        calls = [asyncio.create_task(guard.authorize(request)) for request in requests]
        await asyncio.sleep(0)
        loopback.released.set()
        return await asyncio.gather(*calls)

    allowed = asyncio.run(all_of_them())

    assert {one.subject for one in allowed} == {f"user-{number}" for number in range(1_000)}
    assert loopback.paths == ["/jwks"]


def test_key_that_was_withdrawn_is_refused_after_a_refresh(guard, issuer, loopback):
    loopback.routes["/jwks"] = published(issuer)
    token = issuer.token()
    call(guard, token)

    new = Issuer(issuer.issuer, key_id="key-2")
    loopback.routes["/jwks"] = published(new)
    guard.refresh_keys()
    guard._outside.watch.worker.submit(guard._outside.watch.worker.join(guard._outside.watch.sources[0], 0.0)).result(
        10
    )

    assert call(guard, new.token(header={"kid": "key-2"})).subject == "alice"
    with pytest.raises(TokenDenied) as denied:
        call(guard, token)
    assert denied.value.code in {"key_unknown", "keys_unavailable"}


def test_closed_guard_fetches_nothing(guard, loopback):
    guard.close()

    guard.refresh_keys()

    assert guard.key_status() == {}
    assert loopback.paths == []


def test_set_at_hand_serves_while_the_issuer_sends_what_is_none(guard, issuer, loopback):
    loopback.routes["/jwks"] = published(issuer)
    call(guard, issuer.token())

    for body in (b"{}", b"[]", b'{"keys": 1}', b"<html>"):
        loopback.routes["/jwks"] = respond(body)
        before = guard.key_status()[issuer.issuer]["fetches"]
        guard.refresh_keys()
        asyncio.run(guard._outside.watch.fetched(issuer.issuer))
        status = guard.key_status()[issuer.issuer]
        assert status["fetches"] > before
        assert status["failures"] > 0

    assert call(guard, issuer.token()).subject == "alice"
