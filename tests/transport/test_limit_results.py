"""Spent limits as results of the tool, which models read: `limits.answer = "result"`."""

from __future__ import annotations

import json

import httpx2
import pytest
from fastmcp import Client as FastMCPClient
from fastmcp import FastMCP
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError

from support import records
from transport_support import BASE, client, headers, message, run, served

LIMITS = {"rules": [{"per": "principal", "quota": "1/minute", "name": "few"}]}
BY_RESULT = {**LIMITS, "answer": "result"}
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


def add(a: int, b: int) -> int:
    return a + b


def sdk(guard, transport="http"):
    server = MCPServer("test", middleware=[guard.mcp_middleware(transport=transport)])
    server.tool()(add)
    return server


def fastmcp(guard, transport="http"):
    server = FastMCP("test", middleware=[guard.fastmcp_middleware(transport=transport)])
    server.tool(add)
    return server


def app_of(server):
    if isinstance(server, FastMCP):
        return server.http_app(path="/mcp")
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return server.streamable_http_app(transport_security=security)


def posted(guard, *bodies, token):
    """Answers to raw requests, one after the other."""

    async def walk():
        app = guard.asgi(app_of(sdk(guard)))
        async with served(app) as transport, httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            heads = [headers(token, body["method"], body["params"].get("name")) for body in bodies]
            return [await http.post("/mcp", json=body, headers=head) for body, head in zip(bodies, heads, strict=True)]

    return run(walk())


def told(result) -> str:
    assert result.is_error
    return result.content[0].text


@pytest.mark.parametrize("mode", ["modern", "legacy"])
@pytest.mark.parametrize("build", [sdk, fastmcp])
def test_r2_model_reads_which_limit_it_was_and_when_to_try_again(make_guard, issuer, build, mode):
    rules = [{"per": "principal", "tool": "add", "quota": "1/minute", "name": "few"}]
    guard = make_guard(limits={"rules": rules, "answer": "result"})

    async def walk():
        app = guard.asgi(app_of(build(guard)))
        async with served(app) as transport, client(transport, issuer.token(), mode) as found:
            assert (await found.call_tool("add", CALL["arguments"])).content[0].text == "3"
            return await found.call_tool("add", CALL["arguments"])

    text = told(run(walk()))

    assert text.startswith("too many calls: `few` allows 1 in 60 s; try again in ")
    assert 0 < int(text.removesuffix(" s.").rsplit(" ", 1)[1]) <= 61


def test_r2_http_answer_says_it_in_its_fields_too(make_guard, issuer):
    _, answer = posted(make_guard(limits=BY_RESULT), *[message("tools/call", CALL)] * 2, token=issuer.token())

    assert answer.status_code == 200
    assert 0 < int(answer.headers["retry-after"]) <= 61
    assert answer.headers["ratelimit"].startswith('"few";r=0')
    result = answer.json()["result"]
    assert (result["isError"], result["resultType"]) == (True, "complete")
    data = result["_meta"]["mcp-fastguard/refusal"]
    assert (data["code"], data["limit"]["policy"]) == ("quota_spent", "few")


def test_record_of_such_a_refusal_is_that_of_every_other(make_guard, issuer):
    guard = make_guard(limits=BY_RESULT)
    posted(guard, *[message("tools/call", CALL)] * 2, token=issuer.token())

    guard.flush()
    refused = [record for record in records(guard, "decision") if record["result"] != "allowed"]
    assert [(record["code"], record["limit"]["rule"]) for record in refused] == [("quota_spent", "few")]


def test_error_is_the_default(make_guard, issuer):
    _, answer = posted(make_guard(limits=LIMITS), *[message("tools/call", CALL)] * 2, token=issuer.token())

    assert answer.status_code == 429
    assert answer.json()["error"]["data"]["code"] == "quota_spent"


@pytest.mark.parametrize(
    "last",
    [message("ping"), {name: value for name, value in message("tools/call", CALL).items() if name != "id"}],
    ids=["another method", "a message that wants no answer"],
)
def test_only_a_call_of_a_tool_that_wants_an_answer_gets_a_result(make_guard, issuer, last):
    _, answer = posted(make_guard(limits=BY_RESULT), message("tools/call", CALL), last, token=issuer.token())

    assert (answer.status_code, answer.json()["error"]["code"]) == (429, 429)


def test_other_refusals_stay_errors(make_guard, issuer):
    call = message("tools/call", {"name": "secret", "arguments": {}})
    weak, unknown = (posted(make_guard(limits=BY_RESULT), call, token=token)[0] for token in (issuer.token(), "a.b.c"))

    assert (weak.status_code, weak.json()["error"]["data"]["code"]) == (403, "scope_insufficient")
    assert unknown.status_code == 401


def test_reload_changes_how_limits_are_told(make_guard, config, issuer):
    guard = make_guard(limits=LIMITS)
    assert not guard.gate.tells_limits_by_result

    guard.gate.reload(json.dumps({**config, "limits": BY_RESULT}), is_json=True)

    assert guard.gate.tells_limits_by_result


def on_stdio(make_guard, limits):
    rule = {**limits["rules"][0], "tool": "add"}
    stdio = {"principal": "carol", "scopes": ["warehouse:query:read"]}
    return make_guard(limits={**limits, "rules": [rule]}, stdio=stdio)


def test_r2_server_on_standard_input_and_output_tells_it_alike(make_guard):
    async def walk():
        async with Client(sdk(on_stdio(make_guard, BY_RESULT), "stdio"), mode="legacy") as found:
            await found.call_tool("add", CALL["arguments"])
            return await found.call_tool("add", CALL["arguments"])

    assert told(run(walk())).startswith("too many calls: `few` allows 1 in 60 s; try again in ")


def test_r2_error_on_standard_input_and_output_is_none_of_the_reserved(make_guard):
    async def walk():
        async with Client(sdk(on_stdio(make_guard, LIMITS), "stdio"), mode="legacy") as found:
            await found.call_tool("add", CALL["arguments"])
            with pytest.raises(MCPError) as refused:
                await found.call_tool("add", CALL["arguments"])
            return refused.value

    error = run(walk())

    assert (error.code, error.data["code"], error.data["limit"]["policy"]) == (429, "quota_spent", "few")
    assert 0 < error.data["retryAfter"] <= 61


def test_r2_fastmcp_on_standard_input_and_output_tells_it_alike(make_guard):
    async def walk():
        async with FastMCPClient(fastmcp(on_stdio(make_guard, BY_RESULT), "stdio")) as found:
            await found.call_tool("add", CALL["arguments"])
            return await found.call_tool("add", CALL["arguments"], raise_on_error=False)

    assert told(run(walk())).startswith("too many calls: `few` allows 1 in 60 s; try again in ")


def test_limit_of_calls_that_run_says_to_wait_for_an_ending(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "concurrent": 0, "name": "none"}], "answer": "result"})

    [answer] = posted(guard, message("tools/call", CALL), token=issuer.token())

    text = answer.json()["result"]["content"][0]["text"]
    assert text.endswith("wait until a call has ended.")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_answer_to_what_is_no_json_is_json(make_guard, issuer, number):
    body = b'{"jsonrpc":"2.0","id":' + number + b',"method":"tools/call","params":{}}'

    async def walk():
        app = make_guard().asgi(None)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE) as http:
            return await http.post("/mcp", content=body, headers=headers(issuer.token()))

    answer = run(walk())

    assert answer.status_code == 400
    told = json.loads(answer.content, parse_constant=pytest.fail)
    assert (told["id"], told["error"]["data"]["code"]) == (None, "body_not_json")
