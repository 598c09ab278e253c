"""Who is told of which decision, and what they learn."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from mcp_fastguard import Denied, Guard, GuardError, GuardFault, ToolRequest
from mcp_fastguard.listeners import Listeners, Timing
from support import Issuer, records

pytestmark = pytest.mark.anyio


def direct(tool: str, token: str | None) -> ToolRequest:
    return ToolRequest.direct(tool=tool, token=token)


async def answer(guard: Guard, token: str | None, *, path: str = "/mcp", **message: Any) -> int:
    """The status with which the ASGI layer answers one message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    body = json.dumps({"jsonrpc": "2.0", "id": 1, **message}).encode()
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(guard.asgi(app)), base_url="https://mcp.example.com"
    ) as client:
        response = await client.post(path, content=body, headers=headers)
    return response.status_code


def test_timed_listener_gets_the_time_of_the_gate(guard: Guard, issuer: Issuer) -> None:
    told: list[tuple[Any, Timing]] = []
    guard.on_timed_decision(lambda decision, timing: told.append((decision, timing)))
    allowed = guard.check(direct("add", issuer.token()))
    [(decision, timing)] = told
    assert decision is allowed
    assert timing.duration is not None
    assert 0 < timing.duration < 1
    assert timing.waited == 0


def test_plain_listener_alone_measures_nothing(guard: Guard, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_fastguard.listeners.perf_counter_ns", lambda: pytest.fail("the clock was read"))
    told: list[Any] = []
    guard.on_decision(told.append)
    guard.check(direct("add", issuer.token()))
    assert len(told) == 1


def test_guard_without_listeners_checks_in_the_gate_itself(guard: Guard) -> None:
    assert guard.check == guard.gate.check


async def test_listener_that_raises_changes_no_decision(
    guard: Guard, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a listener's own mistake")

    guard.on_decision(broken)
    guard.on_timed_decision(broken)
    told: list[Any] = []
    guard.on_decision(told.append)
    allowed = guard.check(direct("add", issuer.token()))
    with pytest.raises(Denied) as denied:
        await guard.authorize(direct("secret", issuer.token()))
    assert told == [allowed, denied.value]
    assert [record.getMessage() for record in caplog.records] == ["a listener of decisions failed"] * 4


async def test_decision_of_authorize_is_told_once(guard: Guard, issuer: Issuer) -> None:
    told: list[Any] = []
    guard.on_decision(told.append)
    allowed = await guard.authorize(direct("add", issuer.token()))
    assert told == [allowed]


async def test_token_that_died_before_the_tool_ran_is_told_after_the_decision(guard: Guard, issuer: Issuer) -> None:
    told: list[Any] = []
    guard.on_timed_decision(lambda decision, timing: told.append((decision, timing)))

    async def tool() -> None:
        pytest.fail("the token was revoked")

    call = guard.call(direct("add", issuer.token()))
    await call.authorize()
    await call.settle()
    guard.revoke(subject="alice")
    with pytest.raises(Denied):
        await call.run(tool)
    call.close()
    (allowed, _), (denied, timing) = told
    assert denied.code == "token_revoked"
    assert (denied.tool, denied.subject, denied.client_id, denied.record) == ("add", "alice", "agent", allowed.record)
    assert timing.duration is None


async def test_refusal_by_approval_is_told(guard: Guard, issuer: Issuer) -> None:
    told: list[Any] = []
    guard.on_decision(told.append)
    with pytest.raises(Denied):
        await guard.authorize(direct("ask", issuer.token()))
    assert [(denied.code, denied.tool) for denied in told] == [("approval_required", "ask")]


async def test_refusal_of_a_synchronous_check_names_what_was_asked_for(guard: Guard, issuer: Issuer) -> None:
    told: list[Any] = []
    guard.on_decision(told.append)
    with pytest.raises(Denied):
        guard.check(direct("secret", issuer.token()))
    with pytest.raises(Denied):
        guard.check(direct("secret", "x.y.z"))
    assert [(denied.code, denied.tool) for denied in told] == [
        ("scope_insufficient", "secret"),
        ("token_malformed", None),
    ]


async def test_nested_call_is_told_with_the_caller(guard: Guard, issuer: Issuer) -> None:
    told: list[Any] = []
    guard.on_decision(told.append)
    async with guard.call(direct("add", issuer.token())) as call:
        with pytest.raises(Denied):
            await call.nested(direct("secret", None))
    denied = told[-1]
    assert (denied.code, denied.tool, denied.subject) == ("scope_insufficient", "secret", "alice")
    # Its own, and not that of the call it ran in.
    assert denied.record_id == records(guard, "decision")[-1]["id"]


@pytest.mark.parametrize(
    ("params", "code", "expected"),
    [
        ({"name": "secret", "arguments": {}}, "scope_insufficient", ("tools/call", "secret")),
        ({"name": "nowhere", "arguments": {}}, "target_unknown", ("tools/call", "nowhere")),
        ({"name": "secret", "arguments": {"long": "x" * 70_000}}, "scope_insufficient", (None, None)),
    ],
)
async def test_refusal_of_the_asgi_layer_names_what_was_asked_for(
    guard: Guard, issuer: Issuer, params: dict[str, Any], code: str, expected: tuple[str | None, str | None]
) -> None:
    told: list[GuardError] = []
    guard.on_decision(told.append)  # type: ignore[arg-type]
    assert await answer(guard, issuer.token(), method="tools/call", params=params) == 403
    [denied] = told
    assert isinstance(denied, Denied)
    assert denied.code == code
    assert (denied.method, denied.target) == expected


async def test_what_a_caller_without_token_asked_for_is_not_told(guard: Guard) -> None:
    told: list[Any] = []
    guard.on_decision(told.append)
    assert await answer(guard, "x.y.z", method="tools/call", params={"name": "secret"}) == 401
    [denied] = told
    assert (denied.method, denied.target, denied.tool) == (None, None, None)


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        (lambda guard, token: answer(guard, token, path="/elsewhere"), 404, "path_unknown"),
        (lambda guard, token: answer(guard, token, method="tools/list"), 500, "middleware_missing"),
        (lambda guard, token: answer(guard, "x" * 10, junk="x" * 70_000), 401, "token_malformed"),
        (lambda guard, token: answer(guard, token, junk="x" * (4 << 20)), 413, "body_too_large"),
    ],
)
async def test_refusal_of_the_layer_itself_is_told(
    guard: Guard, issuer: Issuer, make: Callable[..., Any], status: int, code: str
) -> None:
    told: list[Any] = []
    guard.gate.add_rule("method", "tools/list", scopes=[], any_scopes=[], is_open=True, tier="auto")
    guard.on_decision(told.append)
    assert await make(guard, issuer.token()) == status
    assert told[-1].code == code


