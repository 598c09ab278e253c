"""Mode leased on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

import pytest

from mcp_fastguard.state.limits import Admitted, Charge, Mode, Refused, SharedLimits
from shared_limits_support import PlainStore, digest, hammer, most_in_any_window


class Counting(PlainStore):
    """Counts round trips, and may fail."""

    def __init__(self, port):
        super().__init__(port)
        self.trips = 0
        self.fails = False

    async def run(self, script, keys, args):
        self.trips += 1
        if self.fails:
            raise OSError("cut off")
        return await super().run(script, keys, args)


@contextlib.asynccontextmanager
async def leased_on(server, *, processes=1, count=1):
    store = Counting(server.port)
    await store.redis.flushall()
    try:
        yield [SharedLimits(store, processes=processes, mode="leased") for _ in range(count)], store
    finally:
        await store.close()


def charge(name="a", quota=1_000, window=60.0, cost=1):
    return Charge(f"rule {name}", digest(name), quota, window, cost)


def test_round_trips_are_few_and_the_quota_is_used_up(shared_server):
    async def main():
        async with leased_on(shared_server) as ([limits], store):
            answers = [await limits.admit([charge()]) for _ in range(1_010)]
            return answers, store.trips

    answers, trips = asyncio.run(main())
    assert [type(answer) for answer in answers] == [Admitted] * 1_000 + [Refused] * 10
    assert {answer.mode for answer in answers} == {Mode.LEASED}
    assert trips < 60
    # A permit counts for a window and a lease, and is given back a 64th late.
    assert 60.0 < answers[-1].retry_after <= 60.0 * 1.05 * 65 / 64


def test_two_processes_share_one_quota(shared_server):
    async def main():
        async with leased_on(shared_server, processes=2, count=2) as (both, _):
            answers = [await limits.admit([charge()]) for _ in range(700) for limits in both]
            return sum(isinstance(answer, Admitted) for answer in answers)

    assert 950 <= asyncio.run(main()) <= 1_000


def test_calls_at_the_same_time_ask_once(shared_server):
    async def main():
        async with leased_on(shared_server) as ([limits], store):
            for _ in range(60):
                await limits.admit([charge()])
            before = store.trips
            await asyncio.gather(*(limits.admit([charge("b", quota=100_000)]) for _ in range(40)))
            return store.trips - before

    assert asyncio.run(main()) <= 8


@pytest.mark.parametrize(
    ("quota", "window", "leased"), [(1_023, 60.0, False), (1_024, 60.0, True), (1_024, 9.9, False), (1_024, 10.0, True)]
)
def test_rules_too_small_for_leases_run_exact_and_say_so(shared_server, quota, window, leased):
    async def main():
        async with leased_on(shared_server, processes=8) as ([limits], _):
            assert limits.is_leased(quota, window) == leased
            return (await limits.admit([charge(quota=quota, window=window)])).mode

    assert asyncio.run(main()) == (Mode.LEASED if leased else Mode.EXACT)


def test_rule_that_refuses_takes_no_permits_of_the_others(shared_server):
    async def main():
        async with leased_on(shared_server) as ([limits], _):
            large, small = charge("l"), charge("s", quota=2)
            answers = [await limits.admit([large, small]) for _ in range(20)]
            alone = [await limits.admit([large]) for _ in range(1_010)]
            return answers, sum(isinstance(answer, Admitted) for answer in alone)

    answers, alone = asyncio.run(main())
    assert [type(answer) for answer in answers] == [Admitted] * 2 + [Refused] * 18
    assert answers[-1].rule == "rule s"
    assert alone == 998


def test_permit_is_not_used_after_its_lease_has_ended(shared_server):
    async def main():
        async with leased_on(shared_server) as ([limits], store):
            for _ in range(4):
                await limits.admit([charge(window=10.0)])
            store.fails = True
            under_lease = await limits.admit([charge(window=10.0)])
            await asyncio.sleep(0.51)
            return under_lease, await limits.admit([charge(window=10.0)])

    under_lease, after = asyncio.run(main())
    assert under_lease.mode == Mode.LEASED
    assert after.mode == Mode.LOCAL


def test_what_was_not_used_is_given_back(shared_server):
    async def main():
        async with leased_on(shared_server) as ([limits], _):
            for _ in range(200):
                await limits.admit([charge(window=10.0)])
            await asyncio.sleep(0.51)
            return [await limits.admit([charge(window=10.0)]) for _ in range(805)]

    answers = asyncio.run(main())
    assert sum(isinstance(answer, Admitted) for answer in answers) == 800


def test_killed_process_takes_its_permits_along_and_buys_nobody_any(shared_server):
    program = """
import asyncio, sys
from mcp_fastguard.state.limits import SharedLimits, Charge
from shared_limits_support import PlainStore, digest
async def main():
    limits = SharedLimits(PlainStore(int(sys.argv[1])), processes=2, mode="leased")
    for _ in range(100):
        await limits.admit([Charge("rule a", digest("a"), 1_000, 60.0)])
    print("used", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""

    async def main():
        async with leased_on(shared_server, processes=2) as ([limits], _):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            command = [sys.executable, "-c", program, str(shared_server.port)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
                assert other.stdout.readline() == b"used\n"
                other.kill()
            answers = [await limits.admit([charge()]) for _ in range(1_000)]
            return sum(isinstance(answer, Admitted) for answer in answers)

    # The other used 100, and had at most one lease's worth in hand: 1000 / 32.
    assert 1_000 - 100 - 31 <= asyncio.run(main()) <= 900


def test_eight_processes_under_uneven_load_use_nine_tenths_and_never_exceed_the_quota(shared_server):
    told = hammer(shared_server.port, "leased", "2048", "10.0", "12.0")

    # A call is used between its sending and its answer: where both lie within a window, so does the call.
    calls = sorted(tuple(call) for each in told for call in each["admitted"])
    begin = calls[0][0]
    assert sum(answered < begin + 10.0 for _, answered in calls) >= 0.9 * 2_048
    assert most_in_any_window([answered for sent, answered in calls if answered - sent < 0.02], 10.0 - 0.02) <= 2_048
    assert {mode for each in told for mode in each["modes"]} == {"leased"}
