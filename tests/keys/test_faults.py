"""An issuer that hangs, drips, lies, redirects and rotates, before a guard that has its keys (F1, F2, F3, F4, F6, F7)."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from keys_support import PATIENCE, chunked, respond
from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import TokenDenied
from support import Issuer

#: Far more than two hundred decisions take, and less than one fetch may.
SOON = 4.0


@pytest.fixture
def guard(make_guard, issuer, loopback):
    """A guard that has fetched the issuer's keys once."""
    place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True, "algorithms": ["ES256"]}
    loopback.routes["/jwks"] = published(issuer)
    guard = make_guard(issuers=[{"issuer": issuer.issuer, **place}])
    call(guard, issuer.token())
    return guard


def published(*issuers):
    return respond(json.dumps({"keys": [key for one in issuers for key in one.jwks["keys"]]}).encode())


def stranger(name):
    return Issuer(key_id=name)


def token_of(one, name):
    return one.token(header={"kid": name})


def request(token):
    return ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=token)


def call(guard, token):
    return asyncio.run(guard.authorize(request(token)))


def refusal(guard, token):
    with pytest.raises(TokenDenied) as denied:
        call(guard, token)
    return denied.value


def status(guard):
    (found,) = guard.key_status().values()
    return found


def refreshed(guard):
    """Has the keys fetched anew, and waits for the end of that."""
    # From before, so that a fetch which has ended by now is not followed by another one.
    began = time.monotonic()
    guard.refresh_keys()
    (source,) = guard._outside.watch.sources
    worker = guard._outside.watch.worker
    worker.submit(worker.join(source, began)).result(PATIENCE)
    return status(guard)


def closed(handler):
    handler.connection.close()


def torn(handler):
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"keys": [')


def keys_in_number(count):
    key = Issuer().jwks["keys"][0]
    return json.dumps({"keys": [{**key, "kid": str(number)} for number in range(count)]}).encode()


@pytest.mark.parametrize(
    "fault",
    [
        (respond(b"", status=500), "status 500"),
        (respond(b"", status=503, retry_after="60"), "status 503"),
        (respond(b"", status=404), "status 404"),
        (closed, "Error"),
        (torn, "Error"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "Error"),
    ],
)
def test_f1_outage_keeps_the_set_at_hand_and_says_why(guard, issuer, loopback, caplog, fault):
    loopback.routes["/jwks"], told = fault

    found = refreshed(guard)

    assert (found["failures"], told in found["last_error"]) == (1, True), found
    assert found["due_in"] is not None
    assert "the set at hand stays in use" in caplog.text
    assert call(guard, issuer.token()).subject == "alice"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{}", "neither a key set"),
        (b"[]", "neither a key set"),
        (b"null", "neither a key set"),
        (b'{"keys": []}', "no key of the set"),
        (b'{"keys": 1}', "neither a key set"),
        (b'{"keys": [{}], "keys": [{}]}', "names a member twice"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}]}', "no key of the set"),
        (b'{"keys": ' + b"[" * 9 + b"]" * 9 + b"}", "nests too deeply"),
        (b"[" * 200_000, "nests too deeply"),
        (keys_in_number(101), "too many keys"),
        (b'{"keys": [' + b" " * 512 * 1024 + b"]}", "more than 524288 bytes"),
        (b"\xff\xfe", "not JSON"),
        (b"<html>Sign in</html>", "not JSON"),
    ],
)
def test_f3_bad_document_keeps_the_set_at_hand_and_says_why(guard, issuer, loopback, body, told):
    loopback.routes["/jwks"] = respond(body)

    found = refreshed(guard)

    assert (found["failures"], told in found["last_error"]) == (1, True), found
    assert call(guard, issuer.token()).subject == "alice"


def test_f3_page_for_people_keeps_the_set_at_hand(guard, issuer, loopback):
    loopback.routes["/jwks"] = respond(media_type="text/html")

    assert "not JSON but `text/html`" in refreshed(guard)["last_error"]
    assert call(guard, issuer.token()).subject == "alice"


