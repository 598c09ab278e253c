"""Room 3: sliding windows. The public face of the Rust room; nothing is decided here."""

from __future__ import annotations

from mcp_fastguard._fastguard import Admission, MeteredWindow, SlidingWindow

__all__ = ["Admission", "MeteredWindow", "SlidingWindow"]
