"""What other limiters admit beyond the quota of the same arrivals, and ours does not; held against an exact count."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from types import SimpleNamespace

import limits
import limits.storage.memory
import pytest
from fastmcp.server.middleware import MiddlewareContext, rate_limiting

from mcp_fastguard.limits import SlidingWindow

#: A moment at which windows of a minute begin that are counted from the epoch.
BEGIN = 1_800_000_000.0


def arrivals(*parts: tuple[float, float, int]) -> list[float]:
    """So many calls from one moment to another, evenly, part after part."""
    return [first + (last - first) * number / count for first, last, count in parts for number in range(count)]


def most_in_any_window(admitted: list[float], window: float) -> int:
    """The exact count: the most that were admitted in any stretch of a window's length, its end left out."""
    return max(bisect_right(admitted, moment) - bisect_right(admitted, moment - window) for moment in admitted)


def admitted_by_ours(quota: int, window: float, moments: list[float]) -> list[float]:
    found = SlidingWindow(quota, window)
    return [moment for moment in moments if found.admit("alice", now=moment).allowed]


@pytest.fixture
def clock(monkeypatch):
    """The time of the other limiters."""
    clock = SimpleNamespace(now=0.0)
    told = SimpleNamespace(time=lambda: clock.now, monotonic=lambda: clock.now)
    monkeypatch.setattr(limits.storage.memory, "time", told)
    monkeypatch.setattr(rate_limiting, "time", told)
    return clock


def test_f28_sliding_counter_of_limits_admits_half_as_much_again_and_ours_does_not(clock):
    quota, window = 100, 60.0
    # The quota at the end of one minute, then as much as is let through of the next one.
    moments = arrivals((BEGIN + 59, BEGIN + 60, 100), (BEGIN + 60, BEGIN + 119, 5_900))
    strategy = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.MemoryStorage())
    rate = limits.RateLimitItemPerMinute(quota)

    def admits(moment: float) -> bool:
        clock.now = moment
        return strategy.hit(rate, "alice")

    theirs = [moment for moment in moments if admits(moment)]
    ours = admitted_by_ours(quota, window, moments)

    assert most_in_any_window(theirs, window) > 1.5 * quota
    assert most_in_any_window(ours, window) == quota


@pytest.mark.parametrize(
    ("burst", "beyond"), [(None, 2.9), (10, 1.9)], ids=["as it comes", "without a burst of its own"]
)
def test_f28_middleware_of_fastmcp_admits_its_burst_besides_and_ours_does_not(clock, burst, beyond):
    quota, window = 10, 1.0
    moments = arrivals((BEGIN, BEGIN + 1, 1_000), (BEGIN + 1, BEGIN + 5, 4_000))
    clock.now = BEGIN
    middleware = rate_limiting.RateLimitingMiddleware(
        max_requests_per_second=quota, burst_capacity=burst, get_client_id=lambda _: "alice"
    )

    async def through(_context):
        return "through"

    async def admits(moment: float) -> bool:
        clock.now = moment
        try:
            await middleware.on_request(MiddlewareContext(message=None, method="tools/call"), through)
        except rate_limiting.RateLimitError:
            return False
        return True

    async def all_of_them() -> list[float]:
        return [moment for moment in moments if await admits(moment)]

    theirs = asyncio.run(all_of_them())
    ours = admitted_by_ours(quota, window, moments)

    assert most_in_any_window(theirs, window) >= beyond * quota
    assert most_in_any_window(ours, window) == quota
