"""The same tool behind uvicorn, loaded by wrk: bare, behind the guard, and behind the checks of others.

Each server is a process of its own on loopback with one worker and uvloop; they take turns, so that a busy machine is busy for all.
Ratios are to the bare server of the same SDK in the same turn. Needs ``wrk``; without it this says so and measures nothing.

Usage: ``python benches/served.py [--turns N] [--seconds N]``
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import ISSUER, RESOURCE, claims

SCOPE = "warehouse:query:read"
#: Name -> the server that it is compared with.
SERVERS = {
    "sdk": "sdk",
    "sdk, guarded": "sdk",
    "sdk, guarded, no audit": "sdk",
    "sdk's auth, PyJWT": "sdk",
    "fastmcp": "fastmcp",
    "fastmcp, an empty middleware": "fastmcp",
    "fastmcp, guarded": "fastmcp",
    "fastmcp's JWTVerifier": "fastmcp",
}


def configuration(jwks, folder, *, audit):
    return {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": jwks, "algorithms": ["ES256"]}],
        "limits": {"rules": [{"per": "principal", "quota": "4000000000/minute"}]},
        "tools": {"add": {"scopes": [SCOPE], "read_only": True}},
        "audit": {"path": str(folder / "audit")} if audit else {"enabled": False},
    }


def sdk(name, guard, pem):
    import jwt
    from mcp.server.auth.provider import AccessToken
    from mcp.server.auth.settings import AuthSettings
    from mcp.server.mcpserver import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings

    class PyJWT:
        async def verify_token(self, token):
            found = jwt.decode(token, pem, algorithms=["ES256"], audience=RESOURCE, issuer=ISSUER)
            return AccessToken(
                token=token,
                client_id=found["client_id"],
                scopes=found["scope"].split(),
                expires_at=found["exp"],
                resource=RESOURCE,
            )

    options = {}
    if name == "sdk's auth, PyJWT":
        settings = AuthSettings(
            issuer_url=ISSUER, resource_server_url=RESOURCE, required_scopes=[SCOPE], validate_token_resource=False
        )
        options = {"token_verifier": PyJWT(), "auth": settings}
    mcp = MCPServer("bench", middleware=[guard.mcp_middleware()] if guard else [], **options)
    mcp.tool()(add)
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return mcp.streamable_http_app(transport_security=security, json_response=True, stateless_http=True)


def fastmcp(name, guard, pem):
    from fastmcp import FastMCP
    from fastmcp.server.auth.providers.jwt import JWTVerifier
    from fastmcp.server.middleware import Middleware

    middleware = [guard.fastmcp_middleware()] if guard else []
    if name == "fastmcp, an empty middleware":
        # What FastMCP itself does for a middleware, whatever that does.
        middleware = [Middleware()]
    options = {}
    if name == "fastmcp's JWTVerifier":
        options = {"auth": JWTVerifier(public_key=pem, issuer=ISSUER, audience=RESOURCE, algorithm="ES256")}
    mcp = FastMCP("bench", middleware=middleware, **options)
    mcp.tool(add)
    return mcp.http_app(path="/mcp", json_response=True, stateless_http=True)


def add(a: int, b: int) -> int:
    return a + b


def serve(name, port, folder):
    import logging

    import uvicorn

    from mcp_fastguard import Guard

    logging.disable(logging.CRITICAL)
    jwks = json.loads((folder / "jwks").read_text())
    pem = (folder / "pem").read_text()
    guard = None
    if "guarded" in name:
        guard = Guard.from_dict(configuration(jwks, folder / str(port), audit="no audit" not in name))
    app = (fastmcp if name.startswith("fastmcp") else sdk)(name, guard, pem)
    uvicorn.run(
        guard.asgi(app) if guard else app,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        access_log=False,
        loop="uvloop",
        proxy_headers=False,
    )


def script(folder, token):
    """What wrk sends: one call of a tool, in the newest era of the protocol."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "b", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "add", "arguments": {"a": 1, "b": 2}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add",
        "Authorization": f"Bearer {token}",
        "Host": "mcp.example.com",
    }
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    file = folder / "call.lua"
    file.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = {json.dumps(body)}", *lines]))
    return file


def load(lua, port, seconds):
    """Calls a second; none may be answered by anything but 200."""
    run = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}/mcp"]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("a server did not start")


def prepare(folder):
    from joserfc import jwt
    from joserfc.jwk import ECKey, KeySet

    key = ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})
    (folder / "jwks").write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    (folder / "pem").write_bytes(key.as_pem(private=False))
    return jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, claims(), key)


def measure(turns, seconds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lua = script(folder, prepare(folder))
        ports = {server: free_port() for server in SERVERS}
        processes = [
            subprocess.Popen([sys.executable, __file__, "--serve", server, str(port), name])
            for server, port in ports.items()
        ]
        try:
            for port in ports.values():
                wait_for(port)
                load(lua, port, 1)
            rates = {server: [] for server in SERVERS}
            for _ in range(turns):
                for server, port in ports.items():
                    rates[server].append(load(lua, port, seconds))
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(10)
    for server, base in SERVERS.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[server], rates[base], strict=True)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(
            f"{server:28} {statistics.median(rates[server]):8,.0f} calls/s  {statistics.median(ratios):.3f}  ({spread})"
        )


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--serve":
        serve(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("SKIPPED: wrk is not installed, so no server was loaded")
        return
    measure(options.turns, options.seconds)


if __name__ == "__main__":
    main()
