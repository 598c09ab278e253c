"""Who fetches when, with an issuer that answers when it is told to."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from keys_support import ISSUER, PATIENCE, SET, SOURCE, Sink
from mcp_fastguard.keys import FetchError, KeySource, Pace

OTHER = KeySource("https://other.example.com", "https://other.example.com/jwks", allow_http_loopback=False)


def fetched(watch, issuer=ISSUER, **options):
    asyncio.run(watch.fetched(issuer, **{"timeout": PATIENCE, **options}))


def with_set(service, told, sink):
    """A watch that has its first set."""
    watch = service.watch([SOURCE], sink)
    told.next().answer()
    sink.wait(sets=1)
    settle(watch)
    return watch


def settle(watch):
    """Until the service has done all that was asked of it so far."""
    watch.worker.submit(asyncio.sleep(0)).result(PATIENCE)


async def waiters(watch, count):
    """Tasks that have all been submitted."""
    tasks = [asyncio.create_task(watch.fetched(ISSUER, timeout=PATIENCE)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


# --- fetching -----------------------------------------------------------------------------------


def test_watch_fetches_at_once_on_the_thread_of_the_service(service, told):
    sink = Sink()

    service.watch([SOURCE], sink)
    told.next().answer(b"the set")
    sink.wait(sets=1)

    assert sink.sets == [(ISSUER, b"the set")]
    assert sink.threads == {"fastguard-keys"}


def test_sources_may_be_the_plain_tuples_of_the_core(service, told, sink):
    service.watch([(ISSUER, None, True)], sink)

    assert told.next().source == KeySource(ISSUER, jwks_uri=None, allow_http_loopback=True)


def test_guards_with_the_same_source_share_one_fetch(service, told):
    sinks = [Sink() for _ in range(3)]
    for sink in sinks:
        service.watch([SOURCE], sink)

    told.next().answer()
    for sink in sinks:
        sink.wait(sets=1)

    assert told.count == 1


def test_later_guard_gets_the_set_at_hand_without_a_fetch(service, told):
    with_set(service, told, first := Sink())
    sink = Sink()

    service.watch([SOURCE], sink)
    sink.wait(sets=1)

    assert (told.count, len(first.sets)) == (1, 1)


def test_leave_for_plain_http_is_not_shared(service, told):
    sinks = Sink(), Sink()
    service.watch([SOURCE], sinks[0])
    service.watch([SOURCE._replace(allow_http_loopback=True)], sinks[1])

    assert {told.next().source.allow_http_loopback, told.next().source.allow_http_loopback} == {False, True}


def test_set_that_is_due_is_fetched_without_being_asked_for(make_service, told):
    service = make_service(fetch=told, pace=Pace(fresh=0.01))
    service.watch([SOURCE], sink := Sink())

    for _ in range(3):
        told.next().answer()

    sink.wait(sets=3)


# --- single flight and cool-down ----------------------------------------------------------------


@pytest.mark.parametrize("run", [asyncio.run, "uvloop"], ids=["asyncio", "uvloop"])
def test_f6_thousand_unknown_keys_at_once_cause_one_fetch(service, told, run):
    if run == "uvloop":
        run = pytest.importorskip("uvloop").run
    watch = with_set(service, told, sink := Sink())

    async def all_of_them():
        tasks = await waiters(watch, 1_000)
        asked = await asyncio.to_thread(told.next)
        assert not any(task.done() for task in tasks)
        asked.answer()
        await asyncio.gather(*tasks)

    run(all_of_them())

    assert told.count == 2
    assert len(sink.sets) == 2


def test_loops_of_several_threads_join_one_fetch(service, told, sink):
    watch = with_set(service, told, sink)
    threads = [threading.Thread(target=fetched, args=(watch,)) for _ in range(8)]
    for thread in threads:
        thread.start()

    told.next().answer()
    for thread in threads:
        thread.join(PATIENCE)

    assert not any(thread.is_alive() for thread in threads)
    assert told.count == 2


def test_unknown_key_joins_the_first_fetch_and_spends_no_cool_down(service, told, sink):
    watch = service.watch([SOURCE], sink)
    asked = told.next()

    async def join():
        (task,) = await waiters(watch, 1)
        asked.answer()
        await task
        second = asyncio.create_task(watch.fetched(ISSUER, timeout=PATIENCE))
        (await asyncio.to_thread(told.next)).answer()
        await second

    asyncio.run(join())

    assert told.count == 2


@pytest.mark.parametrize(("later", "fetches"), [(28.9, 2), (29.99, 3), (30.0, 3)])
def test_unknown_key_begins_no_fetch_before_the_cool_down_is_all_but_over(
    later, fetches, *, service, told, clock, sink
):
    watch = with_set(service, told, sink)
    first = threading.Thread(target=fetched, args=(watch,))
    first.start()
    told.next().answer()
    first.join(PATIENCE)

    clock.seconds += later
    second = threading.Thread(target=fetched, args=(watch,))
    second.start()
    if fetches == 3:
        told.next().answer()
    second.join(PATIENCE)

    assert not second.is_alive()
    assert told.count == fetches


def ask_twice(watch, told, clock, later):
    """Has an unknown key begin a fetch, and another come so much later."""
    first = threading.Thread(target=fetched, args=(watch,))
    first.start()
    told.next().answer()
    first.join(PATIENCE)
    clock.seconds += later
    fetched(watch)


def test_unknown_key_within_the_cool_down_has_the_next_fetch_begin_at_its_end(make_service, told, clock, sink):
    service = make_service(fetch=told, clock=clock, pace=Pace(soon=0.0))
    watch = with_set(service, told, sink)

    ask_twice(watch, told, clock, later=29.9)
    assert watch.status()[ISSUER]["due_in"] == pytest.approx(0.1)
    assert told.count == 2
    told.next().answer()

    sink.wait(sets=3)


def test_fetch_at_the_end_of_a_cool_down_begins_a_new_one(make_service, told, clock, sink):
    service = make_service(fetch=told, clock=clock, pace=Pace(soon=0.0))
    watch = with_set(service, told, sink)
    ask_twice(watch, told, clock, later=29.95)
    told.next().answer()
    sink.wait(sets=3)
    settle(watch)

    clock.seconds += 20.0
    fetched(watch)

    assert told.count == 3
    assert watch.status()[ISSUER]["due_in"] == pytest.approx(10.0)


def test_refresh_that_is_due_sooner_is_not_put_off_by_an_unknown_key(make_service, told, clock, sink):
    service = make_service(fetch=told, clock=clock, pace=Pace(fresh=10.0, early=0.0))
    watch = with_set(service, told, sink)

    ask_twice(watch, told, clock, later=1.0)

    assert watch.status()[ISSUER]["due_in"] == pytest.approx(7.0)


def test_cool_down_of_one_issuer_leaves_the_others_free(service, told):
    sink = Sink()
    watch = service.watch([SOURCE, OTHER], sink)
    for _ in range(2):
        told.next().answer()
    sink.wait(sets=2)

    for source in (SOURCE, OTHER):
        thread = threading.Thread(target=fetched, args=(watch, source.issuer))
        thread.start()
        asked = told.next()
        assert asked.source == source
        asked.answer()
        thread.join(PATIENCE)


def test_fetch_that_ended_after_the_key_was_missed_will_do(service, told, clock, sink):
    watch = service.watch([SOURCE], sink)
    asked = told.next()
    missed_at = clock()
    clock.seconds += 1.0
    asked.answer()
    sink.wait(sets=1)
    settle(watch)

    fetched(watch, after=missed_at)

    assert told.count == 1


def test_unknown_issuer_is_not_waited_for(service, told, sink):
    watch = with_set(service, told, sink)

    fetched(watch, "https://stranger.example.com")

    assert told.count == 1


def test_refresh_by_the_operator_asks_no_cool_down(service, told):
    watch = with_set(service, told, sink := Sink())

    for count in (2, 3):
        watch.refresh()
        told.next().answer()
        sink.wait(sets=count)


def test_refresh_during_a_fetch_is_followed_by_one_more(service, told):
    watch = service.watch([SOURCE], sink := Sink())
    asked = told.next()

    for _ in range(10):
        watch.refresh(ISSUER)
    asked.answer(b"old")
    told.next().answer(b"new")
    sink.wait(sets=2)

    assert [content for _, content in sink.sets] == [b"old", b"new"]
    assert told.count == 2


# --- waiters ------------------------------------------------------------------------------------


def test_cancelled_waiter_does_not_end_the_fetch(service, told):
    watch = with_set(service, told, sink := Sink())

    async def cancel_one():
        leaving, staying = await waiters(watch, 2)
        asked = await asyncio.to_thread(told.next)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        asked.answer()
        await staying
        assert not asked.cancelled.is_set()

    asyncio.run(cancel_one())

    assert len(sink.sets) == 2


def test_waiter_leaves_quietly_at_its_timeout_and_the_fetch_goes_on(service, told):
    watch = service.watch([SOURCE], sink := Sink())
    asked = told.next()

    fetched(watch, timeout=0.01)
    assert sink.sets == []
    asked.answer()

    sink.wait(sets=1)


@pytest.mark.parametrize("error", [FetchError("down"), RuntimeError("broken"), UnicodeError("broken")])
def test_waiter_sees_no_failure_of_the_fetch(service, told, error):
    watch = service.watch([SOURCE], sink := Sink())
    asked = told.next()

    async def wait():
        (task,) = await waiters(watch, 1)
        asked.fail(error)
        await task

    asyncio.run(wait())

    sink.wait(failures=1)


# --- failures -----------------------------------------------------------------------------------


def test_failed_fetch_keeps_the_set_and_is_tried_again(service, told):
    watch = with_set(service, told, sink := Sink())

    watch.refresh()
    told.next().fail("status 500")
    sink.wait(failures=1)
    assert sink.sets == [(ISSUER, SET)]
    assert (watch.status()[ISSUER]["failures"], watch.status()[ISSUER]["last_error"]) == (1, "status 500")

    told.next().fail("status 502")
    told.next().answer(b"new")
    sink.wait(sets=2)
    fetched(watch, after=0.0)
    assert (watch.status()[ISSUER]["failures"], watch.status()[ISSUER]["last_error"]) == (0, None)


def test_sink_learns_the_reason_and_when_the_next_fetch_begins(make_service, told, clock):
    service = make_service(fetch=told, clock=clock)
    watch = service.watch([SOURCE], sink := Sink())

    told.next().fail("status 500")
    sink.wait(failures=1)

    assert sink.failures == [(ISSUER, "status 500", 1.0)]
    assert watch.status()[ISSUER]["due_in"] == 1.0


def test_document_that_the_core_refuses_counts_as_a_failure(service, told):
    service.watch([SOURCE], sink := Sink(refuses=ValueError("no key set")))

    told.next().answer(b"<html>")
    sink.wait(failures=1)
    assert sink.failures[0][1] == "no key set"

    sink.refuses = None
    told.next().answer()
    sink.wait(sets=1)


def test_document_that_was_refused_is_not_kept_for_later_guards(make_service, told):
    service = make_service(fetch=told)
    service.watch([SOURCE], sink := Sink(refuses=ValueError("no key set")))
    told.next().answer(b"<html>")
    sink.wait(failures=1)

    service.watch([SOURCE], later := Sink())
    told.next().answer()
    later.wait(sets=1)

    assert later.sets == [(ISSUER, SET)]


def test_sink_that_is_broken_does_not_keep_the_set_from_others(service, told, caplog):
    broken = Sink(refuses=RuntimeError("broken"))
    service.watch([SOURCE], broken)
    service.watch([SOURCE], sink := Sink())

    told.next().answer()
    sink.wait(sets=1)
    broken.wait(failures=1)

    assert sink.failures == []
    assert broken.failures[0][1] == "RuntimeError"


def test_guards_built_during_an_outage_do_not_ask_more_often_than_unknown_keys(make_service, told, sink):
    service = make_service(fetch=told)
    service.watch([SOURCE], first := Sink())
    told.next().fail()
    first.wait(failures=1)

    sinks = [Sink() for _ in range(10)]
    watches = [service.watch([SOURCE], sink) for sink in sinks]
    told.next().fail()
    first.wait(failures=2)
    watches.append(service.watch([SOURCE], sink))
    fetched(watches[-1])

    assert told.count == 2


# --- figures and endings ------------------------------------------------------------------------


def test_close_of_the_last_watch_ends_the_fetch_and_its_waiters(service, told, sink):
    watches = [service.watch([SOURCE], sink) for _ in range(2)]
    asked = told.next()

    async def close():
        (task,) = await waiters(watches[0], 1)
        watches[0].close()
        await asyncio.to_thread(settle, watches[1])
        assert not asked.cancelled.is_set()
        watches[1].close()
        await task

    asyncio.run(close())

    assert asked.cancelled.is_set()
    fetched(watches[0])
    watches[0].refresh()
    assert told.count == 1


def test_watch_begun_after_the_last_was_closed_fetches_anew(service, told):
    with_set(service, told, sink := Sink()).close()

    service.watch([SOURCE], sink)
    told.next().answer()

    sink.wait(sets=2)


def test_guard_that_was_dropped_unclosed_is_fetched_for_no_longer(make_service, told):
    service = make_service(fetch=told, pace=Pace(fresh=0.0))
    sink = Sink()
    watch = service.watch([SOURCE], sink)
    asked = told.next()
    worker = watch.worker
    del sink
    gc.collect()

    asked.answer()
    fetched(watch, after=0.0)
    while worker._feeds:
        fetched(watch, after=0.0)

    assert told.count == 1


def test_close_of_the_service_ends_a_fetch_under_way_and_its_waiters(service, told, sink):
    watch = service.watch([SOURCE], sink)
    asked = told.next()
    thread = watch.worker._thread

    async def close():
        tasks = await waiters(watch, 10)
        await asyncio.to_thread(service.close)
        # Long before their own timeout.
        async with asyncio.timeout(PATIENCE / 4):
            await asyncio.gather(*tasks)

    asyncio.run(close())

    assert asked.cancelled.is_set()
    assert not thread.is_alive()


def test_service_that_was_closed_starts_nothing(service, told, sink):
    service.close()

    watch = service.watch([SOURCE], sink)
    fetched(watch)
    watch.refresh()
    watch.revive()
    watch.close()

    assert (watch.worker, told.count) == (None, 0)
