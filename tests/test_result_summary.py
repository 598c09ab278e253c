"""What the record of an ending says of the result: counts, by default or as the tool's author knows them."""

from __future__ import annotations

import asyncio

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import InputRequiredResult

from mcp_fastguard import ToolRequest, current_call
from support import records
from transport_support import client, run, served

RESULT = {"content": [{"type": "text", "text": "é,b"}], "structuredContent": {"result": [1, 2, 3]}}


def ending_of(guard, issuer, result=RESULT, tool="run_query", note=None):
    async def walk():
        request = ToolRequest.direct(tool=tool, arguments={"sql": "x"}, token=issuer.token())
        async with guard.call(request) as call:

            async def work():
                if note is not None:
                    current_call().record(**note)
                return result

            given = await call.run(work)
            call.finish(given)
            return given

    assert asyncio.run(walk()) is result
    return records(guard, "ending")[-1]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RESULT, {"rows": 3, "bytes": 4, "items": 1}),
        ({"content": [], "structuredContent": {"rows": [1, 2]}}, {"rows": 2, "bytes": 0, "items": 0}),
        ({"content": [{"text": "ab"}], "structuredContent": {"rows": [1, 2]}}, {"rows": 2, "bytes": 2, "items": 1}),
        ({"content": [{"text": "ab"}], "structuredContent": {"rows": "many"}}, {"bytes": 2, "items": 1}),
        ({"content": [{"text": "ab"}]}, {"bytes": 2, "items": 1}),
        ({"content": [{"text": "ab"}], "structuredContent": {"rows": [1]}, "isError": True}, {"bytes": 2, "items": 1}),
        ("a text", {}),
        (None, {}),
    ],
)
def test_result_is_counted_by_default(guard, issuer, result, expected):
    assert ending_of(guard, issuer, result)["output_summary"] == expected


def test_summary_of_the_tool_comes_before_the_default_one(guard, issuer):
    seen = []
    guard.summarise("run_query", lambda result: seen.append(result) or {"rows": 47, "bytes": 1_000})

    ending = ending_of(guard, issuer)

    assert seen == [RESULT]
    assert ending["output_summary"] == {"rows": 47, "bytes": 1_000, "items": 1}
    assert ending["output_size_bytes"] == 1_000
    assert "summary_failed" not in ending


def test_summary_of_one_tool_is_asked_about_no_other(guard, issuer):
    guard.summarise("run_query", lambda _: {"rows": 47})

    assert ending_of(guard, issuer, tool="add")["output_summary"]["rows"] == 3


def test_what_the_tool_notes_itself_comes_first(guard, issuer):
    guard.summarise("run_query", lambda _: {"rows": 47, "bytes": 1_000})

    ending = ending_of(guard, issuer, note={"rows": 5, "bytes_scanned": 6})

    assert ending["output_summary"] == {"rows": 5, "bytes": 6, "items": 1}


def raises(_):
    raise KeyError("hunter2")


@pytest.mark.parametrize(
    "own",
    [
        raises,
        lambda _: None,
        lambda _: 47,
        lambda _: {"rows": -1},
        lambda _: {"rows": "hunter2"},
        lambda _: {"rows": True},
        lambda _: {"row": 1},
    ],
    ids=["raises", "nothing", "a number", "negative", "text", "boolean", "unknown"],
)
def test_summary_that_fails_breaks_no_call_and_the_record_says_so(guard, issuer, caplog, own):
    guard.summarise("run_query", own)

    ending = ending_of(guard, issuer)

    assert ending["status"] == "ok"
    assert ending["summary_failed"] is True
    assert ending["output_summary"] == {"rows": 3, "bytes": 4, "items": 1}
    assert "the summary of 'run_query' failed" in caplog.text
    assert "hunter2" not in caplog.text


def test_summary_is_not_asked_about_an_error(guard, issuer):
    guard.summarise("run_query", raises)

    ending = ending_of(guard, issuer, {"content": [{"text": "no"}], "isError": True})

    assert ending["status"] == "error"
    assert "summary_failed" not in ending


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_summary_beside_a_tool_gets_the_result_that_the_server_sends(make_guard, issuer, mode):
    guard = make_guard()
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])
    seen = []

    def rows(result):
        seen.append(type(result).__name__)
        members = result if isinstance(result, dict) else result.model_dump(by_alias=True)
        return {"rows": len(members["structuredContent"]["result"]) * 10}

    @mcp.tool()
    @guard.tool(open=True, result_summary=rows)
    def numbers() -> list[int]:
        return [1, 2, 3]

    @mcp.tool()
    @guard.tool(open=True)
    def letters() -> list[str]:
        return ["a", "b"]

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = guard.asgi(mcp.streamable_http_app(transport_security=security))

    async def walk():
        async with served(app) as transport, client(transport, issuer.token(), mode) as found:
            assert (await found.call_tool("numbers", {})).structured_content == {"result": [1, 2, 3]}
            assert (await found.call_tool("letters", {})).structured_content == {"result": ["a", "b"]}
            return [record for record in records(guard, "ending") if record["kind"] == "tool"]

    ended = run(walk())

    assert [(record["tool_name"], record["output_summary"]["rows"]) for record in ended] == [
        ("numbers", 30),
        ("letters", 2),
    ]
    assert len(seen) == 1


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "input_required", "requestState": "hidden"},
        InputRequiredResult(request_state="hidden"),
    ],
    ids=["wire", "typed"],
)
def test_call_whose_server_asks_for_something_first_says_so(guard, issuer, result):
    guard.summarise("run_query", raises)

    ending = ending_of(guard, issuer, result)

    assert ending["status"] == "input_required"
    assert "summary_failed" not in ending
    assert "hidden" not in str(ending)
