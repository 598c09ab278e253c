"""What a call of a tool costs in its windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard.errors import GuardConfigError, LimitDenied


@pytest.fixture
def guard_of(make_guard: Callable[..., Guard]) -> Callable[..., Guard]:
    def build(cost: Any, quota: str = "10/minute") -> Guard:
        tools = {"run_query": {"open": True, "cost": cost}, "*": {"open": True}}
        return make_guard(limits={"rules": [{"per": "principal", "quota": quota}]}, tools=tools)

    return build


def remaining(guard: Guard, token: str, arguments: dict[str, Any], tool: str = "run_query") -> int | None:
    return guard.check(ToolRequest.direct(tool=tool, arguments=arguments, token=token)).remaining


def test_fixed_cost_is_charged_for_its_tool_alone(guard_of, issuer):
    guard, token = guard_of(4), issuer.token()

    assert remaining(guard, token, {}) == 6
    assert remaining(guard, token, {}, "add") == 5
    assert remaining(guard, token, {}) == 1
    with pytest.raises(LimitDenied) as refused:
        remaining(guard, token, {})
    assert refused.value.code == "quota_spent"
    assert remaining(guard, token, {}, "add") == 0


@pytest.mark.parametrize(
    ("cost", "arguments", "charged"),
    [
        ("arguments.max_rows / 1000", {"max_rows": 1000}, 1),
        ("arguments.max_rows / 1000", {"max_rows": 1001}, 2),
        ("arguments.max_rows / 1000", {"max_rows": 2500.5}, 3),
        ("arguments.max_rows / 1000", {"max_rows": 0}, 1),
        ("arguments.page.size", {"page": {"size": 7}}, 7),
        ("arguments.seconds * 3", {"seconds": 3}, 9),
    ],
)
def test_argument_is_charged_rounded_up_and_at_least_once(guard_of, issuer, cost, arguments, charged):
    assert remaining(guard_of(cost), issuer.token(), arguments) == 10 - charged


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rows": "5"},
        {"rows": True},
        {"rows": None},
        {"rows": [5]},
        {"rows": -1},
        {"rows": 2**32},
        {"rows": 1e300},
        {"a": {"rows": 1}},
    ],
)
def test_argument_that_is_no_cost_refuses_and_charges_nothing(guard_of, issuer, arguments):
    guard, token = guard_of("arguments.rows"), issuer.token()
    with pytest.raises(Denied) as refused:
        remaining(guard, token, arguments)

    assert (refused.value.code, refused.value.status, refused.value.config_key) == ("cost_unreadable", 400, "tools")
    assert remaining(guard, token, {"rows": 10}) == 0


def test_argument_of_a_raw_body_is_read_where_it_stands(guard_of, issuer):
    guard = guard_of("arguments.rows")
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "run_query", "rows": 1, "arguments": {"rows": 6}},
    }
    headers = [(b"authorization", b"Bearer " + issuer.token().encode()), (b"content-type", b"application/json")]
    request = ToolRequest.http(method="POST", path="/mcp", headers=headers, body=json.dumps(message).encode())

    assert guard.check(request).remaining == 4


@pytest.mark.parametrize(
    "cost", [0, -1, 2**32, "5", "rows", "arguments.rows / 0", "arguments.rows + 1", "arguments.rows / 2 / 2"]
)
def test_cost_that_says_nothing_is_refused(guard_of, cost):
    with pytest.raises(GuardConfigError):
        guard_of(cost)


def test_only_tools_have_classes_and_costs(make_guard):
    for key in ({"cost": 2}, {"class": "heavy"}):
        with pytest.raises(GuardConfigError) as refused:
            make_guard(prompts={"hello": {"open": True, **key}})
        assert "only tools" in str(refused.value)
