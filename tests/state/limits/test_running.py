"""Calls that run in several processes at once: never more than may, whatever becomes of a process."""

from __future__ import annotations

import json
import time

import pytest

from process_support import run, start
from shared_limits_support import prefix_of, state_of

#: What runs when, by the clock that all processes have.
WORKER = """
limit, seconds, token = given
guard = Guard.from_dict(config)
runs, codes = [], set()

async def caller(number, until):
    # On a busy machine for longer, until this process has had its part.
    while time.monotonic() < until or len(runs) < 30 and time.monotonic() < until + 40:
        try:
            async with guard.call(request(token)):
                began = time.monotonic()
                await asyncio.sleep(0.001 * (number % 7))
                runs.append((began, time.monotonic()))
        except Denied as denied:
            codes.add(denied.code)
            await asyncio.sleep(0.002)

async def main():
    until = time.monotonic() + seconds
    await asyncio.gather(*(caller(number, until) for number in range(2 * limit)))
    await guard.aclose()

asyncio.run(main())
tell(runs=runs, codes=sorted(codes))
"""

HOLDER = """
guard = Guard.from_dict(config)

async def main():
    calls = [await guard.call(request(given[1])).__aenter__() for _ in range(given[0])]
    tell(holds=len(calls))
    if given[2]:
        # As a tool does that is no coroutine: the event loop stands still.
        time.sleep(given[2])
    else:
        await asyncio.sleep(600)

asyncio.run(main())
"""

#: A call is tried until it passes, or for so many seconds.
TRIER = """
guard = Guard.from_dict(config)

async def main():
    began = time.monotonic()
    refused = 0
    while time.monotonic() - began < given[1]:
        try:
            async with guard.call(request(given[0])):
                break
        except Denied as denied:
            assert denied.code == "concurrency_spent"
            refused += 1
        await asyncio.sleep(0.05)
    else:
        began = None
    await guard.aclose()
    tell(refused=refused, after=began and time.monotonic() - began)

asyncio.run(main())
"""

#: A process that forks while its call runs. The child's calls are its own, and the parent's stay the parent's.
FORKER = """
token, = given
guard = Guard.from_dict(config)

async def tried(count):
    calls, codes = [], []
    for _ in range(count):
        try:
            calls.append(await guard.call(request(token)).__aenter__())
            codes.append("allowed")
        except Denied as denied:
            codes.append(denied.code)
    for call in calls:
        await call.__aexit__(None, None, None)
    return codes

loop = asyncio.new_event_loop()
call = loop.run_until_complete(guard.call(request(token)).__aenter__())
reads, writes = os.pipe()
child = os.fork()
if child == 0:
    os.write(writes, json.dumps(asyncio.run(tried(2))).encode())
    os._exit(0)
os.waitpid(child, 0)
in_child = json.loads(os.read(reads, 1_000))
in_parent = loop.run_until_complete(tried(2))
loop.run_until_complete(call.__aexit__(None, None, None))
after = loop.run_until_complete(tried(3))
loop.run_until_complete(guard.aclose())
loop.close()
tell(in_child=in_child, in_parent=in_parent, after=after)
"""

#: Places that come back sooner, so that the test is not long.
SHORT = """
import mcp_fastguard.state.places as places
places.LIFETIME, places.HOLD_EVERY = 6.0, 0.5
"""


@pytest.fixture
def of_processes(config, shared_server, tmp_path, request, issuer):
    """Configurations of several processes, and a token."""

    def build(concurrent, count):
        state = state_of(tmp_path, f"redis://127.0.0.1:{shared_server.port}/0", count, prefix=prefix_of(request))
        limits = {"rules": [{"name": "at once", "per": "everyone", "concurrent": concurrent}]}
        audit = {"enabled": False}
        return {**config, "state": state, "limits": limits, "audit": audit}, issuer.token()

    return build


def told(process):
    output, complaints = process.communicate(timeout=90)
    assert process.returncode == 0, complaints
    return json.loads(output.splitlines()[-1])


def end(process):
    process.kill()
    process.communicate()


def most_at_once(runs):
    """The oracle: how many of the intervals overlap at most."""
    steps = sorted([(began, 1) for began, _ in runs] + [(ended, -1) for _, ended in runs])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def test_never_more_run_in_all_processes_than_may(of_processes):
    config, token = of_processes(5, 4)
    workers = [start(WORKER, config, [5, 3.0, token]) for _ in range(4)]
    found = [told(worker) for worker in workers]

    runs = [run for each in found for run in each["runs"]]
    assert most_at_once(runs) == 5
    assert len(runs) > 100
    assert {code for each in found for code in each["codes"]} == {"concurrency_spent"}


def test_places_of_a_killed_process_come_back_and_not_before_their_time(of_processes):
    config, token = of_processes(3, 2)
    holder = start(HOLDER, config, [3, token, 0], before=SHORT)
    try:
        assert json.loads(holder.stdout.readline()) == {"holds": 3}
        # Longer than a place is remembered whose process says nothing.
        trier = told(start(TRIER, config, [token, 8.0], before=SHORT))
        assert trier["after"] is None
    finally:
        end(holder)
    killed_at = time.monotonic()

    found = told(start(TRIER, config, [token, 60.0], before=SHORT))

    assert found["refused"] > 0
    assert found["after"] is not None
    assert time.monotonic() - killed_at > 3.0


def test_place_is_held_while_a_tool_holds_the_event_loop(of_processes):
    config, token = of_processes(1, 2)
    holder = start(HOLDER, config, [1, token, 9.0], before=SHORT)
    try:
        assert json.loads(holder.stdout.readline()) == {"holds": 1}
        assert told(start(TRIER, config, [token, 7.5], before=SHORT))["after"] is None
    finally:
        end(holder)


def test_child_of_a_fork_neither_holds_nor_frees_the_places_of_its_parent(of_processes):
    config, token = of_processes(2, 2)
    found = run(FORKER, config, [token])

    assert found == {
        "in_child": ["allowed", "concurrency_spent"],
        "in_parent": ["allowed", "concurrency_spent"],
        "after": ["allowed", "allowed", "concurrency_spent"],
    }
