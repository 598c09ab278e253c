"""FastMCP 4: lists, calls, nested calls, mounted servers, its own auth."""

from __future__ import annotations

import httpx2
import pytest
from fastmcp import Context, FastMCP
from fastmcp.server.auth import StaticTokenVerifier
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from fastmcp.server.dependencies import get_access_token, get_http_request
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

from mcp_fastguard import Guard
from mcp_fastguard.transport.fastmcp import _params
from support import ISSUER, RESOURCE, records
from transport_support import BASE, client, headers, message, run, served


def build(guard, *, auth=False):
    extra = {"auth": guard.fastmcp_auth()} if auth else {}
    mcp = FastMCP("test", middleware=[guard.fastmcp_middleware()], **extra)
    child = FastMCP("child")

    @mcp.tool
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool
    def secret() -> str:
        return "the secret"

    @mcp.tool
    async def run_query(sql: str, ctx: Context) -> str:
        """Calls another tool of the same server, as code-mode tools do."""
        result = await ctx.fastmcp.call_tool(sql, {})
        return str(result)

    @child.tool
    def list_tables() -> str:
        return "tables"

    @child.tool
    def hidden() -> str:
        return "hidden"

    mcp.mount(child, namespace="child")
    return mcp


@pytest.fixture
def rules(config):
    config["tools"]["child_list_tables"] = {"open": True}
    return config


@pytest.mark.parametrize("mode", ["modern", "legacy"])
@pytest.mark.parametrize("auth", [False, True], ids=["alone", "with auth"])
def test_client_lists_and_calls_what_it_may(make_guard, rules, issuer, mode, auth):
    guard = make_guard()
    app = guard.asgi(build(guard, auth=auth).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, issuer.token(), mode) as found:
            names = sorted(tool.name for tool in (await found.list_tools()).tools)
            assert names == ["add", "child_list_tables", "run_query"]
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
            assert (await found.call_tool("child_list_tables", {})).content[0].text == "tables"
            for name in ("secret", "child_hidden"):
                with pytest.raises(MCPError):
                    await found.call_tool(name, {})

    run(walk())


def test_tool_that_asks_for_its_token_gets_the_one_that_is_held(make_guard, rules, issuer):
    rules["tools"]["lookup"] = {"open": True}
    guard = make_guard()
    server = build(guard)
    found = []

    @server.tool
    def lookup() -> str:
        found.extend([get_access_token(), get_http_request().scope["user"].access_token])
        return "done"

    async def walk():
        app = guard.asgi(server.http_app(path="/mcp"))
        async with served(app) as transport, client(transport, issuer.token(), "modern") as asking:
            await asking.call_tool("lookup", {})

    run(walk())
    token, held = found
    assert token is held
    assert (token.subject, token.claims["iss"]) == ("alice", ISSUER)


def test_message_of_a_class_that_takes_any_member_is_read_whole():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str

    assert _params(Open(name="add", arguments={"a": 1}, other="x")) == {"name": "add", "arguments": {"a": 1}}


