"""What users test their servers with, by in-memory clients: nothing is decided more kindly than behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json

import fastmcp
import mcp
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_fastguard import ToolRequest, current_call
from mcp_fastguard.errors import TokenDenied
from mcp_fastguard.testing import as_caller, denied
from testing_support import QUERY, RULES
from transport_support import client, run, served


def whoami() -> str:
    return json.dumps([current_call().subject, current_call().client_id])


def run_query(sql: str) -> str:
    return sql


def secret() -> str:
    pytest.fail("it ran")


def sdk_server(guard, transport="http"):
    server = MCPServer("test", middleware=[guard.mcp_middleware(transport=transport)], log_level="WARNING")
    for tool in (whoami, run_query, secret):
        server.tool()(tool)
    return server


def fastmcp_server(guard, transport="http"):
    server = fastmcp.FastMCP("test", middleware=[guard.fastmcp_middleware(transport=transport)])
    for tool in (whoami, run_query, secret):
        server.tool(tool)

    @server.tool
    async def outer(ctx: fastmcp.Context) -> str:
        return str(await ctx.fastmcp.call_tool("secret", {}))

    return server


SERVERS = {
    "mcp": (sdk_server, mcp.Client),
    "mcp, legacy": (sdk_server, lambda server: mcp.Client(server, mode="legacy")),
    "fastmcp": (fastmcp_server, fastmcp.Client),
}


@pytest.fixture
def guard(fastguard_guard):
    return fastguard_guard(RULES)


@pytest.fixture(params=list(SERVERS))
def connect(request, guard):
    """Connects an in-memory client to a server that the guard stands in front of."""
    build, client = SERVERS[request.param]
    server = build(guard)
    return lambda: client(server)


async def names(found):
    tools = await found.list_tools()
    return sorted(tool.name for tool in getattr(tools, "tools", tools))


# --- in-memory clients ----------------------------------------------------------------------------


def test_caller_in_memory_calls_what_its_scopes_allow(guard, connect):
    async def walk():
        with as_caller(scopes=[QUERY], subject="bob", client_id="notebook"):
            async with connect() as found:
                assert (await found.call_tool("run_query", {"sql": "select 7"})).content[0].text == "select 7"
                assert json.loads((await found.call_tool("whoami", {})).content[0].text) == ["bob", "notebook"]

    run(walk())
    ended = [record["status"] for record in guard.records() if record["event_type"] == "ending"]
    assert ended
    assert set(ended) == {"ok"}


def test_caller_in_memory_without_the_scope_is_refused(guard, connect):
    async def walk():
        with as_caller(scopes=["other"]):
            async with connect() as found:
                with denied("scope_insufficient") as refused:
                    await found.call_tool("run_query", {"sql": "select 1"})
        return refused.value

    refused = run(walk())
    assert (refused.status, refused.retry_after) == (403, None)
    assert QUERY in refused.challenge
    [record] = [record for record in guard.records() if record.get("result") == "denied"]
    assert record["tool_name"] == "run_query"


def test_tool_without_a_rule_is_refused_in_memory(connect):
    async def walk():
        with as_caller(scopes=[QUERY]):
            async with connect() as found:
                with denied("target_unknown"):
                    await found.call_tool("secret", {})

    run(walk())


def test_lists_in_memory_show_what_the_caller_may_use(connect):
    async def walk():
        with as_caller(scopes=[QUERY]):
            async with connect() as found:
                assert {"run_query", "whoami"} <= set(await names(found))
                assert "secret" not in await names(found)
        with as_caller():
            async with connect() as found:
                assert "run_query" not in await names(found)

    run(walk())


def test_limit_in_memory_is_freed_by_the_clock(connect, fastguard_clock):
    async def query(found):
        return (await found.call_tool("run_query", {"sql": "select 1"})).content[0].text

    async def walk():
        with as_caller(scopes=[QUERY]):
            async with connect() as found:
                assert [await query(found), await query(found)] == ["select 1"] * 2
                with denied("quota_spent") as refused:
                    await query(found)
                assert 60 <= refused.value.retry_after <= 61
                fastguard_clock.advance(30)
                with denied("quota_spent"):
                    await query(found)
                fastguard_clock.advance(31)
                assert await query(found) == "select 1"

    run(walk())


def test_token_of_a_caller_in_memory_expires_by_the_clock(connect, fastguard_clock):
    async def walk():
        with as_caller(expires_in=120):
            async with connect() as found:
                fastguard_clock.advance(149)
                await found.call_tool("whoami", {})
                # 120 s, and the leeway of 30 s.
                fastguard_clock.advance(1)
                with denied("token_expired"):
                    await found.call_tool("whoami", {})

    run(walk())


def test_revocation_ends_a_caller_in_memory(guard, connect):
    async def walk():
        with as_caller(subject="bob"):
            async with connect() as found:
                await found.call_tool("whoami", {})
                guard.revoke(subject="bob")
                with denied("token_revoked"):
                    await found.call_tool("whoami", {})

    run(walk())


def test_inner_caller_is_the_caller_of_messages_sent_inside(connect):
    async def walk():
        with as_caller(subject="outer"):
            async with connect() as found:
                with as_caller(subject="inner"):
                    inner = json.loads((await found.call_tool("whoami", {})).content[0].text)
                outer = json.loads((await found.call_tool("whoami", {})).content[0].text)
        assert (inner[0], outer[0]) == ("inner", "outer")

    run(walk())


def test_callers_of_two_tasks_do_not_mix(connect):
    async def ask(subject):
        with as_caller(subject=subject):
            async with connect() as found:
                for _ in range(5):
                    yield_to_the_other = await found.call_tool("whoami", {})
                    assert json.loads(yield_to_the_other.content[0].text)[0] == subject

    async def walk():
        await asyncio.gather(ask("alice"), ask("bob"))

    run(walk())


def test_nested_call_in_memory_is_refused_under_its_own_name(guard):
    async def walk():
        with as_caller(scopes=[QUERY]):
            async with fastmcp.Client(fastmcp_server(guard)) as found:
                with contextlib.suppress(MCPError, fastmcp.exceptions.ToolError):
                    await found.call_tool("outer", {})

    run(walk())
    refused = [record["tool_name"] for record in guard.records() if record.get("result") == "denied"]
    assert refused == ["secret"]


def test_server_on_standard_input_and_output_takes_the_caller_too(fastguard_guard, tmp_path):
    guard = fastguard_guard({**RULES, "stdio": {"token_file": str(tmp_path / "missing")}})

    async def walk(build, connect):
        with as_caller(subject="bob"):
            async with connect(build(guard, "stdio")) as found:
                assert json.loads((await found.call_tool("whoami", {})).content[0].text)[0] == "bob"

    for server in SERVERS.values():
        run(walk(*server))


# --- what it must not weaken ----------------------------------------------------------------------


@pytest.fixture(params=[sdk_server, fastmcp_server], ids=["mcp", "fastmcp"])
def refused_code(request):
    """The code with which a server refuses a call by an in-memory client."""
    build = request.param

    async def walk(guard):
        # With its era given, a client sends nothing while it connects.
        client = mcp.Client if build is sdk_server else fastmcp.Client
        async with client(build(guard), mode="2026-07-28") as found:
            with pytest.raises(MCPError) as refused:
                await found.call_tool("whoami", {})
        return refused.value.data["code"]

    return lambda guard: run(walk(guard))


def test_message_in_memory_without_a_caller_is_unproved(guard, refused_code, caplog):
    assert refused_code(guard) == "call_unproved"
    assert guard.records() == []
    assert "as_caller" in caplog.text


def test_guard_of_production_does_not_honour_a_caller(make_guard, config, refused_code):
    config["tools"]["whoami"] = {"open": True}
    with as_caller(scopes=[QUERY]):
        assert refused_code(make_guard()) == "call_unproved"


def test_caller_for_a_guard_of_production_is_a_mistake(make_guard):
    with pytest.raises(TypeError, match=r"testing\.guard"), as_caller(make_guard()):
        pytest.fail("it was taken")


def test_caller_of_another_guard_is_not_honoured(guard, fastguard_guard, refused_code):
    with as_caller(fastguard_guard(RULES), scopes=[QUERY]):
        assert refused_code(guard) == "call_unproved"


def test_message_of_an_http_request_needs_the_proof_of_the_asgi_layer(guard):
    from mcp.server.transport_security import TransportSecuritySettings

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    # `guard.asgi` was forgotten: the test must show it, whoever the caller is said to be.
    unguarded = sdk_server(guard).streamable_http_app(transport_security=security)

    async def walk():
        with as_caller(scopes=[QUERY]):
            async with served(unguarded) as transport, client(transport, None, "modern") as found:
                with pytest.raises(MCPError) as refused:
                    await found.call_tool("whoami", {})
                assert refused.value.data == {"code": "call_unproved"}

    run(walk())


def test_gate_that_layers_use_is_told_the_same_time(guard, make_token, fastguard_clock):
    call = guard.check(ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=make_token([QUERY])))
    guard.gate.recheck(call)
    fastguard_clock.advance(86_400)
    with pytest.raises(TokenDenied) as refused:
        guard.gate.recheck(call)
    assert refused.value.code == "token_expired"


def test_token_over_http_is_accepted_and_limited_by_the_clock(guard, make_token, fastguard_clock):
    from mcp.server.transport_security import TransportSecuritySettings

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = guard.asgi(sdk_server(guard).streamable_http_app(transport_security=security))

    async def walk():
        async with served(app) as transport, client(transport, make_token([QUERY]), "modern") as found:
            for _ in range(2):
                await found.call_tool("run_query", {"sql": "select 1"})
            with denied("quota_spent"):
                await found.call_tool("run_query", {"sql": "select 1"})
            fastguard_clock.advance(61)
            await found.call_tool("run_query", {"sql": "select 1"})

    run(walk())


def test_clock_rules_long_bodies_and_nested_calls_over_http(guard, make_token, fastguard_clock):
    fastguard_clock.advance(1000)
    app = guard.asgi(fastmcp_server(guard).http_app(path="/mcp"))

    async def walk():
        async with served(app) as transport, client(transport, make_token([QUERY]), "modern") as found:
            # Longer than what is read before the token is checked.
            long = "select 1 -- " + "x" * 70_000
            assert (await found.call_tool("run_query", {"sql": long})).content[0].text == long
            with contextlib.suppress(MCPError):
                await found.call_tool("outer", {})

    run(walk())
    refused = [(record["tool_name"], record["code"]) for record in guard.records() if record.get("result") == "denied"]
    assert refused == [("secret", "target_unknown")]


def test_caller_with_a_token_of_the_test_s_own_is_decided_by_it(connect):
    async def walk():
        with as_caller(scopes=[QUERY]):
            async with connect() as found:
                with as_caller(token="opaque"), denied("token_malformed"):
                    await found.call_tool("whoami", {})

    run(walk())
