"""What the tests of `mcp_fastguard.testing` share: rules, and a call that they decide."""

from __future__ import annotations

from mcp_fastguard import ToolRequest
from support import RESOURCE

QUERY = "warehouse:query:read"

RULES = {
    "version": 1,
    "resource": {"url": RESOURCE},
    "issuers": [{"issuer": "https://login.example.com", "jwks_uri": "https://login.example.com/jwks"}],
    "limits": {"rules": [{"per": "tool", "tool": "run_query", "quota": "2/minute"}]},
    "tools": {"run_query": {"scopes": [QUERY]}, "whoami": {"open": True}, "outer": {"open": True}},
}


def call(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)
