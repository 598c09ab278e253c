"""The demo's part on shared limits, run as it is."""

from __future__ import annotations

from mcp_fastguard.dev.shared_quota import QUOTA, WORKERS, show_shared_quota
from shared_limits_support import executable


def test_four_workers_are_admitted_the_quota_together(capfd):
    executable("valkey")

    assert show_shared_quota() == QUOTA
    printed = capfd.readouterr().out
    assert printed.count("mode exact") == WORKERS
    assert f"together: {QUOTA} of a quota of {QUOTA}" in printed
