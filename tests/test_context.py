"""`current_call()`: the caller inside a tool, in what the tool starts, and not in what outlives the call."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from mcp_fastguard import ToolRequest, current_call
from support import records


def request(issuer, **claims):
    return ToolRequest.direct(tool="run_query", arguments={"sql": "x"}, token=issuer.token(**claims))


def walk(guard, ask, tool):
    async def through():
        async with guard.call(ask) as call:
            return await call.run(tool)

    return asyncio.run(through())


def test_tool_learns_who_calls(make_guard, issuer, config):
    config["issuers"][0]["organisation_claim"] = "org_id"
    guard = make_guard()

    async def tool():
        call = current_call()
        return (
            call.subject,
            call.client_id,
            call.issuer,
            call.organisation,
            call.actor,
            call.scopes,
            call.claims["extra"],
        )

    found = walk(guard, request(issuer, org_id="acme", act={"sub": "bot-1"}, extra=[1, 2]), tool)

    assert found == ("alice", "agent", issuer.issuer, "acme", "bot-1", ("warehouse:query:read",), [1, 2])


def test_tasks_and_threads_that_the_tool_starts_know_the_call(guard, issuer):
    def subject():
        return current_call().subject

    async def in_task():
        return subject()

    async def tool():
        found = [await asyncio.create_task(in_task()), await asyncio.to_thread(subject)]
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: found.append(context.run(subject)))
        thread.start()
        await asyncio.to_thread(thread.join)
        return found

    assert walk(guard, request(issuer), tool) == ["alice"] * 3


def test_task_that_outlives_the_call_knows_no_caller(guard, issuer):
    async def through():
        gate = asyncio.Event()
        left = []

        async def outlive():
            held = current_call()
            await gate.wait()
            with pytest.raises(LookupError):
                current_call()
            with pytest.raises(RuntimeError):
                held.record(rows=1)
            left.append(True)

        tasks = []

        async def tool():
            tasks.append(asyncio.create_task(outlive()))
            await asyncio.sleep(0)

        async with guard.call(request(issuer)) as call:
            await call.run(tool)
        gate.set()
        await tasks[0]
        return left

    assert asyncio.run(through()) == [True]


def test_two_calls_at_once_do_not_meet(guard, issuer):
    async def through():
        async def one(subject):
            async def tool():
                await asyncio.sleep(0)
                return current_call().subject

            async with guard.call(request(issuer, sub=subject)) as call:
                return await call.run(tool)

        return await asyncio.gather(*(one(f"user-{number}") for number in range(20)))

    assert asyncio.run(through()) == [f"user-{number}" for number in range(20)]


def test_outside_of_a_call_there_is_no_caller():
    with pytest.raises(LookupError):
        current_call()


def test_what_the_tool_records_stands_in_the_ending(guard, issuer):
    async def tool():
        current_call().record(rows=40, bytes_scanned=1_000)
        await asyncio.to_thread(lambda: current_call().record(rows=7))
        with pytest.raises(ValueError, match="negative"):
            current_call().record(rows=-1)

    walk(guard, request(issuer), tool)

    ending = next(record for record in records(guard) if record["event_type"] == "ending")
    assert ending["output_summary"]["rows"] == 47
    assert ending["output_summary"]["bytes"] == 1_000
