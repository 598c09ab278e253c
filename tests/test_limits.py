"""Room `limits` through its public face: SlidingWindow."""

from __future__ import annotations

import pytest

from mcp_fastguard import GuardFault
from mcp_fastguard.limits import MeteredWindow, SlidingWindow


def test_quota_is_admitted_and_no_more():
    window = SlidingWindow(quota=3, window=60.0)

    assert [window.admit("a", now=100.0).allowed for _ in range(4)] == [True, True, True, False]
    assert window.admit("b", now=100.0)


def test_remaining_counts_down_and_costs_count():
    window = SlidingWindow(quota=10, window=60.0)

    assert window.admit("a", cost=4, now=1.0).remaining == 6
    refused = window.admit("a", cost=7, now=1.0)
    assert (refused.allowed, refused.remaining) == (False, 6)
    assert window.admit("a", cost=6, now=1.0).remaining == 0


def test_retry_after_is_true():
    window = SlidingWindow(quota=1, window=64.0)
    window.admit("a", now=1_000.3)
    refused = window.admit("a", now=1_010.0)

    assert 1_064.3 <= 1_010.0 + refused.retry_after <= 1_065.3
    assert not window.admit("a", now=1_010.0 + refused.retry_after - 0.001)
    assert window.admit("a", now=1_010.0 + refused.retry_after)


def test_quota_of_zero_admits_nothing():
    assert not SlidingWindow(quota=0, window=1.0).admit("a", now=5.0)


def test_time_that_goes_back_reopens_nothing():
    window = SlidingWindow(quota=1, window=10.0)
    window.admit("a", now=1_000.0)
    for now in (999.0, 500.0, 0.0):
        assert not window.admit("a", now=now)


def test_times_of_two_clocks_are_refused():
    window = SlidingWindow(quota=5, window=10.0)
    window.admit("a", now=1.0)
    with pytest.raises(GuardFault) as fault:
        window.admit("a")
    assert fault.value.code == "clock_mixed"


def test_new_keys_of_a_full_table_share_one_window_and_others_keep_theirs():
    window = SlidingWindow(quota=2, window=60.0, max_keys=10)
    admitted = [window.admit(f"k{n}", now=1.0).allowed for n in range(40)]
    assert admitted == [True] * 12 + [False] * 28
    assert window.admit("k0", now=2.0)
    assert not window.admit("k0", now=2.0)
    assert window.admit("new", now=200.0)


def test_metered_window_is_overdrawn_by_one_charge_and_refuses_until_it_has_room():
    window = MeteredWindow(quota=5, window=60.0)
    window.charge("a", 4, now=1.0)
    assert (window.look("a", now=1.0).allowed, window.look("a", now=1.0).remaining) == (True, 1)
    window.charge("a", 100_000, now=1.0)
    refused = window.look("a", now=2.0)

    assert not refused
    assert (refused.remaining, window.look("b", now=2.0).remaining) == (0, 5)
    assert window.look("a", now=2.0 + refused.retry_after)


@pytest.mark.parametrize("options", [(1, 0.0), (1, -1.0), (1, float("nan")), (1, 3e7), (2**32, 1.0)])
def test_impossible_window_is_refused_when_built(options):
    with pytest.raises(ValueError):
        SlidingWindow(*options)


def test_keys_are_text_or_bytes():
    window = SlidingWindow(quota=1, window=60.0)
    assert window.admit(b"a", now=1.0)
    assert not window.admit("a", now=1.0)
    with pytest.raises(TypeError):
        window.admit(7, now=1.0)
