"""Guarded servers mounted in Starlette and FastAPI apps, several in one app, several guards in one process."""

from __future__ import annotations

import contextlib

import fastapi
import httpx2
import pytest
from fastmcp import FastMCP
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mcp_fastguard import Denied, GuardFault, ToolRequest
from servers_support import running
from support import Issuer, records
from transport_support import BASE, client, headers, message, run, served

ROOT_METADATA = "/.well-known/oauth-protected-resource"


def sdk_app(guard, answer=1):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b + answer - 1

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return mcp.streamable_http_app(transport_security=security)


def fastmcp_app(guard, answer=1):
    mcp = FastMCP("test", middleware=[guard.fastmcp_middleware()], auth=guard.fastmcp_auth())

    @mcp.tool
    def add(a: int, b: int) -> int:
        return a + b + answer - 1

    return mcp.http_app(path="/mcp")


APPS = {"SDK": sdk_app, "FastMCP": fastmcp_app}


@pytest.fixture
def make_mounted(make_guard, config):
    """Builds guards for /NAME/mcp, each with a log of its own."""

    def make(name, **tables):
        audit = {"path": f"{config['audit']['path']}-{name}"}
        return make_guard(resource={"url": f"{BASE}/{name}/mcp"}, audit=audit, **tables)

    return make


