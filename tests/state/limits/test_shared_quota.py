"""The demo's part on shared limits, run as it is."""

from __future__ import annotations

from mcp_fastguard.dev.shared_quota import CALLS, QUOTA, WORKERS, main, show_shared_quota
from shared_limits_support import executable


def test_four_workers_are_admitted_the_quota_together():
    executable("valkey")

    shown = show_shared_quota()

    assert len(shown.admitted) == WORKERS
    assert sum(shown.admitted) == QUOTA < WORKERS * CALLS
    assert shown.codes == ("quota_spent",)


def test_it_can_be_seen_alone(capsys):
    executable("valkey")

    assert main([]) == 0

    assert f"together: {QUOTA} of a quota of {QUOTA}" in capsys.readouterr().out
