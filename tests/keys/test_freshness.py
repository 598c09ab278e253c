"""How long a set is used, how the next is asked for, and when (F1, F7; RFC 9111, RFC 9110)."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from keys_support import ISSUER, PATIENCE, SET, SOURCE, Sink, respond
from mcp_fastguard.keys import FetchError, KeySource, Pace
from mcp_fastguard.keys.fetch import fetch_keys
from mcp_fastguard.keys.freshness import fresh_for, retry_after
from mcp_fastguard.keys.source import Validator

NOW = dt.datetime(2026, 7, 1, 12, 0, 0, tzinfo=dt.UTC)
FIRST = Validator("https://auth.example.com/jwks", '"1"')


# --- what headers say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"cache-control": "public"}, None),
        ({"cache-control": "s-maxage=60"}, None),
        ({"age": "60"}, None),
        ({"cache-control": "max-age=3600"}, 3600),
        ({"cache-control": 'public, MAX-AGE="3600" , must-revalidate'}, 3600),
        ({"cache-control": "max-age=3600", "age": "600"}, 3000),
        ({"cache-control": "max-age=600", "age": "3600"}, 0),
        ({"cache-control": "max-age=600", "age": "-1"}, 600),
        ({"cache-control": "max-age=600, max-age=60"}, 60),
        ({"cache-control": "max-age=600, no-cache"}, 0),
        ({"cache-control": "no-store"}, 0),
        ({"cache-control": "max-age=-1"}, 0),
        ({"cache-control": "max-age=1.5"}, 0),
        ({"cache-control": "max-age=soon"}, 0),
        ({"cache-control": "max-age"}, 0),
        ({"cache-control": "max-age=²"}, 0),
        ({"cache-control": "max-age=" + "9" * 10_000}, 2**31),
    ],
)
def test_time_that_a_response_holds_is_read_from_its_headers(headers, seconds):
    assert fresh_for(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("120", 120),
        ("0", 0),
        ("-1", None),
        ("soon", None),
        ("Wed, 01 Jul 2026 12:02:00 GMT", 120),
        ("Wed, 01 Jul 2026 12:02:00 -0000", 120),
        ("Wed, 01 Jul 2026 11:00:00 GMT", 0),
        ("Wed, 99 Jul 2026 11:00:00 GMT", None),
        ("9" * 10_000, 2**31),
    ],
)
def test_time_to_come_back_is_seconds_or_a_date(text, seconds):
    assert retry_after({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize(
    ("said", "fresh"),
    [(None, 600), (0, 60), (59, 60), (60, 60), (300, 300), (600, 600), (601, 600), (86_400, 600), (2.0**31, 600)],
)
def test_f1_f7_server_says_how_long_a_set_holds_within_bounds(said, fresh):
    assert Pace().freshness(said) == fresh


@pytest.mark.parametrize(("asked", "wait"), [(None, 1), (0.5, 1), (120, 120), (300, 300), (301, 300), (2.0**31, 300)])
def test_f1_server_says_when_to_come_back_within_bounds(asked, wait):
    assert Pace(chance=lambda: 0.0).back_off(1, asked) == wait


# --- on the wire --------------------------------------------------------------------------------


def source_at(loopback, path="/jwks"):
    return KeySource(ISSUER, loopback.url + path, allow_http_loopback=True)


def etag_server(loopback, body=SET, etag='"1"', **headers):
    """Answers 304 to whoever has the document."""

    def route(handler):
        if handler.headers.get("if-none-match") == etag:
            handler.send_response(304)
            for name, value in {"etag": etag, **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
        else:
            respond(body, etag=etag, **headers)(handler)

    loopback.routes["/jwks"] = route


def sent(loopback, name):
    return [{key.lower(): value for key, value in headers.items()}.get(name) for _, headers in loopback.requests]


def test_set_that_has_not_changed_is_not_sent_again(loopback):
    etag_server(loopback, cache_control="max-age=120", age="20")
    source = source_at(loopback)

    first = asyncio.run(fetch_keys(source))
    second = asyncio.run(fetch_keys(source, first.validator))

    assert (first.content, first.fresh) == (SET, 100)
    assert (second.content, second.fresh, second.validator) == (None, 100, first.validator)
    assert sent(loopback, "if-none-match") == [None, '"1"']


def test_set_that_has_changed_is_sent_with_its_new_name(loopback):
    etag_server(loopback, b"new", '"2"')

    fetched = asyncio.run(fetch_keys(source_at(loopback), Validator(f"{loopback.url}/jwks", '"1"')))

    assert (fetched.content, fetched.validator.etag) == (b"new", '"2"')


def test_name_of_a_document_is_sent_to_its_own_url_only(loopback):
    etag_server(loopback)

    fetched = asyncio.run(fetch_keys(source_at(loopback), Validator(f"{loopback.url}/other", '"1"')))

    assert fetched.content == SET
    assert sent(loopback, "if-none-match") == [None]


def test_confirmation_that_was_not_asked_for_is_a_failure(loopback):
    loopback.routes["/jwks"] = respond(b"", status=304)

    with pytest.raises(FetchError, match="status 304"):
        asyncio.run(fetch_keys(source_at(loopback)))


def test_metadata_are_never_asked_for_by_name(loopback):
    loopback.routes["/.well-known/oauth-authorization-server"] = respond(
        json.dumps({"issuer": loopback.url, "jwks_uri": f"{loopback.url}/jwks"}).encode(), etag='"1"'
    )
    etag_server(loopback)

    known = Validator(f"{loopback.url}/jwks", '"1"')
    fetched = asyncio.run(fetch_keys(KeySource(loopback.url, jwks_uri=None, allow_http_loopback=True), known))

    assert fetched.content is None
    assert sent(loopback, "if-none-match") == [None, '"1"']


@pytest.mark.parametrize("etag", ["1", '"', '"a"b"', 'w/"1"', '"a b"', '"' + "a" * 255 + '"', '"é"'])
def test_name_that_cannot_be_sent_back_is_not_kept(loopback, etag):
    loopback.routes["/jwks"] = respond(etag=etag)

    assert asyncio.run(fetch_keys(source_at(loopback))).validator is None


@pytest.mark.parametrize("etag", ['""', '"1"', 'W/"1"', '"' + "a" * 254 + '"'])
def test_name_in_the_form_of_the_standard_is_kept(loopback, etag):
    loopback.routes["/jwks"] = respond(etag=etag)

    assert asyncio.run(fetch_keys(source_at(loopback))).validator.etag == etag


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failure_tells_when_the_server_wants_to_be_asked_again(loopback, status):
    loopback.routes["/jwks"] = respond(b"", status=status, retry_after="120")

    with pytest.raises(FetchError) as failed:
        asyncio.run(fetch_keys(source_at(loopback)))

    assert failed.value.retry_after == 120


# --- in the feed --------------------------------------------------------------------------------


def settle(watch):
    watch.worker.submit(asyncio.sleep(0)).result(PATIENCE)


@pytest.fixture
def first(service, told, sink):
    """A watch whose first set has come, with a name."""
    watch = service.watch([SOURCE], sink)
    told.next().answer(SET, FIRST, fresh=300.0)
    sink.wait(sets=1)
    settle(watch)
    return watch


def test_set_is_handed_over_with_the_time_that_it_holds(first, sink):
    assert sink.fresh == [300.0]
    assert first.status()[ISSUER]["stale"] == 0.0


def test_refresh_is_planned_ahead_of_the_end_that_the_server_named(first):
    assert 0.72 * 300 <= first.status()[ISSUER]["due_in"] <= 0.8 * 300


def test_confirmed_set_is_fresh_again(first, told, sink, clock):
    clock.seconds += 400.0
    assert first.status()[ISSUER]["stale"] == 100.0

    first.refresh()
    asked = told.next()
    assert asked.known == FIRST
    asked.answer(None, FIRST, fresh=480.0)
    sink.wait(sets=2)
    settle(first)

    assert (sink.sets[1], sink.fresh[1]) == ((ISSUER, SET), 480.0)
    status = first.status()[ISSUER]
    assert (status["age"], status["stale"], status["fetches"], status["confirmed"]) == (0.0, 0.0, 2, 1)


def test_later_guard_is_told_how_old_the_set_is(first, service, told, clock):
    clock.seconds += 400.0

    service.watch([SOURCE], late := Sink())
    late.wait(sets=1)

    assert late.fresh == [-100.0]
    assert told.count == 1


def test_confirmation_without_a_set_at_hand_is_a_failure(service, told, sink):
    service.watch([SOURCE], sink)

    told.next().answer(None)
    sink.wait(failures=1)

    assert sink.sets == []
    told.next().answer()
    sink.wait(sets=1)


def test_name_of_a_set_that_was_refused_is_not_kept(service, told):
    sink = Sink(refuses=ValueError("no key set"))
    service.watch([SOURCE], sink)

    told.next().answer(SET, FIRST)

    assert told.next().known is None


def test_f1_server_that_asks_for_time_gets_it_from_unknown_keys_too(make_service, told, clock, sink):
    service = make_service(fetch=told, clock=clock, pace=Pace(chance=lambda: 0.0))
    watch = service.watch([SOURCE], sink)
    told.next().fail(FetchError("status 429", retry_after=120.0))
    sink.wait(failures=1)
    settle(watch)
    clock.seconds += 40.0

    asyncio.run(watch.fetched(ISSUER, timeout=PATIENCE))

    assert told.count == 1
    # Told as it was when the failure came.
    assert sink.failures == [(ISSUER, "status 429", 120.0)]
    assert watch.status()[ISSUER]["due_in"] == 80.0


def test_refresh_by_hand_does_not_wait_for_the_time_that_a_server_asked_for(make_service, told, clock, sink):
    service = make_service(fetch=told, clock=clock)
    watch = service.watch([SOURCE], sink)
    told.next().fail(FetchError("status 429", retry_after=120.0))
    sink.wait(failures=1)

    watch.refresh()
    told.next().answer()

    sink.wait(sets=1)


def test_status_tells_age_fetches_and_failures(service, told, clock):
    watch = service.watch([SOURCE], sink := Sink())
    empty = dict.fromkeys(("age", "stale", "last_error", "due_in")) | dict.fromkeys(
        ("failures", "fetches", "confirmed"), 0
    )
    assert watch.status() == {ISSUER: empty}

    told.next().answer()
    sink.wait(sets=1)
    settle(watch)
    clock.seconds += 12.0

    status = watch.status()[ISSUER]
    assert (status["age"], status["fetches"], status["failures"]) == (12.0, 1, 0)
    assert 420.0 <= status["due_in"] <= 468.0
