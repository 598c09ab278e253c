"""What a client is told when a quota is spent."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import LimitDenied
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.transport.challenge import http_answer, rpc_error

NOW = 1_800_000_000.0


@pytest.fixture
def spent(make_guard: Callable[..., Guard], issuer: Any) -> Callable[..., tuple[Guard, LimitDenied]]:
    """A guard of one rule whose quota the calls before have spent, and its refusal."""

    def build(calls: int = 1, cost: int = 1, **rule: Any) -> tuple[Guard, LimitDenied]:
        limits = {"rules": [{"per": "principal", "name": "queries", **rule}]}
        guard = make_guard(limits=limits, tools={"run_query": {"open": True, "cost": cost}})
        for _ in range(calls):
            guard.check(request(), NOW)
        with pytest.raises(LimitDenied) as refused:
            guard.check(request(), NOW)
        return guard, refused.value

    def request() -> ToolRequest:
        return ToolRequest.direct(tool="run_query", arguments={}, token=issuer.token(now=NOW))

    return build


def headers_of(error: LimitDenied) -> dict[bytes, bytes]:
    return dict(http_answer(error, None)[1])


def test_spent_quota_is_told_in_the_fields_of_the_draft(spent):
    _, refused = spent(quota="1/minute")
    headers = headers_of(refused)
    seconds = math.ceil(refused.retry_after)

    assert headers[b"ratelimit-policy"] == b'"queries";q=1;w=60'
    assert headers[b"ratelimit"] == b'"queries";r=0;t=%d' % seconds
    assert headers[b"retry-after"] == b"%d" % seconds


def test_what_is_left_and_too_little_for_the_cost_is_told(spent):
    _, refused = spent(quota="5/minute", cost=3)

    assert headers_of(refused)[b"ratelimit"].startswith(b'"queries";r=2;t=')


def test_window_of_no_whole_seconds_is_not_told(spent):
    _, refused = spent(quota="1/1500ms")

    assert headers_of(refused)[b"ratelimit-policy"] == b'"queries";q=1'


def test_name_of_any_letters_is_a_structured_string(spent):
    _, refused = spent(quota="1/minute", name='a "b" \\ ü\n')

    assert headers_of(refused)[b"ratelimit-policy"] == b'"a \\"b\\" \\\\ ??";q=1;w=60'


@pytest.mark.parametrize("rule", [{"quota": "0/minute"}, {"quota": "2/minute", "cost": 3}])
def test_call_that_no_time_admits_is_told_no_time(spent, rule):
    _, refused = spent(calls=0, **rule)
    headers = headers_of(refused)

    assert (refused.retry_after, refused.status) == (None, 429)
    assert b"retry-after" not in headers
    assert b";t=" not in headers[b"ratelimit"]


def test_window_says_no_time_where_none_helps():
    window = SlidingWindow(quota=2, window=60.0)

    assert window.admit("a", cost=3, now=1.0).retry_after is None
    assert window.admit("a", cost=2, now=1.0)
    assert window.admit("a", cost=2, now=1.0).retry_after is not None


def test_rpc_error_carries_the_same_facts(spent):
    _, refused = spent(quota="1/minute")
    code, _, data = rpc_error(refused)

    assert code == 429
    assert data["code"] == "quota_spent"
    assert data["retryAfter"] == math.ceil(refused.retry_after)
    assert data["limit"] == {"policy": "queries", "quota": 1, "window": 60.0, "remaining": 0, "unit": "calls"}
    body = json.loads(http_answer(refused, b'{"id": 7}')[2])
    assert (body["id"], body["error"]["data"]) == (7, data)


def test_refusal_survives_pickling_with_its_quota(spent):
    _, refused = spent(quota="1/minute")
    copy = pickle.loads(pickle.dumps(refused))

    assert copy.spent == refused.spent
    assert copy.spent.rule == "queries"


def test_call_after_exactly_retry_after_is_admitted_and_a_little_earlier_is_not(spent, issuer):
    guard, refused = spent(quota=["1/s", "1/10s"])
    request = ToolRequest.direct(tool="run_query", arguments={}, token=issuer.token(now=NOW))

    with pytest.raises(LimitDenied):
        guard.check(request, NOW + refused.retry_after - 0.001)
    guard.check(request, NOW + refused.retry_after + 1e-6)
    assert 10.0 <= refused.retry_after <= 10.0 * 65 / 64
