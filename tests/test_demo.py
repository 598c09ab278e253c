"""The demonstration is the end-to-end test: every step through real servers and the official client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_demonstration_goes_as_expected():
    command = [sys.executable, "-m", "mcp_fastguard.cli", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "steps went as expected" in done.stdout