async def test_call_that_no_layer_has_seen_is_told(guard: Guard) -> None:
    from mcp_fastguard.transport.messages import MessageLayer

    told: list[Any] = []
    guard.on_decision(told.append)
    with pytest.raises(GuardFault):
        await MessageLayer(guard, "http").begin("tools/call", {"name": "add"}, 1, None)
    assert told[0].code == "call_unproved"


def test_what_is_known_of_a_refused_call_survives_pickling() -> None:
    error = Denied("scope_insufficient", "a scope is missing")
    error.method, error.target = "tools/call", "secret"
    assert pickle.loads(pickle.dumps(error)).tool == "secret"


def test_time_between_two_looks_of_the_gate_was_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_000, 2_000, 5_000_001_000, 5_000_004_000])
    monkeypatch.setattr("mcp_fastguard.listeners.perf_counter_ns", lambda: next(times))
    told: list[Timing] = []
    listeners = Listeners()
    listeners.add_timed(lambda _, timing: told.append(timing))
    telling = listeners.telling()
    telling.measured(lambda: None)
    telling.measured(lambda: None)
    telling.tell(GuardFault("internal"))
    assert told == [Timing(duration=3e-6, waited=5.0)]


async def test_refusal_on_standard_input_names_what_was_asked_for(
    make_guard: Callable[..., Guard], issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_fastguard.transport.messages import MessageLayer

    monkeypatch.setenv("FASTGUARD_TEST_TOKEN", issuer.token())
    guard = make_guard(stdio={"token_variable": "FASTGUARD_TEST_TOKEN"})
    told: list[Any] = []
    guard.on_decision(told.append)
    with pytest.raises(Denied):
        await MessageLayer(guard, "stdio").begin("tools/call", {"name": "secret", "arguments": {}}, 1, None)
    assert [(denied.code, denied.tool) for denied in told] == [("scope_insufficient", "secret")]
