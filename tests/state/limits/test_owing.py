"""Calls that run and results, counted once for all processes: guards of one configuration, as in several processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import GuardFault, LimitDenied
from mcp_fastguard.state import limits
from shared_limits_support import prefix_of, run, state_of
from support import records

SHARED = {"name": "shared", "per": "principal", "quota": "3/minute"}
AT_ONCE = {"name": "at once", "per": "principal", "concurrent": 1}
ROWS = {"name": "rows", "per": "principal", "meter": "rows", "quota": "5/minute"}


@pytest.fixture
def guard_of(config, shared_server, tmp_path, request):
    guards = []

    def build(*rules, mode="exact", port=None, **limits):
        state = state_of(tmp_path, f"redis://127.0.0.1:{port or shared_server.port}/0", prefix=prefix_of(request))
        audit = {"path": str(tmp_path / f"audit-{len(guards)}")}
        limits = {"mode": mode, "rules": list(rules), **limits}
        guards.append(Guard.from_dict({**config, "state": state, "limits": limits, "audit": audit}))
        return guards[-1]

    yield build
    for guard in guards:
        guard.close()


@pytest.fixture
def begun(issuer):
    async def begin(guard, tool="add"):
        return await guard.call(ToolRequest.direct(tool=tool, arguments={}, token=issuer.token())).__aenter__()

    return begin


async def refused(beginning):
    with pytest.raises(LimitDenied) as denied:
        await beginning
    return denied.value.code


async def within(seconds, begin):
    """The first call that is not refused for want of a place."""
    until = time.monotonic() + seconds
    while True:
        try:
            return await begin()
        except LimitDenied as denied:
            assert denied.code == "concurrency_spent"
            assert time.monotonic() < until, "no place comes back"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", ["exact", "leased"])
def test_place_is_held_while_the_call_runs_and_what_it_refuses_is_not_charged_outside(guard_of, begun, mode):
    guard = guard_of(SHARED, AT_ONCE, mode=mode)

    async def walk():
        first = await begun(guard)
        assert first.proof.owes
        found = [await refused(begun(guard)) for _ in range(5)]
        first.close()
        second = await begun(guard)
        left = second.proof.remaining
        second.close()
        return found, left

    assert run(walk(), guard) == (["concurrency_spent"] * 5, 1)


def test_call_that_the_store_refuses_keeps_no_place(guard_of, begun):
    guard = guard_of({**SHARED, "quota": "1/minute"}, {**AT_ONCE, "per": "everyone"})

    async def walk():
        (await begun(guard)).close()
        return [await refused(begun(guard)) for _ in range(3)]

    assert run(walk(), guard) == ["quota_spent"] * 3


def test_call_that_a_later_room_refuses_keeps_no_place(guard_of, begun):
    guard = guard_of(SHARED, AT_ONCE)

    async def walk():
        kept = []
        for _ in range(2):
            with pytest.raises(Exception, match="secret:use") as denied:
                await begun(guard, "secret")
            # Whoever keeps the refusal keeps no place by it.
            kept.append(denied.value)
        (await begun(guard)).close()
        return [denied.code for denied in kept]

    assert run(walk(), guard) == ["scope_insufficient"] * 2


@pytest.mark.parametrize("mode", ["exact", "leased"])
def test_place_that_another_process_holds_is_not_free_and_is_when_its_call_has_ended(guard_of, begun, mode):
    one, two = guard_of(AT_ONCE, mode=mode), guard_of(AT_ONCE, mode=mode)

    async def walk():
        first = await begun(one)
        code = await refused(begun(two))
        await first.__aexit__(None, None, None)
        await (await begun(two)).__aexit__(None, None, None)
        await (await begun(one)).__aexit__(None, None, None)
        return code

    assert run(walk(), one, two) == "concurrency_spent"


@pytest.mark.parametrize("mode", ["exact", "leased"])
def test_what_a_call_of_another_process_brought_is_counted(guard_of, begun, mode):
    rules = {**SHARED, "quota": "300/minute"}, ROWS
    one, two = guard_of(*rules, mode=mode), guard_of(*rules, mode=mode)

    async def walk():
        for rows in (2, 2):
            call = await begun(one)
            call.note(rows=rows)
            await call.__aexit__(None, None, None)
            await (await begun(two)).__aexit__(None, None, None)
        call = await begun(two)
        call.note(rows=100)
        await call.__aexit__(None, None, None)
        return await refused(begun(one)), await refused(begun(two))

    assert run(walk(), one, two) == ("quota_spent", "quota_spent")


def test_refusal_names_the_meter_and_a_time_that_is_true(guard_of, begun):
    rows = {**ROWS, "quota": "5/2s"}
    one, two = guard_of(rows), guard_of(rows)

    async def walk():
        call = await begun(one)
        call.note(rows=50)
        await call.__aexit__(None, None, None)
        with pytest.raises(LimitDenied) as denied:
            await begun(two)
        await asyncio.sleep(denied.value.retry_after)
        (await begun(two)).close()
        return denied.value

    denied = run(walk(), one, two)
    assert denied.spent == ("rows", 5, 2.0, 0, "rows")
    assert 0 < denied.retry_after <= 2.1


def test_refused_place_charges_no_window_and_spent_window_takes_no_place(guard_of, begun):
    one, two = guard_of(SHARED, AT_ONCE), guard_of(SHARED, AT_ONCE)

    async def walk():
        first = await begun(one)
        assert [await refused(begun(two)) for _ in range(4)] == ["concurrency_spent"] * 4
        await first.__aexit__(None, None, None)
        for left in (1, 0):
            call = await begun(two)
            assert call.proof.remaining == left
            await call.__aexit__(None, None, None)
        assert [await refused(begun(one)) for _ in range(3)] == ["quota_spent"] * 3
        return await two._outside.deployment._here().store._redis.keys(f"*{two.gate.state_settings()[2][0]}*running*")

    assert run(walk(), one, two) == []


def test_call_that_nobody_finishes_gives_its_place_back(guard_of, begun):
    one, two = guard_of(AT_ONCE), guard_of(AT_ONCE)

    async def walk():
        forgotten = await begun(one)
        assert await refused(begun(two)) == "concurrency_spent"
        del forgotten
        gc.collect()
        (await within(30.0, lambda: begun(two))).close()

    run(walk(), one, two)


def test_call_that_was_cancelled_while_it_asked_keeps_no_place(guard_of, begun, monkeypatch):
    # The store may hear of its end before it hears of its beginning.
    monkeypatch.setattr(limits, "LIFETIME", 2.0)
    one, two = guard_of(AT_ONCE), guard_of(AT_ONCE)

    async def walk():
        for steps in range(12):
            asking = asyncio.ensure_future(begun(one))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, LimitDenied):
                (await asking).close()
        (await within(30.0, lambda: begun(two))).close()

    run(walk(), one, two)


def test_places_are_entered_again_in_a_store_that_was_emptied(guard_of, begun, shared_server):
    one, two = guard_of(AT_ONCE), guard_of(AT_ONCE)

    async def walk():
        first = await begun(one)
        await two._outside.deployment._here().store._redis.flushall()

        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                await (await begun(two)).__aexit__(None, None, None)
            except LimitDenied as denied:
                first.close()
                return denied.code
            await asyncio.sleep(0.05)
        return None

    assert run(walk(), one, two) == "concurrency_spent"


def test_each_process_has_its_share_while_the_store_is_away(guard_of, begun):
    rules = {**AT_ONCE, "concurrent": 5}, {**ROWS, "quota": "8/minute"}
    guard = guard_of(*rules, port=1)

    async def walk():
        calls = [await begun(guard) for _ in range(2)]
        code = await refused(begun(guard))
        for call in calls:
            call.note(rows=2)
            await call.__aexit__(None, None, None)
        return code, await refused(begun(guard))

    # Of 5 places and of 8 rows, each of two processes has its half.
    assert run(walk(), guard) == ("concurrency_spent", "quota_spent")
    assert {record["limits_mode"] for record in records(guard, "decision")} == {"local"}


def test_what_was_counted_while_the_store_was_away_is_told_when_it_is_back(guard_of, begun, own_server, issuer):
    one, two = guard_of(AT_ONCE, ROWS, port=own_server.port), guard_of(AT_ONCE, ROWS, port=own_server.port)

    async def walk():
        call = await begun(one)
        own_server.kill()
        call.note(rows=5)
        await call.__aexit__(None, None, None)
        own_server.start()
        until = time.monotonic() + 30
        request = ToolRequest.direct(tool="add", arguments={}, token=issuer.token())
        while {limit.rule: limit.remaining for limit in await two.limits_of(request)}["rows"] != 0:
            assert time.monotonic() < until, "nobody tells"
            await asyncio.sleep(0.05)
        return await refused(begun(two))

    assert run(walk(), one, two) == "quota_spent"


def test_none_runs_while_the_store_is_away_where_the_configuration_says_so(guard_of, begun):
    guard = guard_of(AT_ONCE, port=1, degrade="refuse")

    assert run(refused(begun(guard)), guard) == "limits_unavailable"


def test_spent_meter_charges_no_other_window(guard_of, begun):
    guard, other = guard_of(SHARED, ROWS), guard_of(SHARED)

    async def walk():
        call = await begun(guard)
        call.note(rows=5)
        call.close()
        found = [await refused(begun(guard)) for _ in range(5)]
        return found, (await begun(other)).proof.remaining

    assert run(walk(), guard, other) == (["quota_spent"] * 5, 1)


def test_authorize_tells_of_no_ending_and_charges_nothing(guard_of, begun, issuer):
    guard = guard_of(SHARED, AT_ONCE)

    async def walk():
        with pytest.raises(GuardFault) as fault:
            await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=issuer.token()))
        return fault.value.code, (await begun(guard)).proof.remaining

    assert run(walk(), guard) == ("needs_call", 2)


def test_start_says_which_rules_have_no_leases(config, tmp_path):
    state = state_of(tmp_path, "redis://127.0.0.1:1/0")
    found = {}
    for mode in ("exact", "leased"):
        tables = {"limits": {"mode": mode, "rules": [SHARED, AT_ONCE, ROWS]}, "state": state}
        with Guard.from_dict({**config, **tables, "audit": {"path": str(tmp_path / f"audit-{mode}")}}) as guard:
            found[mode] = [key for key, _ in guard.gate.warnings() if key.startswith("limits")]

    assert found == {"exact": [], "leased": ["limits.rules[1]", "limits.rules[2]"]}
