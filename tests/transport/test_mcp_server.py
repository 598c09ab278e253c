"""``guard.mcp_server``: the message layer put into a server that exists already."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx2
import pytest
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from support import RESOURCE
from transport_support import headers, message, run, served


def test_layer_stands_before_all_middleware_but_the_sdks_own(make_guard, issuer):
    guard = make_guard()
    reached = []

    async def other(ctx, call_next):
        reached.append(ctx.method)
        return await call_next(ctx)

    mcp = guard.mcp_server(MCPServer("test", middleware=[other]))
    mcp.middleware.append(other)
    mcp.tool(name="secret")(lambda: "the secret")
    mcp.tool(name="add")(lambda: "3")
    app = mcp.streamable_http_app(transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False))

    async def walk(app):
        async with served(app) as transport, httpx2.AsyncClient(transport=transport) as http:
            for tool in ("add", "secret"):
                body = message("tools/call", {"name": tool, "arguments": {}})
                yield await http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", tool))

    async def unguarded():
        return [answer.json()["error"]["data"]["code"] async for answer in walk(app)]

    assert run(unguarded()) == ["call_unproved", "call_unproved"]
    assert reached == []


def test_guarded_server_calls_what_it_may(make_guard, issuer):
    guard = make_guard()
    mcp = guard.mcp_server(MCPServer("test"))
    mcp.tool(name="add")(lambda: "3")
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = guard.asgi(mcp.streamable_http_app(transport_security=security))

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport) as http:
            body = message("tools/call", {"name": "add", "arguments": {}})
            answer = await http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", "add"))
            assert answer.json()["result"]["content"][0]["text"] == "3"

    run(walk())


@pytest.mark.parametrize("make_server", [lambda: MCPServer("test"), lambda: Server("test")], ids=["high", "low"])
def test_second_layer_and_what_is_no_server_are_refused(make_guard, make_server):
    guard = make_guard()
    server = guard.mcp_server(make_server())
    with pytest.raises(ValueError, match="already"):
        guard.mcp_server(server)
    with pytest.raises(TypeError, match="`object`"):
        guard.mcp_server(object())
    with pytest.raises(ValueError, match="transport"):
        guard.mcp_server(make_server(), transport="pigeon")


@pytest.mark.parametrize("auth", [False, True], ids=["alone", "behind a layer"])
def test_rules_are_compared_with_the_servers_tools_when_it_starts(make_guard, caplog, auth):
    guard = make_guard(tools={"add": {"open": True}, "no_*": {"open": True}})
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool()
    def forgotten() -> None:
        pytest.fail("it ran")

    app = mcp.streamable_http_app()
    if auth:
        [route] = app.routes
        route.endpoint = Layer(route.endpoint)

    async def walk():
        async with served(guard.asgi(app)):
            while not any("speaks of" in record.message for record in caplog.records):
                await asyncio.sleep(0)

    asyncio.run(walk())
    told = [record.message for record in caplog.records if record.name == "mcp_fastguard"]
    assert told[-2:] == [
        "tool `forgotten` has no rule: it is refused",
        'tools."no_*" speaks of no tool of this server',
    ]


def test_server_that_cannot_list_its_tools_starts_all_the_same(make_guard, caplog):
    class Broken:
        async def list_tools(self):
            raise RuntimeError("no")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    app.state = SimpleNamespace(fastmcp_server=Broken())
    guard = make_guard()

    async def walk():
        async with served(guard.asgi(app)):
            while not any("not compared" in record.message for record in caplog.records):
                await asyncio.sleep(0)

    asyncio.run(walk())
    assert guard.compared == set()


class Layer:
    """A middleware round an endpoint."""

    def __init__(self, app):
        self.app = app
