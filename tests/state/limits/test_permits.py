"""Guards that decide calls by permits that their process holds in advance."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard._fastguard import Agreeing
from mcp_fastguard.errors import GuardFault, LimitDenied
from mcp_fastguard.state.leases import Turn, Turns
from mcp_fastguard.state.limits import Admitted, Charge, Mode, ProcessWindows, SharedLimits
from shared_limits_support import PlainStore, digest, prefix_of, run, state_of
from support import records

LEASED = {"mode": "leased", "rules": [{"name": "mine", "per": "principal", "quota": "100000/minute"}]}


@pytest.fixture
def guard(config, shared_server, tmp_path, request):
    """A guard with leases, whose keys are its own."""
    state = state_of(tmp_path, f"redis://127.0.0.1:{shared_server.port}/0", prefix=prefix_of(request))
    guard = Guard.from_dict({**config, "state": state, "limits": LEASED, "audit": {"path": str(tmp_path / "audit")}})
    yield guard
    guard.close()


def ask(issuer, **claims):
    return ToolRequest.direct(tool="add", arguments={}, token=issuer.token(**claims))


async def warmed(guard, request, times=10):
    """The guard has permits at hand then."""
    for _ in range(times):
        await guard.authorize(request)


def in_a_loop(coroutine, guard):
    """In an event loop of its own, after which the guard lives on."""

    async def whole():
        try:
            return await coroutine
        finally:
            await guard._outside.aclose()

    return asyncio.run(whole())


def test_check_answers_where_permits_are_at_hand_and_needs_authorize_where_not(guard, issuer):
    request = ask(issuer)

    async def walk():
        with pytest.raises(GuardFault) as fault:
            guard.check(request)
        await warmed(guard, request)
        before = guard.state_status()
        call = guard.check(request)
        return fault.value.code, before, call, guard.state_status()

    code, before, call, after = run(walk(), guard)

    assert code == "needs_authorize"
    assert (call.limit, call.remaining) == ("mine", 100_000 - 11)
    # The store was not asked, and the call is among those that it was counted for.
    assert after["asked"] == before["asked"]
    assert after["answers"]["limits", "leased"] == before["answers"]["limits", "leased"] + 1
    assert {record["limits_mode"] for record in records(guard, "decision")} == {"leased"}


def test_check_refuses_what_the_store_has_said_to_be_spent(guard, issuer):
    request = ask(issuer)

    async def spend():
        await warmed(guard, request, 1)
        # The permits at hand are used up first.
        while not isinstance(agreeing := guard.gate.decide(request), Agreeing):
            pass
        asking = guard.gate.permits.begin([Charge(*fields) for fields in agreeing.charges])
        asking.refused(0, 30.0)
        with pytest.raises(LimitDenied) as denied:
            guard.check(request)
        return denied.value

    denied = run(spend(), guard)

    assert (denied.code, denied.spent.rule, denied.spent.quota) == ("quota_spent", "mine", 100_000)
    assert 29.0 < denied.retry_after <= 30.0
    (refused,) = [record for record in records(guard, "decision") if record["result"] == "denied"]
    assert (refused["code"], refused["limits_mode"]) == ("quota_spent", "leased")


def test_event_loops_and_threads_share_the_permits_of_a_process(guard, issuer):
    request = ask(issuer)
    in_a_loop(warmed(guard, request), guard)
    asked = guard.state_status()["asked"]
    found = []

    def check():
        found.append(guard.check(request).remaining)

    async def in_another_loop():
        return (await guard.authorize(request)).remaining

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    found.append(in_a_loop(in_another_loop(), guard))

    assert found == [100_000 - 11, 100_000 - 12]
    assert guard.state_status()["asked"] == asked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_process_begins_without_the_permits_of_its_parent(guard, issuer):
    request = ask(issuer)
    in_a_loop(warmed(guard, request), guard)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = "none"
        try:
            guard.check(request)
        except GuardFault as fault:
            code = fault.code
        finally:
            os.write(writer, code.encode())
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reader, 100) == b"needs_authorize"
    assert guard.check(request).limit == "mine"
    os.close(reader)
    os.close(writer)


def charge(name="a", quota=100_000, window=60.0, cost=1):
    return Charge(f"rule {name}", digest(name), quota, window, cost)


class Holding(PlainStore):
    """Answers when it may."""

    def __init__(self, port):
        super().__init__(port)
        self.flows = asyncio.Event()
        self.flows.set()
        self.trips = 0

    async def run(self, script, keys, args):
        self.trips += 1
        await self.flows.wait()
        return await super().run(script, keys, args)


def test_calls_that_wait_for_one_question_go_on_when_its_caller_leaves(shared_server):
    async def main():
        store = Holding(shared_server.port)
        await store.redis.flushall()
        limits = SharedLimits(store, processes=1, mode="leased")
        store.flows.clear()
        first = asyncio.ensure_future(limits.admit([charge()]))
        others = [asyncio.ensure_future(limits.admit([charge()])) for _ in range(20)]
        await asyncio.sleep(0)
        first.cancel()
        store.flows.set()
        found = await asyncio.gather(*others)
        await store.close()
        return found

    found = asyncio.run(main())
    assert {(type(answer), answer.mode) for answer in found} == {(Admitted, Mode.LEASED)}


def test_question_of_a_loop_that_stands_still_keeps_no_other_loop_waiting(shared_server):
    windows = ProcessWindows(1)
    stands, goes_on = threading.Event(), threading.Event()

    async def still():
        store = Holding(shared_server.port)
        await store.redis.flushall()
        limits = SharedLimits(store, processes=1, mode="leased", windows=windows)
        store.flows.clear()
        asks = asyncio.ensure_future(limits.admit([charge()]))
        while not store.trips:
            await asyncio.sleep(0)
        stands.set()
        goes_on.wait(60)
        store.flows.set()
        found = await asks
        await store.close()
        return found

    async def other():
        store = PlainStore(shared_server.port)
        found = await SharedLimits(store, processes=1, mode="leased", windows=windows).admit([charge()])
        await store.close()
        return found

    answers = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(still())))
    thread.start()
    assert stands.wait(60)
    found = asyncio.run(other())
    goes_on.set()
    thread.join()
    assert (type(found), found.mode) == (Admitted, Mode.LEASED)
    assert isinstance(answers[0], Admitted)


def test_forged_grants_are_refused_beyond_the_quota_of_the_process(shared_server):
    async def main():
        store = PlainStore(shared_server.port)
        limits = SharedLimits(store, processes=1, mode="leased")
        one, found = charge(quota=1_024), []
        while len(found) < 1_100:
            if len(found) % 16 == 0:
                # Whoever can write can reset windows.
                await store.redis.flushall()
            found.append(await limits.admit([one]))
        await store.close()
        return found

    found = asyncio.run(main())
    assert sum(isinstance(answer, Admitted) for answer in found) == 1_024
    assert found[-1].mode == Mode.OVERDRAWN
    assert found[-1].retry_after > 0


def test_share_of_a_degraded_process_lacks_what_its_leases_have_used(shared_server):
    class Failing(PlainStore):
        fails = False

        async def run(self, script, keys, args):
            if self.fails:
                raise OSError("cut off")
            return await super().run(script, keys, args)

    async def main():
        store = Failing(shared_server.port)
        await store.redis.flushall()
        limits = SharedLimits(store, processes=2, mode="leased")
        for _ in range(100):
            await limits.admit([charge(quota=1_000)])
        store.fails = True
        found = [await limits.admit([charge(quota=1_000)]) for _ in range(600)]
        await store.close()
        return found

    found = asyncio.run(main())
    assert sum(isinstance(answer, Admitted) for answer in found) == 400
    assert found[-1].mode == Mode.LOCAL


@pytest.mark.parametrize(
    "charges",
    [
        [charge(cost=0)],
        [charge(quota=-1)],
        [charge(quota=2**32)],
        [charge(window=0.0)],
        [charge(window=float("nan"))],
        [Charge("short", b"short", 1_000, 60.0)],
        [charge(), charge()],
    ],
    ids=["cost", "negative quota", "quota", "window", "no number", "key", "twice"],
)
def test_charge_that_cannot_be_counted_is_misuse(charges):
    limits = SharedLimits(PlainStore(1), processes=1, mode="leased")
    with pytest.raises(ValueError, match=r"cannot be counted|not 16 bytes|same key"):
        asyncio.run(limits.admit(charges))


def test_turn_that_was_given_to_one_who_left_goes_to_the_next():
    turns = Turns()

    async def main():
        behind = turns.join(1)
        with Turn(turns) as turn:
            await turn.wait(1)
            behind_both = turns.join(1)
            turns.next(1)
            assert behind.done()
            turns.next(1)
            assert not behind_both.done()
        assert behind_both.done()

    asyncio.run(main())


def test_those_who_wait_for_one_question_wait_for_the_one_that_is_asked_instead():
    turns = Turns()

    async def main():
        behind = turns.join(1)
        with Turn(turns) as turn:
            await turn.wait(1)
            turn.asks(2)
        turns.next(1)
        assert not behind.done()
        turns.next(2)
        assert behind.done()

    asyncio.run(main())