def test_f3_set_of_the_most_keys_is_taken_in(guard, loopback):
    loopback.routes["/jwks"] = respond(keys_in_number(100))

    assert refreshed(guard)["failures"] == 0


def test_f4_redirect_keeps_the_set_at_hand_and_leads_nowhere(guard, issuer, loopback):
    loopback.routes["/jwks"] = respond(b"", status=302, location="/elsewhere")
    loopback.routes["/elsewhere"] = published(stranger("key-2"))

    found = refreshed(guard)

    assert found["failures"] == 1
    assert "/elsewhere" not in loopback.paths
    assert call(guard, issuer.token()).subject == "alice"


@pytest.mark.parametrize("fault", ["hangs", "drips"])
def test_f2_known_keys_are_not_slowed_by_an_endpoint_that_is(guard, issuer, loopback, fault):
    def drip():
        while not loopback.released.wait(0.02):
            yield b" "

    loopback.routes["/jwks"] = chunked(drip()) if fault == "drips" else lambda _: loopback.released.wait()
    guard.refresh_keys()
    loopback.wait(2)
    began = time.monotonic()

    for _ in range(100):
        assert call(guard, issuer.token()).subject == "alice"
        assert guard.check(request(issuer.token())).subject == "alice"

    assert time.monotonic() - began < SOON
    assert len(loopback.requests) == 2


def test_f6_flood_of_unknown_keys_causes_one_fetch_and_slows_nobody(guard, issuer, loopback):
    attacker = stranger("key-1")
    tokens = [token_of(attacker, f"unknown-{number}") for number in range(2_000)]

    async def flood():
        calls = [guard.authorize(request(token)) for token in tokens]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(flood())

    assert {one.code for one in found} <= {"key_unknown", "keys_unavailable"}
    assert {one.status for one in found if one.code == "keys_unavailable"} <= {503}
    assert all(one.retry_after <= 30.0 for one in found if one.code == "keys_unavailable")
    assert len(loopback.requests) == 2
    assert status(guard)["misses"] >= len(tokens)
    assert call(guard, issuer.token()).subject == "alice"


def test_f6_predicted_key_that_becomes_real_works_after_the_next_fetch(guard, issuer, loopback):
    real = stranger("key-2")
    assert refusal(guard, token_of(stranger("key-2"), "key-2")).code == "key_unknown"

    loopback.routes["/jwks"] = published(issuer, real)
    refreshed(guard)

    assert call(guard, token_of(real, "key-2")).subject == "alice"
    assert call(guard, issuer.token()).subject == "alice"


def test_f7_new_key_works_with_the_first_token_that_it_signed(guard, issuer, loopback):
    new = stranger("key-2")
    loopback.routes["/jwks"] = published(issuer, new)

    assert call(guard, token_of(new, "key-2")).subject == "alice"
    assert len(loopback.requests) == 2


def test_f7_withdrawn_key_is_refused_from_the_fetch_on(guard, issuer, loopback):
    token = issuer.token()
    call(guard, token)
    loopback.routes["/jwks"] = published(stranger("key-2"))

    refreshed(guard)

    assert refusal(guard, token).code == "key_unknown"


def test_f1_set_that_the_server_confirms_serves_on(make_guard, issuer, loopback):
    body = json.dumps(issuer.jwks).encode()

    def route(handler):
        if handler.headers.get("if-none-match") == '"1"':
            handler.send_response(304)
            handler.end_headers()
        else:
            respond(body, etag='"1"', cache_control="max-age=3600")(handler)

    loopback.routes["/jwks"] = route
    place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True, "algorithms": ["ES256"]}
    guard = make_guard(issuers=[{"issuer": issuer.issuer, **place}])
    call(guard, issuer.token())

    found = refreshed(guard)

    assert (found["fetches"], found["confirmed"], found["failures"]) == (2, 1, 0)
    assert call(guard, issuer.token()).subject == "alice"
