"""How many calls may run at once: a place is taken when all rooms pass, and is free when the tool has ended."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from mcp_fastguard import Denied, Guard, GuardFault, ToolRequest
from mcp_fastguard.errors import GuardConfigError, LimitDenied
from mcp_fastguard.transport.challenge import http_answer
from mcp_fastguard.transport.messages import MessageLayer
from support import RESOURCE, records
from transport_support import BASE, headers, message

NAMED = {"name": "at once", "per": "principal"}


@pytest.fixture
def guard_of(make_guard: Callable[..., Guard]) -> Callable[..., Guard]:
    def build(*rules: dict[str, Any], **tables: Any) -> Guard:
        return make_guard(limits={"rules": list(rules or ({**NAMED, "concurrent": 2},))}, **tables)

    return build


@pytest.fixture
def begun(issuer):
    """Begins a call; whoever asks ends it."""

    async def begin(guard: Guard, tool: str = "add", **claims: Any) -> Any:
        call = guard.call(ToolRequest.direct(tool=tool, arguments={}, token=issuer.token(**claims)))
        return await call.__aenter__()

    return begin


@pytest.fixture
def refused(begun):
    async def refuse(guard: Guard, *given: Any, **claims: Any) -> Denied:
        with pytest.raises(LimitDenied) as denied:
            await begun(guard, *given, **claims)
        assert denied.value.code == "concurrency_spent"
        return denied.value

    return refuse


def test_call_beyond_those_that_run_is_refused_until_one_ends(guard_of, begun, refused):
    guard = guard_of()

    async def walk():
        first, second = await begun(guard), await begun(guard)
        await refused(guard)
        first.close()
        third = await begun(guard)
        await refused(guard)
        # Another ending of the same call frees nothing more.
        first.close()
        await refused(guard)
        second.close(), third.close()

    asyncio.run(walk())


def test_refusal_is_429_and_names_no_time_since_none_helps(guard_of, begun, refused):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        with_place = await begun(guard)
        denied = await refused(guard)
        with_place.close()
        return denied

    denied = asyncio.run(walk())
    status, fields, _ = http_answer(denied, None)
    assert (status, denied.retry_after, denied.spent, denied.config_key) == (429, None, None, "limits.rules")
    assert b"retry-after" not in dict(fields)
    assert "1 calls of `at once` run already" in denied.detail
    assert [record.get("code") for record in records(guard, "decision")] == [None, "concurrency_spent"]


def test_no_call_runs_at_once_where_none_may(guard_of, refused):
    asyncio.run(refused(guard_of({**NAMED, "concurrent": 0})))


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ({"per": "principal"}, {"sub": "bob"}),
        ({"per": "tool"}, {"tool": "run_query"}),
        ({"per": "client"}, {"client_id": "b"}),
        ({"per": ["client", "tool"]}, {"tool": "run_query"}),
        ({"per": "everyone"}, None),
        ({"per": "everyone", "tool": "add"}, {"tool": "run_query"}),
    ],
)
def test_words_of_per_divide_the_places(guard_of, begun, refused, rule, other):
    guard = guard_of({**rule, "concurrent": 1})

    async def walk():
        calls = [await begun(guard)]
        await refused(guard)
        if other is None:
            await refused(guard, sub="bob", client_id="b")
        else:
            calls.append(await begun(guard, **other))
        for call in calls:
            call.close()

    asyncio.run(walk())


def test_most_specific_rule_of_a_tool_says_how_many(guard_of, begun, refused):
    guard = guard_of({"per": "tool", "concurrent": 1}, {"per": "tool", "tool": "run_*", "concurrent": 2})

    async def walk():
        calls = [await begun(guard), await begun(guard, "run_query"), await begun(guard, "run_query")]
        await refused(guard)
        await refused(guard, "run_query")
        for call in calls:
            call.close()

    asyncio.run(walk())


def test_only_tools_take_places(guard_of, issuer):
    guard = guard_of({**NAMED, "concurrent": 0})
    request = ToolRequest.message(method="ping", params=None, id=1, token=issuer.token())

    assert guard.check(request).owes is False


def test_call_that_a_quota_refuses_takes_no_place_and_one_without_place_is_charged_nothing(guard_of, begun, refused):
    guard = guard_of({**NAMED, "concurrent": 1}, {"per": "principal", "quota": "2/minute"})

    async def walk():
        first = await begun(guard)
        await refused(guard)
        first.close()
        second = await begun(guard)
        assert second.proof.remaining == 0
        second.close()
        for _ in range(2):
            with pytest.raises(LimitDenied) as denied:
                await begun(guard)
            assert denied.value.code == "quota_spent"

    asyncio.run(walk())


@pytest.mark.parametrize("tool", ["secret", "never", "ask"])
def test_call_that_a_later_room_refuses_keeps_no_place(guard_of, begun, tool):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        for _ in range(3):
            with pytest.raises(Denied) as denied:
                await begun(guard, tool)
            assert denied.value.code != "concurrency_spent"
        (await begun(guard)).close()

    asyncio.run(walk())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError])
def test_tool_that_raises_frees_its_place(guard_of, issuer, begun, error):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def tool():
        raise error

    async def walk():
        call = guard.call(ToolRequest.direct(tool="add", arguments={}, token=issuer.token()))
        try:
            async with call:
                await call.run(tool)
        except error:
            pass
        (await begun(guard)).close()

    asyncio.run(walk())


def test_tool_that_is_cancelled_keeps_its_place_until_it_has_ended(guard_of, issuer, begun, refused):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        begins, ends = asyncio.Event(), asyncio.Event()

        async def tool():
            begins.set()
            try:
                await asyncio.Event().wait()
            finally:
                await ends.wait()

        async def whole():
            async with guard.call(ToolRequest.direct(tool="add", arguments={}, token=issuer.token())) as call:
                await call.run(tool)

        task = asyncio.ensure_future(whole())
        await begins.wait()
        task.cancel()
        await asyncio.sleep(0)
        await refused(guard)
        ends.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        (await begun(guard)).close()

    asyncio.run(walk())


def test_call_that_nobody_has_any_more_frees_its_place(guard_of, begun):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        await begun(guard)
        gc.collect()
        (await begun(guard)).close()

    asyncio.run(walk())


def test_ending_that_fails_frees_the_place_with_the_call(guard_of, begun, refused):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        call = await begun(guard)
        with pytest.raises(OverflowError):
            guard.gate.finish(call.proof, status="ok", duration=0.0, rows=-1)
        await refused(guard)
        del call
        gc.collect()
        (await begun(guard)).close()

    asyncio.run(walk())


def test_check_and_authorize_tell_of_no_ending_and_are_not_decided(guard_of, issuer, begun):
    guard = guard_of({**NAMED, "concurrent": 1}, {"per": "principal", "quota": "1/minute"})
    request = ToolRequest.direct(tool="add", arguments={}, token=issuer.token())

    with pytest.raises(GuardFault) as checked:
        guard.check(request)
    with pytest.raises(GuardFault) as authorized:
        asyncio.run(guard.authorize(request))

    assert checked.value.code == authorized.value.code == "needs_call"
    assert "at once" in str(checked.value)

    async def walk():
        # Nothing was charged.
        (await begun(guard)).close()

    asyncio.run(walk())


def test_tools_that_no_such_rule_counts_are_checked_as_ever(guard_of, issuer):
    guard = guard_of({**NAMED, "tool": "run_query", "concurrent": 1})

    assert guard.check(ToolRequest.direct(tool="add", arguments={}, token=issuer.token())).owes is False


def test_call_within_a_call_takes_a_place_of_its_own(guard_of, issuer, begun, refused):
    guard = guard_of()

    async def walk():
        outer = await begun(guard)
        request = ToolRequest.message(method="tools/call", params={"name": "add", "arguments": {}}, id=2)
        inner = await outer.nested(request)
        await refused(guard)
        inner.close()
        (await begun(guard)).close()
        outer.close()

    asyncio.run(walk())


class Server:
    """An app whose message layer runs each tool in a task of its own, which outlives its request, as those of the SDKs may."""

    def __init__(self, guard: Guard, *, is_attached: bool = True, takes: bool = True) -> None:
        self.messages = MessageLayer(guard, "http") if is_attached else None
        self.takes = takes
        self.ends = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []
        self.within: Callable[[], Any] | None = None
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(guard.asgi(self)), base_url=BASE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        if self.messages is not None and self.takes:
            call = await self.messages.begin(body["method"], body["params"], 1, scope)
            self.tasks.append(asyncio.ensure_future(call.run_to_end(self.ends.wait)))
            await asyncio.sleep(0)
        if self.within is not None:
            await self.within()
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def called(self, issuer: Any, tool: str = "add") -> tuple[int, str | None]:
        """Status and code of the answer to one request."""
        body = message("tools/call", {"name": tool, "arguments": {}})
        answer = await self._http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", tool))
        return answer.status_code, answer.json()["error"]["data"]["code"] if answer.content else None


def test_place_is_free_when_the_tool_ends_and_not_when_its_client_leaves(guard_of, issuer):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        server = Server(guard)
        assert await server.called(issuer) == (202, None)
        assert await server.called(issuer) == (429, "concurrency_spent")
        server.ends.set()
        await asyncio.gather(*server.tasks)
        assert await server.called(issuer) == (202, None)
        await asyncio.gather(*server.tasks)

    asyncio.run(walk())


def test_call_that_no_message_layer_takes_frees_its_place_with_its_request(guard_of, issuer):
    guard = guard_of({**NAMED, "concurrent": 1})

    async def walk():
        server = Server(guard, takes=False)
        found: list[Any] = []

        async def within() -> None:
            server.within = None
            found.append(await server.called(issuer))

        server.within = within
        assert await server.called(issuer) == (202, None)
        assert found == [(429, "concurrency_spent")]
        assert await server.called(issuer) == (202, None)

    asyncio.run(walk())


def test_layer_without_the_message_layer_refuses_what_is_counted_until_it_ends(guard_of, issuer, begun):
    guard = guard_of({**NAMED, "concurrent": 1, "tool": "run_query"})

    async def walk():
        server = Server(guard, is_attached=False)
        for _ in range(2):
            assert await server.called(issuer, "run_query") == (500, "middleware_missing")
        assert await server.called(issuer) == (202, None)
        (await begun(guard, "run_query")).close()

    asyncio.run(walk())


def test_call_that_is_only_observed_takes_its_place(guard_of, issuer, begun, refused):
    guard = guard_of({**NAMED, "concurrent": 1}, observe={"rooms": ["policy"], "until": "2999-01-01"})

    async def walk():
        server = Server(guard)
        assert await server.called(issuer, "secret") == (202, None)
        await refused(guard)
        server.ends.set()
        await asyncio.gather(*server.tasks)
        (await begun(guard)).close()

    asyncio.run(walk())


def test_calls_that_run_are_still_counted_after_a_reload(config, begun, refused):
    config["limits"] = {"rules": [{**NAMED, "concurrent": 2}]}
    guard = Guard.from_dict(config)

    async def walk():
        first, second = await begun(guard), await begun(guard)
        changed = {**config, "limits": {"rules": [{**NAMED, "concurrent": 1}]}}
        guard.gate.reload(json.dumps(changed), is_json=True)
        first.close()
        await refused(guard)
        second.close()
        (await begun(guard)).close()

    with guard:
        asyncio.run(walk())


def test_threads_never_run_more_at_once_and_all_places_come_back(guard_of, issuer, begun, refused):
    guard = guard_of({"per": "everyone", "concurrent": 3})
    token = issuer.token()
    lock, run, most, spent = threading.Lock(), [0], [0], [0]

    async def one() -> None:
        try:
            async with guard.call(ToolRequest.direct(tool="add", arguments={}, token=token)):
                with lock:
                    run[0] += 1
                    most[0] = max(most[0], run[0])
                await asyncio.sleep(0.001)
                with lock:
                    run[0] -= 1
        except LimitDenied:
            spent[0] += 1

    def hammer() -> None:
        async def walk() -> None:
            for _ in range(40):
                await asyncio.gather(one(), one())

        asyncio.run(walk())

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3
    assert spent[0] > 0

    async def walk() -> None:
        calls = [await begun(guard) for _ in range(3)]
        await refused(guard)
        for call in calls:
            call.close()

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ([{"per": "principal"}], "quota"),
        ([{"per": "principal", "quota": "1/s", "concurrent": 1}], "concurrent"),
        ([{"per": "principal", "concurrent": 1, "meter": "rows"}], "meter"),
        ([{"per": "principal", "concurrent": 1, "method": "tools/call"}], "method"),
        ([{"per": "principal", "quota": "1/s", "meter": "rows", "method": "ping"}], "method"),
        ([{"per": "principal", "concurrent": -1}], "concurrent"),
        ([{"per": "principal", "quota": "1/s", "meter": "items"}], "meter"),
        ([{"per": "tool", "concurrent": 1}, {"per": ["tool", "principal"], "concurrent": 2}], "concurrent"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(make_guard, rules, key):
    with pytest.raises(GuardConfigError) as wrong:
        make_guard(limits={"rules": rules})

    assert key in str(wrong.value)