async def add(transport, path, token, era="modern"):
    async with client(transport, token, era, url=BASE + path) as found:
        return (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("build", APPS.values(), ids=APPS)
@pytest.mark.parametrize("outer", ["Starlette", "FastAPI"])
def test_mounted_server_is_guarded_and_its_metadata_stand_at_the_root(make_mounted, issuer, build, outer, era):
    guard = make_mounted("api")
    guarded = guard.asgi(build(guard))
    if outer == "FastAPI":
        app = fastapi.FastAPI(lifespan=guarded.lifespan)
        app.get("/hello")(lambda: "hello")
        app.router.routes.extend(guard.metadata_routes())
        app.mount("/api", guarded)
    else:
        hello = Route("/hello", lambda _: PlainTextResponse("hello"))
        app = Starlette(routes=[hello, *guard.metadata_routes(), Mount("/api", guarded)], lifespan=guarded.lifespan)

    async def walk():
        async with served(app) as transport:
            assert await add(transport, "/api/mcp", issuer.token(aud=f"{BASE}/api/mcp"), era) == "3"
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
                assert "hello" in (await http.get("/hello")).text
                refused = await http.post("/api/mcp", json=message("tools/list"))
                assert refused.status_code == 401
                place = refused.headers["www-authenticate"].split('resource_metadata="')[1].split('"')[0]
                assert place == f"{BASE}{ROOT_METADATA}/api/mcp"
                assert (await http.get(place)).json()["resource"] == f"{BASE}/api/mcp"
                assert (await http.head(place)).status_code == 200
                assert (await http.options(place)).headers["access-control-allow-origin"] == "*"
                assert (await http.post(place)).status_code == 405
                assert (await http.get(ROOT_METADATA)).json()["resource"] == f"{BASE}/api/mcp"
                for path in ("/api/", "/api//mcp", "/api/mcp/", "/api/api/mcp", "/api/MCP", "/api/hello"):
                    sent = headers(issuer.token(aud=f"{BASE}/api/mcp"), "tools/list")
                    assert (await http.post(path, json=message("tools/list"), headers=sent)).status_code == 404, path

    run(walk())


@pytest.mark.parametrize("build", APPS.values(), ids=APPS)
def test_lifespan_of_a_mounted_layer_seals_the_log(make_mounted, issuer, build):
    guard = make_mounted("api")
    guarded = guard.asgi(build(guard))
    app = Starlette(routes=[Mount("/api", guarded)], lifespan=guarded.lifespan)

    async def walk():
        async with served(app):
            guard.check(ToolRequest.direct(tool="add", token=issuer.token(aud=f"{BASE}/api/mcp")))
        with pytest.raises(GuardFault) as fault:
            guard.check(ToolRequest.direct(tool="add", token=issuer.token(aud=f"{BASE}/api/mcp")))
        assert fault.value.code == "closed"

    run(walk())


def test_lifespan_hands_on_what_the_app_gives_and_closes_when_it_fails(make_guard):
    guard = make_guard()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        assert isinstance(app, Starlette)
        yield {"pool": 1}
        raise OSError("shutdown")

    async def walk():
        async with guard.asgi(Starlette(lifespan=lifespan)).lifespan(None) as state:
            assert state == {"pool": 1}

    with pytest.raises(OSError, match="shutdown"):
        run(walk())
    with pytest.raises(GuardFault):
        guard.check(ToolRequest.direct(tool="add", token="x"))


def test_lifespan_of_an_app_without_one_starts_and_closes(make_guard):
    guard = make_guard()

    async def walk():
        async with guard.asgi(lambda scope, receive, send: None).lifespan():
            pass

    run(walk())
    with pytest.raises(GuardFault):
        guard.check(ToolRequest.direct(tool="add", token="x"))


def test_app_that_knows_no_lifespan_leaves_it_to_the_guard(make_guard):
    guard = make_guard()

    async def inner(scope, receive, send):
        raise NotImplementedError(scope["type"])

    async def walk():
        async with served(guard.asgi(inner)):
            pass

    run(walk())
    with pytest.raises(GuardFault):
        guard.check(ToolRequest.direct(tool="add", token="x"))


def test_failure_of_an_apps_start_is_not_hidden(make_guard):
    guard = make_guard()

    async def inner(scope, receive, send):
        await receive()
        raise OSError("no database")

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        pytest.fail(str(message))

    with pytest.raises(OSError, match="no database"):
        run(guard.asgi(inner)({"type": "lifespan"}, receive, send))


def several(guards, builds):
    """One Starlette app with a server under each name, and the lifespans of all."""
    layers = {
        name: guards[name].asgi(build(guards[name], number))
        for number, (name, build) in enumerate(zip(guards, builds, strict=True), 1)
    }

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with contextlib.AsyncExitStack() as stack:
            for layer in layers.values():
                await stack.enter_async_context(layer.lifespan(app))
            yield

    routes = [route for guard in guards.values() for route in guard.metadata_routes()]
    return Starlette(routes=[*routes, *(Mount(f"/{name}", layer) for name, layer in layers.items())], lifespan=lifespan)


def test_several_servers_in_one_app_keep_tokens_limits_and_records_apart(make_mounted, issuer):
    limits = {"rules": [{"per": "principal", "quota": "3/minute", "method": "tools/call"}]}
    guards = {"one": make_mounted("one", limits=limits), "two": make_mounted("two", limits=limits)}
    app = several(guards, [sdk_app, fastmcp_app])
    body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            for name in guards:
                sent = headers(issuer.token(aud=f"{BASE}/{name}/mcp"), "tools/call", "add")
                for expected in (200, 200, 200, 429):
                    answer = await http.post(f"/{name}/mcp", json=body, headers=sent)
                    assert answer.status_code == expected, answer.text
                assert (await http.get(f"{ROOT_METADATA}/{name}/mcp")).json()["resource"] == f"{BASE}/{name}/mcp"
                other = {"one": "two", "two": "one"}[name]
                refused = await http.post(f"/{other}/mcp", json=body, headers=sent)
                assert refused.json()["error"]["data"]["code"] == "audience_mismatch"
                assert f"{ROOT_METADATA}/{other}/mcp" in refused.headers["www-authenticate"]
            assert (await http.get(ROOT_METADATA)).json()["resource"] == f"{BASE}/one/mcp"
            for name, guard in guards.items():
                found = [record["result"] for record in records(guard) if record["event_type"] == "decision"]
                assert found.count("allowed") == 3, name

    run(walk())


def test_several_servers_answer_with_their_own_tools(make_mounted, issuer):
    guards = {"one": make_mounted("one"), "two": make_mounted("two")}
    app = several(guards, [fastmcp_app, sdk_app])

    async def walk():
        async with served(app) as transport:
            for era in ("modern", "legacy"):
                assert await add(transport, "/one/mcp", issuer.token(aud=f"{BASE}/one/mcp"), era) == "3"
                assert await add(transport, "/two/mcp", issuer.token(aud=f"{BASE}/two/mcp"), era) == "4"

    run(walk())


def test_layers_of_two_guards_around_one_app_guard_a_path_each(make_guard, config, issuer):
    """Each declares the other's path public; what one has proved is no proof for the other's server."""
    names = ("one", "two")
    guards = [
        make_guard(
            resource={"url": f"{BASE}/{name}/mcp", "public": [f"/{other}/mcp", f"{ROOT_METADATA}/{other}/mcp"]},
            audit={"path": f"{config['audit']['path']}-{name}"},
        )
        for name, other in zip(names, reversed(names), strict=True)
    ]
    apps = [sdk_app(guard, number) for number, guard in enumerate(guards, 1)]

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with apps[0].router.lifespan_context(apps[0]), apps[1].router.lifespan_context(apps[1]):
            yield

    inner = Starlette(routes=[Mount("/one", apps[0]), Mount("/two", apps[1])], lifespan=lifespan)
    app = guards[0].asgi(guards[1].asgi(inner))

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            for number, name in enumerate(names, 1):
                token = issuer.token(aud=f"{BASE}/{name}/mcp")
                assert await add(transport, f"/{name}/mcp", token) == str(2 + number)
                assert (await http.post(f"/{name}/mcp", json=message("tools/list"))).status_code == 401
                other = {"one": "two", "two": "one"}[name]
                answer = await http.post(
                    f"/{other}/mcp", json=message("tools/list"), headers=headers(token, "tools/list")
                )
                assert answer.status_code == 401
                assert (await http.get(f"{ROOT_METADATA}/{name}/mcp")).json()["resource"] == f"{BASE}/{name}/mcp"

    run(walk())


def test_guards_of_one_process_share_no_revocation_and_no_key(make_mounted, issuer):
    one, two = make_mounted("one"), make_mounted("two")
    stranger = Issuer()
    three = make_mounted("three", issuers=[{"issuer": stranger.issuer, "jwks": stranger.jwks, "algorithms": ["ES256"]}])

    def check(guard, name, token_issuer=issuer):
        token = token_issuer.token(aud=f"{BASE}/{name}/mcp")
        return guard.check(ToolRequest.direct(tool="add", token=token))

    one.revoke(subject="alice")
    with pytest.raises(Denied) as denied:
        check(one, "one")
    assert denied.value.code == "token_revoked"
    assert check(two, "two").subject == "alice"
    assert check(three, "three", stranger).subject == "alice"
    with pytest.raises(Denied) as denied:
        check(three, "three")
    assert denied.value.code == "signature_invalid"
    one.close()
    assert check(two, "two").subject == "alice"


def test_proof_of_one_guard_is_none_for_the_server_of_another(make_guard, config, issuer):
    """A server whose message layer belongs to another guard than the ASGI layer in front of it runs nothing."""
    front = make_guard()
    back = make_guard(audit={"path": f"{config['audit']['path']}-back"})
    front.attached.add("http")
    app = front.asgi(sdk_app(back))

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
            answer = await http.post("/mcp", json=body, headers=headers(issuer.token(), "tools/call", "add"))
            assert answer.json()["error"]["data"]["code"] == "call_unproved"

    run(walk())


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
def test_mounted_server_is_guarded_on_a_real_server(make_mounted, issuer, server):
    guard = make_mounted("api")
    guarded = guard.asgi(sdk_app(guard))
    app = fastapi.FastAPI(lifespan=guarded.lifespan)
    app.router.routes.extend(guard.metadata_routes())
    app.mount("/api", guarded)
    body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
    with running(server, app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        sent = headers(issuer.token(aud=f"{BASE}/api/mcp"), "tools/call", "add")
        assert http.post("/api/mcp", json=body, headers=sent).json()["result"]["content"][0]["text"] == "3"
        assert http.post("/api/mcp", json=body).status_code == 401
        assert http.post("/mcp", json=body, headers=sent).status_code == 404
        assert http.get(f"{ROOT_METADATA}/api/mcp").status_code == 200
