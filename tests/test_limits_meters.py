"""Quotas of what results have: charged when a call has ended, and held against the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mcp_fastguard import GuardFault, ToolRequest, current_call
from mcp_fastguard.errors import LimitDenied
from mcp_fastguard.testing import Caller
from mcp_fastguard.transport.challenge import http_answer, rpc_error

ALICE, BOB = Caller(subject="alice"), Caller(subject="bob")


@pytest.fixture
def guard_of(fastguard_guard, config) -> Callable[..., Any]:
    """A guard of one metered rule, whose time is the test's."""

    def build(*rules: dict[str, Any], **tables: Any) -> Any:
        return fastguard_guard(
            {**config, "limits": {"rules": [{"name": "metered", **rule} for rule in rules]}, **tables}
        )

    return build


def rows(quota: str, **more: Any) -> dict[str, Any]:
    return {"per": "principal", "meter": "rows", "quota": quota, **more}


def call_of(guard: Any, caller: Caller = ALICE, tool: str = "add") -> Any:
    return guard.call(ToolRequest.direct(tool=tool, arguments={}, token=guard.token_of(caller)))


def called(guard: Any, caller: Caller = ALICE, *, tool: str = "add", result: Any = None, **noted: int) -> None:
    """One call whose tool notes something, or whose result has it."""

    async def run() -> Any:
        if noted:
            current_call().record(**noted)
        return result

    async def walk() -> None:
        async with call_of(guard, caller, tool) as call:
            call.finish(await call.run(run))

    asyncio.run(walk())


def refused(guard: Any, *given: Any, **named: Any) -> LimitDenied:
    with pytest.raises(LimitDenied) as denied:
        called(guard, *given, **named)
    assert denied.value.code == "quota_spent"
    return denied.value


def test_next_call_is_refused_once_the_quota_is_spent(guard_of):
    guard = guard_of(rows("100/minute"))

    called(guard, rows=60)
    called(guard, rows=39)
    called(guard, rows=1)
    refused(guard)
    called(guard, BOB)


def test_last_call_alone_overdraws_and_is_paid_for_in_full(guard_of):
    guard = guard_of(rows("100/minute"))

    called(guard, rows=99)
    called(guard, rows=100_000)
    assert refused(guard).spent == ("metered", 100, 60.0, 0, "rows")
    guard.clock.advance(59.0)
    refused(guard)
    guard.clock.advance(2.0)
    called(guard)


def test_calls_that_run_together_may_all_overdraw_and_none_after_them(guard_of):
    guard = guard_of(rows("10/minute"))

    async def walk() -> None:
        calls = [call_of(guard) for _ in range(3)]
        for call in calls:
            await call.__aenter__()
        for call in calls:
            call.note(rows=10)
            call.close()

    asyncio.run(walk())
    refused(guard)


def test_call_after_exactly_retry_after_is_admitted_and_a_little_earlier_is_not(guard_of):
    guard = guard_of(rows("100/minute"))
    called(guard, rows=40)
    guard.clock.advance(30.0)
    called(guard, rows=500)
    wait = refused(guard).retry_after
    assert wait is not None

    guard.clock.advance(wait - 0.01)
    refused(guard)
    guard.clock.advance(0.02)
    called(guard)


def test_result_is_counted_where_the_tool_notes_nothing(guard_of):
    guard = guard_of(rows("3/minute"))

    called(guard, result={"content": [], "structuredContent": {"rows": [1, 2, 3]}})
    refused(guard)


def test_bytes_are_the_size_of_the_content(guard_of):
    guard = guard_of({"per": "principal", "meter": "bytes", "quota": "10/minute"})

    called(guard, result={"content": [{"type": "text", "text": "123456789"}]})
    called(guard, result={"content": [{"type": "text", "text": "0"}]})
    refused(guard)


def test_tool_that_fails_is_charged_what_it_has_noted(guard_of):
    guard = guard_of(rows("5/minute"))

    async def run() -> None:
        current_call().record(rows=5)
        raise RuntimeError

    async def walk() -> None:
        async with call_of(guard) as call:
            await call.run(run)

    with pytest.raises(RuntimeError):
        asyncio.run(walk())
    refused(guard)


