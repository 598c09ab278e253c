"""For developing without an identity provider: an authorization server and a demo. Refuses to run off loopback."""

from __future__ import annotations

from mcp_fastguard.dev.authorization_server import AuthorizationServer
from mcp_fastguard.dev.loopback import require_loopback

__all__ = ["AuthorizationServer", "require_loopback"]
