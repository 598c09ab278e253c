"""When keys are fetched (F1, F6)."""

from __future__ import annotations

import pytest

from mcp_fastguard.keys import Pace


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 480.0), (1.0, 432.0)])
def test_set_is_refreshed_before_its_ten_minutes_end(chance, wait):
    assert Pace(chance=lambda: chance).wait(Pace().freshness(None)) == pytest.approx(wait)


@pytest.mark.parametrize(
    ("failures", "shortest", "longest"),
    [(1, 1, 1), (2, 1, 2), (3, 2, 4), (4, 4, 8), (6, 16, 32), (7, 30, 60), (8, 30, 60), (1_000_000, 30, 60)],
)
def test_waits_after_failures_double_from_one_second_to_sixty(failures, shortest, longest):
    assert Pace(chance=lambda: 0.0).back_off(failures) == shortest
    assert Pace(chance=lambda: 1.0).back_off(failures) == longest


def test_cool_down_is_thirty_seconds_and_a_fetch_ends_within_five():
    assert (Pace().cool_down, Pace().deadline) == (30.0, 5.0)
