"""The proofs of a call: built by the guard alone, read by everyone."""

from __future__ import annotations

from mcp_fastguard._fastguard import AllowedCall, ToolRequest

__all__ = ["AllowedCall", "ToolRequest"]
