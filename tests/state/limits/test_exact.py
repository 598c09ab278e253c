"""Mode exact on real servers: the promise, its answers, and steps of the server's clock."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import Counter

import pytest

from mcp_fastguard.state.endings import Ended, Endings
from mcp_fastguard.state.limits import Admitted, Charge, Debt, Mode, Place, Refused, SharedLimits
from mcp_fastguard.state.places import ProcessPlaces
from shared_limits_support import PlainStore, digest, hammer, most_in_any_window

HOUR = 3_600_000_000


@contextlib.asynccontextmanager
async def limits_on(server, **options):
    store = PlainStore(server.port)
    await store.redis.flushall()
    try:
        yield SharedLimits(store, **{"processes": 4, **options}), store
    finally:
        await store.close()


def charge(name="a", quota=3, window=60.0, cost=1):
    return Charge(f"rule {name}", digest(name), quota, window, cost)


def test_quota_is_admitted_and_no_more(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, _):
            return [await limits.admit([charge()]) for _ in range(4)]

    *admitted, refused = asyncio.run(main())
    assert [answer.standings[0].remaining for answer in admitted] == [2, 1, 0]
    assert isinstance(refused, Refused)
    assert (refused.rule, refused.mode) == ("rule a", Mode.EXACT)
    assert 59.0 < refused.retry_after <= 61.0


def test_all_windows_are_charged_or_none(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, _):
            small, large = charge("s", 2), charge("l", 10)
            for _ in range(2):
                await limits.admit([large, small])
            for _ in range(3):
                refused = await limits.admit([large, small])
                assert (type(refused), refused.rule) == (Refused, "rule s")
            return await limits.admit([large])

    assert asyncio.run(main()).standings[0].remaining == 7


@pytest.mark.parametrize("quota", [0, 3, 65_535, 65_536, 2**32 - 1])
def test_costs_count_at_every_width(shared_server, quota):
    async def main():
        async with limits_on(shared_server, processes=1) as (limits, _):
            above = await limits.admit([charge(quota=quota, cost=quota + 1)])
            whole = await limits.admit([charge(quota=quota, cost=max(quota, 1))])
            return above, whole, await limits.admit([charge(quota=quota)])

    above, whole, after = asyncio.run(main())
    assert isinstance(above, Refused)
    assert isinstance(whole, Admitted if quota else Refused)
    assert isinstance(after, Refused)


def test_retry_after_is_true_and_not_too_long(shared_server):
    """A retry right then is admitted, and one shortly before it is not."""

    async def attempt(limits, name):
        for _ in range(3):
            await limits.admit([charge(name, window=1.28)])
            await asyncio.sleep(0.05)
        refused = await limits.admit([charge(name, window=1.28)])
        due = time.monotonic() + refused.retry_after
        await asyncio.sleep(refused.retry_after - 0.1)
        early = await limits.admit([charge(name, window=1.28)])
        was_early = time.monotonic() < due - 0.02
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        return refused, early, was_early, await limits.admit([charge(name, window=1.28)])

    async def main():
        async with limits_on(shared_server) as (limits, _):
            # On a machine that stood still meanwhile the early retry was none.
            for number in range(10):
                refused, early, was_early, late = await attempt(limits, f"key {number}")
                if was_early:
                    return refused, early, late
            raise AssertionError("the machine is too slow to be early")

    refused, early, late = asyncio.run(main())
    assert refused.retry_after <= 1.32
    assert isinstance(early, Refused)
    assert isinstance(late, Admitted)


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_step_of_the_servers_clock_frees_nothing_and_refuses_nothing(shared_server, step):
    """A clock that stepped by an hour since the last call is one whose last reading lies an hour elsewhere."""

    async def main():
        async with limits_on(shared_server) as (limits, store):
            for _ in range(3):
                await limits.admit([charge(window=1.0)])
            name = store.key("limits-clock", bytes(16))
            last, now, born = struct.unpack("<ddd", await store.redis.get(name))
            await store.redis.set(name, struct.pack("<ddd", last - step, now, born))
            refused = await limits.admit([charge(window=1.0)])
            free = await limits.admit([charge("b", window=1.0)])
            await asyncio.sleep(refused.retry_after)
            return refused, free, await limits.admit([charge(window=1.0)])

    refused, free, after = asyncio.run(main())
    assert isinstance(refused, Refused)
    assert refused.retry_after <= 1.05
    assert isinstance(free, Admitted)
    assert isinstance(after, Admitted)


def test_keys_outlive_a_step_of_an_hour_and_leave_after_that(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, store):
            await limits.admit([charge(window=64.0)])
            return await store.redis.pttl(store.key("limits-2-64000000", digest("a")))

    assert 2 * 3_600_000 < asyncio.run(main()) <= 7_265_000


def test_key_that_is_charged_in_a_later_slot_lives_longer(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, store):
            name = store.key("limits-2-640000", digest("a"))
            await limits.admit([charge(window=0.64)])
            # As if it had been charged long ago.
            await store.redis.pexpire(name, 60_000)
            # A slot is 10 ms.
            await asyncio.sleep(0.011)
            await limits.admit([charge(window=0.64)])
            return await store.redis.pttl(name)

    assert 2 * 3_600_000 < asyncio.run(main()) <= 7_200_650


@pytest.mark.parametrize(("quota", "most"), [(65_535, 320), (2**32 - 1, 512)])
def test_memory_of_a_key_does_not_grow_with_what_it_counts(shared_server, quota, most):
    async def main():
        async with limits_on(shared_server) as (limits, store):
            for cost in (1, quota // 2, 5, 5):
                await limits.admit([charge(quota=quota, cost=cost)])
            width = 2 if quota == 65_535 else 4
            name = store.key(f"limits-{width}-60000000", digest("a"))
            return await store.redis.memory_usage(name)

    assert asyncio.run(main()) <= most


class Counting(PlainStore):
    """Counts round trips."""

    def __init__(self, port):
        super().__init__(port)
        self.trips = 0

    async def run(self, script, keys, args):
        self.trips += 1
        return await super().run(script, keys, args)


@contextlib.asynccontextmanager
async def counted_on(server):
    store = Counting(server.port)
    await store.redis.flushall()
    try:
        yield SharedLimits(store, processes=1), store
    finally:
        await store.close()


def test_calls_at_the_same_time_share_round_trips_and_no_quota_is_exceeded(shared_server):
    async def main():
        async with counted_on(shared_server) as (limits, store):
            calls = [[charge("a", 10), charge(f"own {number % 3}", 4)] for number in range(60)]
            answers = await asyncio.gather(*(limits.admit(call) for call in calls))
            return answers, store.trips

    answers, trips = asyncio.run(main())
    # Each round trip has a connection of its own, and the server may hear the last one first.
    left = [answer.standings[0].remaining for answer in answers if isinstance(answer, Admitted)]
    assert sorted(left) == list(range(10))
    assert {answer.rule for answer in answers if isinstance(answer, Refused)} == {"rule a"}
    # The first asks alone, and those that come meanwhile together, 32 at once.
    assert trips == 3


def test_places_of_calls_at_the_same_time_are_no_more_than_may_be_taken(shared_server):
    async def main():
        async with counted_on(shared_server) as (limits, _):
            place = Place("at once", digest("place"), 7)
            calls = [limits.admit([charge("a", 100)], [place], number.to_bytes(16, "big")) for number in range(60)]
            answers = await asyncio.gather(*calls)
            return answers, (await limits.look(charge("a", 100)))[0], await limits.look_at_place(place)

    answers, left, free = asyncio.run(main())
    assert Counter(type(answer) for answer in answers) == {Admitted: 7, Refused: 53}
    assert (left, free) == (93, 0)


def test_key_that_cannot_be_read_says_nothing_of_calls_that_are_asked_for_with_it(shared_server):
    async def main():
        async with counted_on(shared_server) as (limits, store):
            await store.redis.lpush(store.key("limits-2-60000000", digest("bad")), b"no text")
            names = ["good", "bad", "fine", "good"]
            return await asyncio.gather(*(limits.admit([charge(name)]) for name in names))

    answers = asyncio.run(main())
    assert [answer.mode for answer in answers] == [Mode.EXACT, Mode.LOCAL, Mode.EXACT, Mode.EXACT]
    assert answers[3].standings[0].remaining == 1


def test_caller_that_leaves_takes_no_answer_along(shared_server):
    async def main():
        async with counted_on(shared_server) as (limits, _):
            calls = [asyncio.ensure_future(limits.admit([charge("a", 100)])) for _ in range(20)]
            await asyncio.sleep(0)
            for call in calls[1::2]:
                call.cancel()
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(main())
    assert {type(answer) for answer in answers[::2]} == {Admitted}
    assert {answer.mode for answer in answers[::2]} == {Mode.EXACT}
    assert {type(answer) for answer in answers[1::2]} == {asyncio.CancelledError}


def test_endings_that_are_told_twice_are_charged_once(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, _):
            look = Charge("rows", digest("rows"), 10, 60.0, is_look=True)
            for _ in range(2):
                await limits.left((), [Debt(look.key, 10, 60.0, 4)], b"one batch of end")
            once = (await limits.look(look))[0]
            await limits.left((), [Debt(look.key, 10, 60.0, 2**40)], b"another batch of")
            refused = await limits.admit([look])
            return once, refused, await limits.look(look)

    once, refused, (left, wait) = asyncio.run(main())
    assert once == 6
    assert (type(refused), refused.rule, left) == (Refused, "rows", 0)
    assert 59.0 < refused.retry_after <= 61.0
    assert 59.0 < wait <= 61.0


def test_key_that_cannot_be_read_stops_no_other_ending(shared_server):
    stores = []

    def connect():
        stores.append(PlainStore(shared_server.port))
        return SharedLimits(stores[0], processes=1)

    async def disconnect():
        await stores[0].close()

    async def main():
        async with limits_on(shared_server) as (limits, store):
            good, bad = digest("good"), digest("bad")
            await store.redis.set(store.key("limits-4-60000000", bad), b"garbage")
            endings = Endings(connect=connect, disconnect=disconnect, places=ProcessPlaces(), collect=lambda: None)
            endings.add([Ended((), (Debt(key, 10, 60.0, 4),)) for key in (good, bad, good)])
            await asyncio.to_thread(endings.close)
            return await limits.look(Charge("rows", good, 10, 60.0, is_look=True))

    assert asyncio.run(main()) == (2, None)


def test_forged_store_grants_a_process_its_quota_and_no_more(shared_server):
    async def main():
        async with limits_on(shared_server) as (limits, store):
            answers = []
            for _ in range(5):
                answers.append(await limits.admit([charge()]))
                await store.redis.flushall()
            return answers

    answers = asyncio.run(main())
    assert [type(answer) for answer in answers] == [Admitted] * 3 + [Refused] * 2
    assert answers[-1].mode == Mode.OVERDRAWN


@pytest.mark.parametrize("value", [b"", b"\0" * 24, b"x" * 142])
def test_garbage_in_the_store_is_never_open(shared_server, value):
    async def main():
        async with limits_on(shared_server, processes=1) as (limits, store):
            await store.redis.set(store.key("limits-2-60000000", digest("a")), value)
            return [await limits.admit([charge()]) for _ in range(5)]

    assert sum(isinstance(answer, Admitted) for answer in asyncio.run(main())) <= 3


@pytest.mark.parametrize(
    "broken",
    [
        [charge("a"), charge("a")],
        [Charge("r", b"short", 1, 1.0)],
        [charge(cost=0)],
        [charge(window=0.0)],
        [charge(quota=2**32)],
    ],
)
def test_charge_that_cannot_be_counted_is_misuse(shared_server, broken):
    async def main():
        async with limits_on(shared_server) as (limits, _):
            await limits.admit(broken)

    with pytest.raises(ValueError):
        asyncio.run(main())


def test_eight_processes_never_exceed_the_quota_in_any_window(shared_server):
    told = hammer(shared_server.port, "exact", "100", "1.0", "4.0")

    # Each call was charged between its sending and its answer. Where even the latest sending and the earliest answer lie
    # within a window, so did the charges.
    surest = [(sent, answered) for each in told for sent, answered in each["admitted"]]
    most = most_in_any_window([answered for sent, answered in surest if answered - sent < 0.02], 1.0 - 0.02)
    assert most <= 100
    assert len(surest) >= 300
    assert {mode for each in told for mode in each["modes"]} == {"exact"}
