"""Room 2: proofs of possession. The public face of the Rust room; nothing is decided here."""

from __future__ import annotations

from mcp_fastguard._fastguard import BoundToken, DPoPVerifier

__all__ = ["BoundToken", "DPoPVerifier"]
