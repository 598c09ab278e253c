"""The server that the conformance suite tests: plain, or behind the guard with a shim that adds a token to every request."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage

from mcp_fastguard import Guard
from support import Issuer


def build(middleware):
    mcp = MCPServer("under-test", middleware=middleware)

    @mcp.tool()
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @mcp.tool()
    def test_error_handling() -> str:
        raise ValueError("This tool intentionally returns an error for testing")

    @mcp.tool()
    def add_numbers(a: int, b: int) -> str:
        return str(a + b)

    @mcp.prompt()
    def test_simple_prompt() -> list[UserMessage]:
        return [UserMessage("This is a simple prompt for testing.")]

    @mcp.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @mcp.resource("test://static-text")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @mcp.resource("test://template/{id}/data")
    def template(id: str) -> str:
        return f'{{"id": "{id}"}}'

    return mcp


def guarded(port, folder):
    issuer = Issuer()
    resource = f"http://127.0.0.1:{port}/mcp"
    every = {"open": True}
    guard = Guard.from_dict(
        {
            "version": 1,
            "resource": {"url": resource},
            "issuers": [{"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
            "limits": {"rules": [{"per": "principal", "quota": "1000000/minute"}]},
            "tools": {"*": every},
            "prompts": {"*": every},
            "resources": {"*": every},
            "methods": {"*": every},
            "audit": {"path": str(Path(folder) / "audit")},
        }
    )
    app = guard.asgi(build([guard.mcp_middleware()]).streamable_http_app())
    token = issuer.token(aud=resource).encode()

    async def shim(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer " + token)]}
        await app(scope, receive, send)

    return shim


def main():
    kind, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    app = guarded(port, folder) if kind == "guarded" else build([]).streamable_http_app()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", proxy_headers=False)


if __name__ == "__main__":
    main()
