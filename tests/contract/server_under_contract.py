"""One small server for every version of the SDKs. Runs in an environment of its own, which has the SDK and nothing of ours.

Arguments: the kind of server, the transport, the configuration's file. Over HTTP the port is the first line of output.
"""

from __future__ import annotations

import json
import socket
import sys

from mcp_fastguard import Guard, current_call


def open_file() -> str:
    return "open"


def hidden_file() -> str:
    return "hidden"


def hello() -> str:
    return "hello"


def fill(mcp):
    mcp.resource("file:///open.txt")(open_file)
    mcp.resource("file:///hidden.txt")(hidden_file)
    mcp.prompt(name="hello")(hello)
    mcp.prompt(name="unseen")(hello)

    def add(a: int, b: int) -> int:
        return a + b

    def secret() -> str:
        return "the secret"

    def whoami() -> str:
        from mcp.server.auth.middleware.auth_context import get_access_token

        token = get_access_token()
        current_call().record(rows=3)
        return json.dumps([current_call().subject, token.subject if token else None])

    for tool in (add, secret, whoami):
        mcp.tool()(tool)


def sdk(guard, transport):
    """`mcp` 1.x and 2.x by the way that both have."""
    try:
        from mcp.server.mcpserver import MCPServer as Server
    except ImportError:
        from mcp.server.fastmcp import FastMCP as Server
    mcp = guard.mcp_server(Server("contract"), transport=transport)
    fill(mcp)
    return mcp, mcp.streamable_http_app


def middleware(guard, transport):
    """`mcp` 2.x by its middleware."""
    from mcp.server.mcpserver import MCPServer

    mcp = MCPServer("contract", middleware=[guard.mcp_middleware(transport=transport)])
    fill(mcp)
    return mcp, mcp.streamable_http_app


def direct(guard, transport):
    """What has no way in `mcp` 1.x."""
    return guard.mcp_middleware(transport=transport), None


def fastmcp(guard, transport):
    """FastMCP 3.4 and 4.x."""
    from fastmcp import FastMCP

    auth = guard.fastmcp_auth() if transport == "http" else None
    mcp = FastMCP("contract", middleware=[guard.fastmcp_middleware(transport=transport)], auth=auth)
    fill(mcp)
    return mcp, lambda: mcp.http_app(path="/mcp")


KINDS = {"sdk": sdk, "middleware": middleware, "fastmcp": fastmcp, "direct": direct}


def main():
    kind, transport, file = sys.argv[1:]
    guard = Guard.from_file(file)
    bare = transport == "bare"
    mcp, app = KINDS[kind](guard, "http" if bare else transport)
    if transport == "stdio":
        with guard:
            mcp.run(transport="stdio", **({"show_banner": False} if kind == "fastmcp" else {}))
        return
    import uvicorn

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        # From here on connections wait until the server takes them.
        found.listen()
        sys.stdout.write(f"{found.getsockname()[1]}\n")
        sys.stdout.flush()
        server = uvicorn.Server(
            uvicorn.Config(app() if bare else guard.asgi(app()), log_level="error", proxy_headers=False)
        )
        server.run(sockets=[found])


if __name__ == "__main__":
    main()
