"""``python -m mcp_fastguard.cli``."""

from __future__ import annotations

from mcp_fastguard.cli import main

main()
