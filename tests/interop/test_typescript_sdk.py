"""MCP's TypeScript SDK as a client with proofs.

Of 2.4.0, and 1.32.2 before it, the client knows the names of DPoP's two errors and makes no proofs (looked at 2026-11). It takes a `fetch`
of one's own, in which panva's `dpop` makes them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from node_support import TOOLS, node_binary
from servers_support import free_socket, running
from support import records

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent


@pytest.mark.parametrize("nonce", ["off", "required"])
def test_client_with_proofs_from_its_fetch_is_let_in_and_follows_nonces(make_guard, config, issuer, nonce):
    node, listening = node_binary(), free_socket()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    config["issuers"][0]["audiences"] = [url]
    guard = make_guard(resource={"url": url}, dpop={"mode": "required", "nonce": nonce})
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    key = ECKey.generate_key("P-256")
    token = issuer.token(aud=url, cnf={"jkt": key.thumbprint()})
    given = {"url": url, "token": token, "key": key.as_dict(private=True), "calls": 3}
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    with running("uvicorn", guard.asgi(mcp.streamable_http_app(transport_security=security)), socket=listening):
        command = [node, HERE / "mcp_client.mjs", TOOLS, json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    refused = 0 if nonce == "off" else 1
    assert json.loads(done.stdout) == {"results": ["2", "3", "4"], "refused": refused}
    calls = [record["result"] for record in records(guard, "decision") if record.get("tool_name") == "add"]
    assert calls == ["allowed"] * 3