def test_nested_call_of_a_tool_is_refused_under_its_own_name(make_guard, rules, issuer):
    guard = make_guard()
    app = guard.asgi(build(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, issuer.token(), "modern") as found:
            try:
                result = await found.call_tool("run_query", {"sql": "secret"})
                assert result.is_error
                assert "the secret" not in str(result)
            except MCPError as refused:
                assert refused.data["code"] == "scope_insufficient"

    run(walk())
    denied = [record for record in records(guard) if record.get("result") == "denied"]
    assert [record["tool_name"] for record in denied] == ["secret"]


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_nested_call_that_the_caller_may_make_is_decided_and_recorded_by_itself(make_guard, rules, issuer, mode):
    guard = make_guard()
    app = guard.asgi(build(guard).http_app(path="/mcp"))
    token = issuer.token(scope="warehouse:query:read secret:use")

    async def walk():
        async with served(app) as transport, client(transport, token, mode) as found:
            return await found.call_tool("run_query", {"sql": "secret"})

    assert "the secret" in run(walk()).content[0].text
    decided = [record for record in records(guard, "decision") if record.get("tool_name")]
    assert [(record["tool_name"], record["result"]) for record in decided] == [
        ("run_query", "allowed"),
        ("secret", "allowed"),
    ]
    # Each has an ending of its own, the inner one first.
    ended = [record["decision"] for record in records(guard, "ending")]
    assert [one for one in ended if one in {record["id"] for record in decided}] == [
        record["id"] for record in reversed(decided)
    ]


def test_synthetic_lists_are_neither_limited_nor_recorded(make_guard, rules, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "2/minute", "method": "tools/*"}]})
    app = guard.asgi(build(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, httpx2.AsyncClient(transport=transport) as http:
            for expected in (200, 200, 429):
                body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
                answer = await http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", "add"))
                assert answer.status_code == expected

    run(walk())
    methods = [
        record["method"]
        for record in records(guard)
        if record["event_type"] == "decision" and record["method"].startswith("tools/")
    ]
    assert methods == ["tools/call"] * 3


# --- a login of FastMCP's own, and its own runner ------------------------------------------------


def with_login(tmp_path):
    """An app as `mcp.run` builds it: no layer of ours around it but what the auth provider brings."""
    login = StaticTokenVerifier(
        {
            "good": {"client_id": "agent", "scopes": ["q:read"], "sub": "alice"},
            "narrow": {"client_id": "agent", "scopes": [], "sub": "bob"},
        }
    )
    config = {
        "version": 1,
        "resource": {"url": RESOURCE, "authorization_servers": ["https://login.example.com"], "public": ["/health"]},
        "tools": {"add": {"scopes": ["q:read"]}},
        "audit": {"path": str(tmp_path)},
    }
    guard = Guard.from_dict(config, verifier=login)
    mcp = FastMCP("test", auth=guard.fastmcp_auth(inner=login), middleware=[guard.fastmcp_middleware()])

    @mcp.tool
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool
    def secret() -> str:
        return "the secret"

    @mcp.custom_route("/health", methods=["GET"])
    async def health(_):
        return JSONResponse({"is": "well"})

    @mcp.custom_route("/admin", methods=["GET"])
    async def admin(_):
        return JSONResponse({"is": "open"})

    return guard, mcp


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_runner_of_fastmcp_is_guarded_by_its_auth_provider_alone(tmp_path, mode):
    guard, mcp = with_login(tmp_path)

    async def walk():
        async with served(mcp.http_app(path="/mcp")) as transport:
            async with client(transport, "good", mode) as found:
                assert [tool.name for tool in (await found.list_tools()).tools] == ["add"]
                assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
                with pytest.raises(MCPError):
                    await found.call_tool("secret", {})
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
                refused = await http.post("/mcp", json=message("tools/list"), headers=headers("nobody", "tools/list"))
                assert refused.status_code == 401
                assert "resource_metadata" in refused.headers["www-authenticate"]
                assert (await http.get("/health")).json() == {"is": "well"}
                # What nobody has declared public is not.
                assert (await http.get("/admin")).status_code == 404
                metadata = (await http.get("/.well-known/oauth-protected-resource/mcp")).json()
                assert metadata["authorization_servers"] == ["https://login.example.com"]

    run(walk())
    codes = {record.get("code") for record in records(guard) if record.get("result") == "denied"}
    assert codes == {"verifier_refused", "target_unknown"}


def test_layer_that_stands_twice_decides_once(tmp_path):
    guard, mcp = with_login(tmp_path)
    app = guard.asgi(mcp.http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, "good", "modern") as found:
            await found.call_tool("add", {"a": 1, "b": 2})

    run(walk())
    calls = [record for record in records(guard) if record["event_type"] == "decision" and record["kind"] == "tool"]
    assert len(calls) == 1


def test_login_with_routes_of_its_own_stays_reachable(tmp_path):
    login = InMemoryOAuthProvider(base_url=BASE, client_registration_options=ClientRegistrationOptions(enabled=True))
    config = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "tools": {"add": {"open": True}},
        "audit": {"path": str(tmp_path)},
    }
    guard = Guard.from_dict(config, verifier=login)
    mcp = FastMCP("test", auth=guard.fastmcp_auth(inner=login), middleware=[guard.fastmcp_middleware()])

    async def walk():
        async with (
            served(mcp.http_app(path="/mcp")) as transport,
            httpx2.AsyncClient(transport=transport, base_url=BASE) as http,
        ):
            for path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp"):
                found = await http.get(path)
                assert found.status_code == 200, path
            assert (await http.post("/register", json={"redirect_uris": ["http://127.0.0.1/cb"]})).status_code == 201
            assert (await http.post("/mcp", json={})).status_code == 401
            assert (await http.get("/registers")).status_code == 404

    run(walk())


def test_tools_without_a_rule_and_rules_without_a_tool_are_named_once_at_the_start(make_guard, issuer, caplog):
    guard = make_guard(
        tools={name: {"open": True} for name in ("add", "run_query", "secret", "child_list_tables", "no_*")}
    )
    app = guard.asgi(build(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport:
            for _ in range(2):
                async with client(transport, issuer.token(), "modern") as found:
                    await found.list_tools()

    run(walk())
    told = [
        record.message for record in caplog.records if "has no rule" in record.message or "speaks of" in record.message
    ]
    assert told == [
        "tool `child_hidden` has no rule: it is refused",
        'tools."no_*" speaks of no tool of this server',
    ]
