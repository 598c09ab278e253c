"""Fetches key sets, off every event loop but its own (decision 7)."""

from __future__ import annotations

from mcp_fastguard.keys.feed import KeySink, Pace
from mcp_fastguard.keys.fetch import FetchError, KeySource
from mcp_fastguard.keys.service import KeyService, Watch, key_service

__all__ = ["FetchError", "KeyService", "KeySink", "KeySource", "Pace", "Watch", "key_service"]
