"""``fastguard audit merge`` over logs of any length."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from shipping_support import write_log

pytest.importorskip("resource", reason="the system does not say how much memory a process took")

LOGS = 8


def merged(base):
    """How many records are merged, and by how many KiB the process grew meanwhile."""
    script = textwrap.dedent("""
        import json, resource, sys
        from pathlib import Path
        from mcp_fastguard._fastguard import MergedLogs
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        logs = sorted(Path(sys.argv[1]).iterdir())
        before = peak()
        count = sum(1 for _ in MergedLogs(logs))
        # In bytes on macOS.
        print(json.dumps([count, (peak() - before) // (1024 if sys.platform == "darwin" else 1)]))
    """)
    done = subprocess.run([sys.executable, "-c", script, str(base)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_merge_of_longer_logs_takes_no_more_memory(tmp_path):
    size = 0
    for number in range(LOGS):
        log = write_log(tmp_path, records=15_000, name=f"20261128T000000-{number}-00aa")
        size += (log / "000001.jsonl").stat().st_size // 1024

    count, grown = merged(tmp_path)

    assert count == LOGS * 15_000
    # A buffer of 256 KiB and a line for each log, and not the 30 MiB that they have.
    assert size > 20_000
    assert grown < size / 4
