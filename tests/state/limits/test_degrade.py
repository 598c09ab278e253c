"""What holds while the store is unavailable, on real servers that are broken in every way we know."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest

from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Admitted, Charge, Mode, Refused, SharedLimits
from own_store_support import OwnStore
from shared_limits_support import PlainStore, Proxy, digest


def charge(name="a", quota=40, window=60.0, cost=1):
    return Charge(f"rule {name}", digest(name), quota, window, cost)


@contextlib.asynccontextmanager
async def limits_at(port, kind=OwnStore, **options):
    store = kind(port)
    try:
        yield SharedLimits(BreakingStore(store), **{"processes": 4, **options}), store
    finally:
        await store.close()


class Lag:
    """How long this process was kept from running at most, while the block ran: no answer can come sooner than that."""

    async def __aenter__(self):
        self.most = 0.0
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def _beat(self):
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            self.most = max(self.most, time.monotonic() - began - 0.001)

    async def __aexit__(self, *_):
        await asyncio.sleep(0.002)
        self._task.cancel()


async def admit_many(limits, count, one=None):
    """Answers, and the seconds that the slowest took, without those for which the whole process stood still."""
    answers, slowest = [], 0.0
    for _ in range(count):
        async with Lag() as lag:
            began = time.monotonic()
            answers.append(await limits.admit([one or charge()]))
            took = time.monotonic() - began
        slowest = max(slowest, took - lag.most)
    return answers, slowest


async def seconds_until(limits, mode):
    began = time.monotonic()
    while (await limits.admit([charge("probe", quota=1_000_000)])).mode != mode:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def admitted_in(answers):
    return sum(isinstance(answer, Admitted) for answer in answers)


def refuse(server, proxy):
    proxy.refuse()


def cut(server, proxy):
    proxy.hold()


def slow(server, proxy):
    proxy.delay = 0.3


def stop(server, proxy):
    server.signal(signal.SIGSTOP)


def kill(server, proxy):
    server.kill()


def mend(server, proxy):
    proxy.mend()
    if server.process is None:
        server.start()
    server.signal(signal.SIGCONT)


#: The store of guards, and one that others may write: what it gives are coroutines.
STORES = (OwnStore, PlainStore)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("fail", [refuse, cut, slow, stop, kill])
def test_broken_store_leaves_each_process_its_share_and_is_back_within_two_seconds(own_server, fail, kind):
    async def main():
        async with Proxy(own_server.port) as proxy, limits_at(proxy.port, kind) as (limits, _):
            before, _ = await admit_many(limits, 4)
            fail(own_server, proxy)
            broken, slowest = await admit_many(limits, 20)
            mend(own_server, proxy)
            return before, broken, slowest, await seconds_until(limits, Mode.EXACT)

    before, broken, slowest, back = asyncio.run(main())
    assert {answer.mode for answer in before} == {Mode.EXACT}
    assert {answer.mode for answer in broken} == {Mode.LOCAL}
    # A quota of 40 over 4 processes; 4 calls were counted before, so that nothing starts cold.
    assert admitted_in(broken) == 6
    assert slowest < 0.15
    assert back < 2.0


def test_broken_store_refuses_where_that_was_chosen(own_server):
    async def main():
        async with limits_at(own_server.port, degrade="refuse") as (limits, _):
            before = await limits.admit([charge()])
            own_server.kill()
            return before, (await admit_many(limits, 10))[0]

    before, broken = asyncio.run(main())
    assert isinstance(before, Admitted)
    assert {(type(answer), answer.mode) for answer in broken} == {(Refused, Mode.REFUSE)}


def test_open_breaker_answers_at_once_and_probes_once_a_second(own_server):
    async def main():
        async with Proxy(own_server.port) as proxy, limits_at(proxy.port) as (limits, _):
            await admit_many(limits, 1)
            proxy.hold()
            await admit_many(limits, 5)
            times = []
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                times.append((await admit_many(limits, 1))[1])
                await asyncio.sleep(0.005)
            return times

    times = asyncio.run(main())
    assert 1 <= sum(spent > 0.04 for spent in times) <= 3
    assert sorted(times)[len(times) // 2] < 0.005


def test_flushed_scripts_are_sent_again(shared_server):
    async def main():
        async with limits_at(shared_server.port) as (limits, store):
            await store.redis.flushall()
            first = await limits.admit([charge()])
            await store.redis.script_flush()
            return first, await limits.admit([charge()])

    first, second = asyncio.run(main())
    assert (first.mode, second.mode) == (Mode.EXACT, Mode.EXACT)
    assert second.standings[0].remaining == first.standings[0].remaining - 1


async def fill(redis):
    """Writes until nothing more fits, however small."""
    for size in (16_000, 1_000, 100, 10, 10, 10):
        with contextlib.suppress(Exception):
            for number in range(20_000):
                await redis.set(f"filler {size} {number} {time.monotonic()}", b"x" * size)


def test_full_server_degrades_and_charges_nothing(own_server):
    own_server.kill()
    own_server.start("--maxmemory", "2mb", "--maxmemory-policy", "noeviction")

    async def main():
        async with limits_at(own_server.port) as (limits, store):
            before = await limits.admit([charge()])
            await fill(store.redis)
            # Buffers of clients come and go: some room less, so that it stays full.
            await store.redis.config_set("maxmemory", "1800kb")
            full, _ = await admit_many(limits, 20)
            await store.redis.config_set("maxmemory", "0")
            back = await seconds_until(limits, Mode.EXACT)
            return before, full, back, await limits.admit([charge()])

    before, full, back, after = asyncio.run(main())
    assert before.mode == Mode.EXACT
    assert {answer.mode for answer in full} == {Mode.LOCAL}
    assert admitted_in(full) == 9
    assert back < 2.0
    assert after.standings[0].remaining == 38


def test_read_only_server_degrades(own_server):
    async def main():
        async with limits_at(own_server.port) as (limits, store):
            before = await limits.admit([charge()])
            # The primary is nowhere: this server answers reads, and refuses writes.
            await store.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
            broken, _ = await admit_many(limits, 20)
            await store.redis.execute_command("REPLICAOF", "NO", "ONE")
            return before, broken, await seconds_until(limits, Mode.EXACT)

    before, broken, back = asyncio.run(main())
    assert before.mode == Mode.EXACT
    assert {answer.mode for answer in broken} == {Mode.LOCAL}
    assert admitted_in(broken) == 9
    assert back < 2.0


def test_lease_bridges_a_short_failure_and_degrades_after_it(own_server):
    async def main():
        async with limits_at(own_server.port, mode="leased", processes=2) as (limits, _):
            one = charge(quota=1_000, window=10.0)
            for _ in range(3):
                await limits.admit([one])
            own_server.kill()
            await asyncio.sleep(0.55)
            return (await admit_many(limits, 1_000, one))[0]

    answers = asyncio.run(main())
    assert {answer.mode for answer in answers} == {Mode.LOCAL}
    assert admitted_in(answers) == 497


@pytest.mark.parametrize("spent", [0, 30, 40])
def test_share_is_full_once_the_process_has_used_it(own_server, spent):
    async def main():
        async with limits_at(own_server.port) as (limits, _):
            await admit_many(limits, spent)
            own_server.kill()
            return (await admit_many(limits, 20))[0]

    assert admitted_in(asyncio.run(main())) == max(0, 10 - spent)


def test_degraded_call_is_charged_by_all_rules_or_none(own_server):
    async def main():
        async with limits_at(own_server.port) as (limits, _):
            own_server.kill()
            both = [await limits.admit([charge("l", 80), charge("s", 8)]) for _ in range(10)]
            return both, await limits.admit([charge("l", 80)])

    both, alone = asyncio.run(main())
    assert admitted_in(both) == 2
    assert {answer.rule for answer in both[2:]} == {"rule s"}
    assert alone.standings[0].remaining == 17


@pytest.mark.parametrize("kind", STORES)
def test_call_that_leaves_is_no_failure_of_the_store(own_server, kind):
    async def main():
        store = kind(own_server.port)
        breaking = BreakingStore(store, budget=5.0)
        limits = SharedLimits(breaking, processes=4)
        await limits.admit([charge()])
        own_server.signal(signal.SIGSTOP)
        for _ in range(10):
            call = asyncio.ensure_future(limits.admit([charge()]))
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        own_server.signal(signal.SIGCONT)
        opened = breaking.is_open
        mode = (await limits.admit([charge()])).mode
        await store.close()
        return opened, mode

    assert asyncio.run(main()) == (False, Mode.EXACT)


@pytest.mark.parametrize("kind", STORES)
def test_waiting_calls_are_bounded(own_server, kind):
    async def main():
        async with limits_at(own_server.port, kind) as (limits, _):
            await limits.admit([charge()])
            own_server.signal(signal.SIGSTOP)
            began = time.monotonic()
            answers = await asyncio.gather(*(limits.admit([charge()]) for _ in range(1_500)))
            return answers, time.monotonic() - began

    answers, spent = asyncio.run(main())
    assert admitted_in(answers) == 9
    assert spent < 2.0