def test_ending_is_charged_once(guard_of):
    guard = guard_of(rows("10/minute"))

    async def walk() -> None:
        call = await call_of(guard).__aenter__()
        call.note(rows=5)
        call.close()
        guard.gate.finish(call.proof, status="ok", duration=0.0, rows=5)

    asyncio.run(walk())
    called(guard)


def test_refused_calls_are_charged_nothing_and_spend_no_other_quota(guard_of):
    guard = guard_of(rows("1/minute"), {"name": "calls", "per": "principal", "quota": "2/minute"})

    called(guard, rows=1)
    for _ in range(3):
        refused(guard)
    guard.clock.advance(61.0)
    called(guard)
    called(guard)


def test_remaining_counts_calls_and_no_rows(guard_of):
    guard = guard_of(rows("5/minute"), {"name": "calls", "per": "principal", "quota": "9/minute"})

    async def remaining() -> tuple[int | None, str | None]:
        async with call_of(guard) as call:
            return call.proof.remaining, call.proof.limit

    assert asyncio.run(remaining()) == (8, "calls")


def test_meter_of_a_tool_counts_that_tool_alone(guard_of):
    guard = guard_of(rows("1/minute", tool="run_query"))

    called(guard, rows=50)
    called(guard)


def test_several_windows_of_a_meter_all_hold(guard_of):
    guard = guard_of(rows(["10/s", "15/minute"]))

    called(guard, rows=10)
    refused(guard)
    guard.clock.advance(2.0)
    called(guard, rows=10)
    guard.clock.advance(2.0)
    assert refused(guard).spent.window == 60.0


def test_answer_names_the_unit(guard_of):
    guard = guard_of({"per": "principal", "meter": "bytes", "quota": "1/minute"})
    called(guard, bytes_scanned=1)
    denied = refused(guard)

    assert dict(http_answer(denied, None)[1])[b"ratelimit-policy"] == b'"metered";q=1;qu="content-bytes";w=60'
    assert rpc_error(denied)[2]["limit"]["unit"] == "bytes"


def test_check_tells_of_no_ending_and_is_not_decided(guard_of):
    guard = guard_of(rows("1/minute"))
    with pytest.raises(GuardFault) as fault:
        guard.check(ToolRequest.direct(tool="add", arguments={}, token=guard.token_of(ALICE)))

    assert fault.value.code == "needs_call"


def test_count_beyond_all_quotas_is_held_until_it_is_over(guard_of):
    guard = guard_of(rows("4294967295/minute"))

    called(guard, rows=2**63)
    refused(guard)
    guard.clock.advance(61.0)
    called(guard)


# --- several requests for one call -----------------------------------------------------------------


def test_every_round_of_one_call_is_a_call_and_charged_as_one(guard_of):
    """MCP 2026-07-28, multi round-trip requests: a tool that asks for something first is called again, with a new id."""
    guard = guard_of(
        {"name": "calls", "per": "principal", "quota": "9/minute"},
        {"name": "at once", "per": "principal", "concurrent": 1},
        rows("3/minute"),
    )

    async def walk() -> None:
        first = {"name": "add", "arguments": {}}
        again = {**first, "inputResponses": {"a": {"action": "accept"}}, "requestState": "opaque"}
        asks = {"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create", "params": {}}}}
        answers = {"content": [], "structuredContent": {"rows": [1, 2, 3]}}
        for number, (params, result) in enumerate([(first, asks), (again, answers)]):
            request = ToolRequest.message(method="tools/call", params=params, id=number, token=guard.token_of(ALICE))
            async with guard.call(request) as call:
                assert call.proof.remaining == 8 - number
                call.finish(result)

    asyncio.run(walk())
    # The place of the first round was free for the second, and the rows came with the second.
    assert [record["status"] for record in guard.records() if record["event_type"] == "ending"] == [
        "input_required",
        "ok",
    ]
    assert refused(guard).spent == ("metered", 3, 60.0, 0, "rows")
