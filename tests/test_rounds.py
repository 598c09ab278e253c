"""Room `audit`: the rounds of one call are joined in its records (MCP 2026-07-28, multi round-trip requests)."""

from __future__ import annotations

import asyncio

import fastmcp
import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import (
    ElicitRequest,
    ElicitRequestedSchema,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.testing import as_caller
from support import RESOURCE, records
from testing_support import QUERY, RULES
from transport_support import BASE, run, served

STATES = ["the secret of round one", "the secret of round two"]


def asking(state):
    schema: ElicitRequestedSchema = {"type": "object", "properties": {"word": {"type": "string"}}}
    question = ElicitRequest(params=ElicitRequestFormParams(message="which?", requested_schema=schema))
    return InputRequiredResult(input_requests={"word": question}, request_state=state)


def next_of(state):
    """What the tool says to the state that a client came with: two questions, and then an answer."""
    if state is None:
        return asking(STATES[0])
    return asking(STATES[1]) if state == STATES[0] else "done"


def sdk_server(guard):
    server = MCPServer("test", middleware=[guard.mcp_middleware()], log_level="WARNING")

    @server.tool()
    async def run_query(sql: str, ctx: Context) -> str | InputRequiredResult:
        return next_of(ctx.request_state)

    return server


def fastmcp_server(guard):
    server = fastmcp.FastMCP("test", middleware=[guard.fastmcp_middleware()])

    @server.tool
    async def run_query(sql: str, ctx: fastmcp.Context) -> str | InputRequiredResult:
        return next_of(ctx.request_state)

    return server


async def answer(*_):
    return ElicitResult(action="accept", content={"word": "the answer of the client"})


def ended(guard):
    return [record for record in records(guard, "ending") if record["kind"] == "tool"]


def assert_joined(guard, found):
    """Three endings of one call, each of which goes on with the one before."""
    assert [record["status"] for record in found] == ["input_required", "input_required", "ok"]
    assert {record["call"] for record in found} == {found[0]["decision"]}
    assert [record.get("continues") for record in found] == [None, found[0]["asks"], found[1]["asks"]]
    assert "asks" not in found[2]
    told = str(records(guard))
    assert not any(text in told for text in (*STATES, "the answer of the client"))


@pytest.mark.parametrize("build", [sdk_server, fastmcp_server])
def test_rounds_of_one_call_are_joined_over_http(make_guard, issuer, build):
    guard = make_guard()
    server = build(guard)
    if build is sdk_server:
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        app = server.streamable_http_app(transport_security=security)
    else:
        app = server.http_app(host_origin_protection=False)

    async def walk():
        bearer = {"authorization": f"Bearer {issuer.token()}"}
        async with (
            served(guard.asgi(app)) as transport,
            httpx2.AsyncClient(transport=transport, headers=bearer, base_url=BASE) as http,
            mcp.Client(
                streamable_http_client(RESOURCE, http_client=http), mode="2026-07-28", elicitation_callback=answer
            ) as client,
        ):
            for _ in range(2):
                assert (await client.call_tool("run_query", {"sql": "select 1"})).content[0].text == "done"
        return ended(guard)

    found = run(walk())
    assert_joined(guard, found[:3])
    assert_joined(guard, found[3:])
    assert found[0]["call"] != found[3]["call"]


def test_rounds_of_one_call_are_joined_in_process(fastguard_guard):
    guard = fastguard_guard({**RULES, "limits": {}})

    async def walk():
        with as_caller(scopes=[QUERY]):
            async with mcp.Client(sdk_server(guard), mode="2026-07-28", elicitation_callback=answer) as client:
                assert (await client.call_tool("run_query", {"sql": "select 1"})).content[0].text == "done"

    run(walk())
    assert_joined(guard, ended(guard))


def one_round(guard, token, *, comes_with=None, gives=None, sql="select 1"):
    """One message, and the state that its client brings and gets."""
    params = {"name": "run_query", "arguments": {"sql": sql}, **({} if comes_with is None else comes_with)}
    result = {"content": []} if gives is None else {"resultType": "input_required", **gives}

    async def walk():
        async with guard.call(ToolRequest.message(method="tools/call", params=params, token=token)) as call:
            call.comes_with(params)
            call.finish(result)

    asyncio.run(walk())
    return ended(guard)[-1]


def test_answers_without_a_state_are_joined_by_their_call(guard, issuer):
    token = issuer.token()
    first = one_round(guard, token, gives={"inputRequests": {}})
    other = one_round(guard, token, gives={"inputRequests": {}}, sql="select 2")
    again = one_round(guard, token, comes_with={"inputResponses": {}})

    assert again["call"] == first["decision"]
    assert other["call"] != first["decision"]


@pytest.mark.parametrize(
    ("who", "sql"), [({"sub": "mallory"}, "select 1"), ({}, "select 2")], ids=["another caller", "another call"]
)
def test_state_of_another_call_joins_nothing(guard, issuer, who, sql):
    state = {"requestState": STATES[0]}
    first = one_round(guard, issuer.token(), gives=state)

    other = one_round(guard, issuer.token(**who), comes_with=state, sql=sql)

    assert "call" not in other
    assert other["continues"] != first["asks"]


def test_round_that_another_process_began_is_joined_by_its_digest(config, issuer):
    """Another guard of the same place: it has not seen the first round."""
    state = {"requestState": STATES[0]}
    with Guard.from_dict(config) as one, Guard.from_dict(config) as other:
        first = one_round(one, issuer.token(), gives=state)
        again = one_round(other, issuer.token(), comes_with=state)

    assert again["continues"] == first["asks"]
    assert "call" not in again


def test_call_of_one_round_says_nothing_of_rounds(guard, issuer):
    ending = one_round(guard, issuer.token())

    assert not {"call", "continues", "asks"} & ending.keys()
