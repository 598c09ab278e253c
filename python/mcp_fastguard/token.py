"""Room 1: tokens. The public face of the Rust room; nothing is decided here."""

from __future__ import annotations

from mcp_fastguard._fastguard import KeySet, TokenVerifier, VerifiedToken, verify_compact

__all__ = ["KeySet", "TokenVerifier", "VerifiedToken", "verify_compact"]
