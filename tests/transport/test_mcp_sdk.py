"""Decision 8, attack by attack, through the official SDK's server and client."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest
from mcp import Client
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_fastguard import current_call
from support import RESOURCE, records
from transport_support import BASE, ERAS, client, headers, message, run, served


def build(guard, *, sdk_auth=False):
    extra = {}
    if sdk_auth:
        extra = {
            "token_verifier": guard.token_verifier(),
            "auth": AuthSettings(
                issuer_url="https://auth.example.com", resource_server_url=RESOURCE, validate_token_resource=True
            ),
        }
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()], **extra)

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool()
    def run_query(sql: str) -> str:
        current_call().record(rows=3)
        return sql

    @mcp.tool()
    def secret() -> str:
        return "the secret"

    @mcp.tool()
    def whoami() -> str:
        token = get_access_token()
        return json.dumps([current_call().subject, token.subject if token else None])

    @mcp.prompt()
    def hello() -> str:
        return "hello"

    @mcp.resource("file:///open.txt")
    def open_file() -> str:
        return "open"

    @mcp.resource("file:///hidden.txt")
    def hidden_file() -> str:
        return "hidden"

    return mcp


@pytest.fixture
def rules(config):
    config["tools"]["whoami"] = {"open": True}
    config["prompts"] = {"hello": {"open": True}}
    config["resources"] = {"file:///open.txt": {"open": True}}
    return config


def app_of(guard, **options):
    from mcp.server.transport_security import TransportSecuritySettings

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return guard.asgi(build(guard, **options).streamable_http_app(transport_security=security))


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("sdk_auth", [False, True], ids=["alone", "with the SDK's auth"])
def test_client_lists_and_calls_what_it_may(make_guard, rules, issuer, mode, sdk_auth):
    guard = make_guard()

    async def walk():
        async with (
            served(app_of(guard, sdk_auth=sdk_auth)) as transport,
            client(transport, issuer.token(), mode) as found,
        ):
            assert sorted(tool.name for tool in (await found.list_tools()).tools) == ["add", "run_query", "whoami"]
            assert [str(entry.uri) for entry in (await found.list_resources()).resources] == ["file:///open.txt"]
            assert [prompt.name for prompt in (await found.list_prompts()).prompts] == ["hello"]
            result = await found.call_tool("add", {"a": 1, "b": 2})
            assert result.content[0].text == "3"
            who = await found.call_tool("whoami", {})
            assert json.loads(who.content[0].text) == ["alice", "alice"]
            assert (await found.read_resource("file:///open.txt")).contents[0].text == "open"
            with pytest.raises(MCPError):
                await found.read_resource("file:///hidden.txt")
            with pytest.raises(MCPError):
                await found.call_tool("secret", {})

    run(walk())


def test_list_of_one_caller_is_private(make_guard, rules, issuer):
    guard = make_guard()

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            answer = await http.post(
                RESOURCE, json=message("tools/list"), headers=headers(issuer.token(), "tools/list")
            )
            assert answer.json()["result"]["cacheScope"] == "private"

    run(walk())


def test_call_is_limited_and_recorded_once_with_its_ending(make_guard, rules, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "2/minute"}]})

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            for expected in (200, 200, 429):
                body = message("tools/call", {"name": "run_query", "arguments": {"sql": "x"}})
                answer = await http.post(
                    RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", "run_query")
                )
                assert answer.status_code == expected, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["id"] == 1
            found = records(guard)
            assert [record["event_type"] for record in found] == ["decision", "ending"] * 2 + ["decision"]
            assert found[1]["output_summary"]["rows"] == 3
            assert found[0]["peer"] == "192.0.2.7"

    run(walk())


CALL = {"name": "secret", "arguments": {}}
ATTACKS = {
    "forged headers in an old version": (
        headers("TOKEN", "tools/call", "add", "2025-11-25"),
        message("tools/call", CALL),
        400,
    ),
    "forged headers in the new version": (headers("TOKEN", "tools/call", "add"), message("tools/call", CALL), 400),
    "forged headers without a version": (headers("TOKEN", "tools/call", "add", None), message("tools/call", CALL), 400),
    "a batch": (headers("TOKEN"), [message("tools/call", CALL)], 400),
    "a duplicate name": (
        headers("TOKEN", version=None),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","name":"secret","arguments":{}}}',
        400,
    ),
    "an escaped duplicate name": (
        headers("TOKEN", version=None),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","n\\u0061me":"secret","arguments":{}}}',
        400,
    ),
    "UTF-16": (headers("TOKEN"), json.dumps(message("tools/call", CALL)).encode("utf-16"), 400),
    "an encoded body": ({**headers("TOKEN"), "content-encoding": "gzip"}, message("tools/call", CALL), 415),
    "no JSON": (headers("TOKEN"), b"{", 400),
    "deep nesting": (headers("TOKEN"), b"[" * 5000 + b"]" * 5000, 400),
    "a version selector": (
        headers("TOKEN", version=None),
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "add", "_meta": {"fastmcp": {"version": "1"}}},
        },
        400,
    ),
    "a tool without the scope": (headers("TOKEN", "tools/call", "secret"), message("tools/call", CALL), 403),
    "an unknown method": (headers("TOKEN", "x/y"), message("x/y"), 403),
    "no token": (headers(None), message("tools/call", CALL), 401),
    "a token in another scheme": ({**headers(None), "authorization": "Basic YTpi"}, message("tools/call", CALL), 401),
    "a token in the query": (headers(None), message("tools/call", CALL), 401),
    "a body beyond the bound": (headers("TOKEN"), b" " * (4 * 1024 * 1024 + 1), 413),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_and_no_tool_runs(make_guard, rules, issuer, attack):
    guard = make_guard()
    sent, body, expected = ATTACKS[attack]
    sent = {name: value.replace("TOKEN", issuer.token()) for name, value in sent.items()}

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            url = f"{RESOURCE}?access_token={issuer.token()}" if "query" in attack else RESOURCE
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = await http.post(url, content=content, headers=sent)
            assert answer.status_code == expected, answer.text
            assert "the secret" not in answer.text

    run(walk())


@pytest.mark.parametrize("name", ["authorization", "mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id"])
def test_repeated_routing_header_is_refused(make_guard, rules, issuer, name):
    guard = make_guard()

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            sent = [*headers(issuer.token(), "tools/call", "add").items(), ("mcp-session-id", "s")]
            sent.append((name, dict(sent)[name]))
            body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
            answer = await http.post(RESOURCE, json=body, headers=sent)
            assert answer.status_code == 400
            assert answer.json()["error"]["data"]["code"] == "header_duplicated"

    run(walk())


def test_long_body_is_not_read_before_the_token_is_checked(make_guard, rules):
    guard = make_guard()
    given = []

    async def walk():
        async def receive():
            given.append(1)
            return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

        answers = []

        async def send(answer):
            answers.append(answer)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "headers": [(b"authorization", b"Bearer a.b.c")],
            "client": ("192.0.2.7", 1),
        }
        await app_of(guard)(scope, receive, send)
        assert answers[0]["status"] == 401
        assert len(given) == 2

    run(walk())


def test_undeclared_path_is_not_found_and_public_one_passes(make_guard, rules):
    guard = make_guard()

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(guard.asgi(inner)), base_url=BASE) as http:
            assert (await http.get("/health")).text == "/health"
            for path in ("/", "/mcp/", "/mcp/sub", "/MCP", "/other", "/health/", "/health/../mcp"):
                assert (await http.get(path)).status_code in {401, 404}, path
            preflight = {"origin": "https://x", "access-control-request-method": "POST"}
            assert (await http.options("/mcp", headers=preflight)).status_code == 200
            assert (await http.options("/mcp")).status_code == 405
            metadata = await http.get("/.well-known/oauth-protected-resource/mcp")
            assert metadata.json()["resource"] == RESOURCE
            assert metadata.json()["authorization_servers"] == ["https://auth.example.com"]
            assert (await http.get("/.well-known/oauth-protected-resource")).status_code == 200

    run(walk())


def test_websocket_is_refused(make_guard, rules):
    guard = make_guard()

    async def inner(scope, receive, send):
        pytest.fail("it was reached")

    async def walk():
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(answer):
            sent.append(answer)

        await guard.asgi(inner)({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]

    run(walk())


def test_attributes_of_the_app_are_handed_through(make_guard, rules):
    app = app_of(make_guard())
    assert app.router is app.app.router


def test_lists_are_refused_without_the_message_layer(make_guard, rules, issuer):
    guard = make_guard()

    async def inner(scope, receive, send):
        pytest.fail("it was reached")

    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(guard.asgi(inner))) as http:
            answer = await http.post(
                RESOURCE, json=message("tools/list"), headers=headers(issuer.token(), "tools/list")
            )
            assert answer.status_code == 500
            assert answer.json()["error"]["data"]["code"] == "middleware_missing"

    run(walk())


def test_client_in_memory_is_refused(make_guard, rules):
    guard = make_guard()

    async def walk():
        async with Client(build(guard), mode="2026-07-28") as found:
            with pytest.raises(MCPError) as refused:
                await found.call_tool("add", {"a": 1, "b": 2})
            assert refused.value.data["code"] == "call_unproved"

    run(walk())


def test_proof_is_spent_once_and_by_its_own_message_only(make_guard, rules, issuer):
    from mcp_fastguard import ToolRequest

    guard = make_guard()
    body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})

    async def walk():
        request = ToolRequest.http(
            method="POST",
            path="/mcp",
            headers=[(b"authorization", b"Bearer " + issuer.token().encode())],
            body=json.dumps(body).encode(),
        )
        call = guard.call(request)
        await call.authorize()
        assert not call.take("tools/call", {"name": "secret", "arguments": {}})
        assert not call.take("tools/call", {"name": "add", "arguments": {"a": 1, "b": 3}})
        assert not call.take("tools/call", {"name": "add", "arguments": {"a": True, "b": 2}})
        assert not call.take("tools/call", {"name": "add", "arguments": {"a": 1.0, "b": 2}})
        assert not call.take("tools/list", {})
        assert call.take("tools/call", {"name": "add", "arguments": {"b": 2, "a": 1}})
        assert not call.take("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
        late = guard.call(request)
        await late.authorize()
        late.close()
        assert not late.take("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})

    run(walk())


def test_nested_call_is_decided_under_its_own_name(make_guard, rules, issuer):
    from mcp_fastguard import Denied, ToolRequest

    guard = make_guard()

    async def walk():
        call = guard.call(ToolRequest.direct(tool="add", arguments={}, token=issuer.token()))
        await call.authorize()
        nested = await call.nested(ToolRequest.message(method="tools/call", params={"name": "run_query"}))
        assert nested.proof.tool == "run_query"
        with pytest.raises(Denied) as denied:
            await call.nested(ToolRequest.message(method="tools/call", params={"name": "secret"}))
        assert denied.value.code == "scope_insufficient"
        guard.revoke(subject="alice")
        with pytest.raises(Denied) as denied:
            await call.nested(ToolRequest.message(method="tools/call", params={"name": "add"}))
        assert denied.value.code == "token_revoked"

    run(walk())


def test_session_of_one_caller_is_not_open_to_another(make_guard, rules, issuer):
    guard = make_guard()

    async def walk():
        async with served(app_of(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            hello = {
                "jsonrpc": "2.0",
                "id": 0,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                },
            }
            first = await http.post(RESOURCE, json=hello, headers=headers(issuer.token(), version=None))
            session = first.headers["mcp-session-id"]
            call = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "add", "arguments": {"a": 1, "b": 1}},
            }
            sent = {**headers(issuer.token(sub="mallory"), version="2025-11-25"), "mcp-session-id": session}
            stolen = await http.post(RESOURCE, json=call, headers=sent)
            assert stolen.status_code == 404
            sent = {**headers(issuer.token(), version="2025-11-25"), "mcp-session-id": session}
            own = await http.post(RESOURCE, json=call, headers=sent)
            assert own.status_code == 200

    run(walk())


def test_sdk_auth_refuses_a_token_that_came_round_the_guard(make_guard, rules, issuer):
    guard = make_guard()
    inner = build(guard, sdk_auth=True).streamable_http_app()

    async def walk():
        async with served(inner) as transport, httpx2.AsyncClient(transport=transport) as http:
            body = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
            answer = await http.post(RESOURCE, json=body, headers=headers(issuer.token(), "tools/call", "add"))
            assert answer.status_code in {401, 421}

    run(walk())


def test_stream_of_a_dead_token_is_ended(make_guard, rules, issuer, monkeypatch):
    from mcp_fastguard.transport import watch

    monkeypatch.setattr(watch, "RECHECK_INTERVAL", 0.02)
    guard = make_guard()
    ended = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def walk():
        sent = []

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(answer):
            sent.append(answer)
            guard.revoke(subject="alice")

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/mcp",
            "headers": [(b"authorization", b"Bearer " + issuer.token().encode())],
            "client": None,
        }
        await guard.asgi(inner)(scope, receive, send)
        assert ended == [True]
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}

    run(walk())


def test_stdio_takes_its_caller_from_the_configuration(make_guard, rules, issuer, tmp_path):
    file = tmp_path / "token"
    file.write_text(issuer.token())
    guard = make_guard(stdio={"token_file": str(file)})
    mcp = MCPServer("test", middleware=[guard.mcp_middleware(transport="stdio")])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool()
    def secret() -> str:
        pytest.fail("it ran")

    async def walk():
        async with Client(mcp, mode="legacy") as found:
            assert [tool.name for tool in (await found.list_tools()).tools] == ["add"]
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
            with pytest.raises(MCPError) as refused:
                await found.call_tool("secret", {})
            assert (refused.value.code, refused.value.data["code"]) == (403, "scope_insufficient")
            guard.revoke(subject="alice")
            with pytest.raises(MCPError) as refused:
                await found.call_tool("add", {"a": 1, "b": 2})
            assert refused.value.data["code"] == "token_revoked"

    run(walk())


def test_stdio_must_be_declared_in_the_configuration(make_guard, rules):
    with pytest.raises(ValueError, match="stdio"):
        make_guard().mcp_middleware(transport="stdio")
    with pytest.raises(ValueError, match="transport"):
        make_guard().mcp_middleware(transport="carrier pigeon")
