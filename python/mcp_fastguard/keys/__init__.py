"""Fetches key sets, off every event loop but its own (decision 7)."""

from __future__ import annotations

from mcp_fastguard.keys.feed import KeySink, Pace
from mcp_fastguard.keys.introspection import Introspector
from mcp_fastguard.keys.service import KeyService, Watch, key_service
from mcp_fastguard.keys.source import Fetched, FetchError, KeySource

__all__ = [
    "FetchError",
    "Fetched",
    "Introspector",
    "KeyService",
    "KeySink",
    "KeySource",
    "Pace",
    "Watch",
    "key_service",
]
