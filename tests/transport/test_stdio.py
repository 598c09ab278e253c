"""Servers on standard input and output: the caller is whom `[stdio]` names."""

from __future__ import annotations

import sys
import time

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_fastguard import GuardConfigError, GuardFault, ToolRequest, current_call
from mcp_fastguard.transport.stdio import StdioCaller
from support import records
from transport_support import run


def build(guard):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware(transport="stdio")])

    @mcp.tool()
    def add(a: int, b: int) -> str:
        return f"{a + b} for {current_call().subject}"

    @mcp.tool()
    def secret() -> str:
        pytest.fail("it ran")

    return mcp


def printing(tmp_path, text):
    """A command that prints what a file holds, and notes that it ran."""
    source, runs = tmp_path / "source", tmp_path / "runs"
    source.write_text(text)
    runs.write_text("")
    code = f"open({str(runs)!r}, 'a').write('x'); print(open({str(source)!r}).read())"
    return [sys.executable, "-c", code], source, runs


def test_principal_calls_without_a_token_what_its_scopes_allow(make_guard):
    guard = make_guard(stdio={"principal": "carol", "scopes": ["warehouse:query:read"]})

    async def walk():
        async with Client(build(guard), mode="legacy") as found:
            assert [tool.name for tool in (await found.list_tools()).tools] == ["add"]
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3 for carol"
            with pytest.raises(MCPError) as refused:
                await found.call_tool("secret", {})
            assert refused.value.data["code"] == "scope_insufficient"
            guard.revoke(subject="carol")
            with pytest.raises(MCPError) as refused:
                await found.call_tool("add", {"a": 1, "b": 2})
            assert refused.value.data["code"] == "token_revoked"

    run(walk())
    identities = {
        record["authenticated_identity"]["issuer"] for record in records(guard) if "authenticated_identity" in record
    }
    assert identities == {"stdio"}


def test_principal_proves_nothing_for_a_request_with_a_token(make_guard, issuer):
    guard = make_guard(stdio={"principal": "carol", "scopes": ["secret:use"]})
    local = guard.gate.attest_local("carol", ["secret:use"])

    allowed = guard.gate.decide(ToolRequest.direct(tool="secret", arguments={}), attested=local)
    assert allowed.subject == "carol"
    for token in (issuer.token(), "garbage", ""):
        with pytest.raises(Exception) as refused:
            guard.gate.decide(ToolRequest.direct(tool="secret", arguments={}, token=token), attested=local)
        assert refused.value.code in {"scope_insufficient", "token_malformed", "token_missing"}


def test_command_prints_the_token_once_for_most_of_its_life(make_guard, issuer, tmp_path):
    command, source, runs = printing(tmp_path, issuer.token())
    guard = make_guard(stdio={"token_command": command})
    caller = StdioCaller(guard)

    async def walk():
        async with Client(build(guard), mode="legacy") as found:
            for _ in range(3):
                assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3 for alice"
        ran = runs.read_text()
        assert ran == "x"
        # A token that lives for a moment is printed anew at each call.
        source.write_text(issuer.token(exp=int(time.time())))
        for _ in range(2):
            await caller.request("ping", None, 1)
        assert runs.read_text() == ran + "xx"

    run(walk())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "failed with 3"),
        ("pass", "no token"),
        ("print('x' * 100_000)", "no token"),
        ("print('\\u00e9')", "no token"),
        ("import time; time.sleep(60)", "gave no token"),
    ],
)
def test_command_that_gives_no_token_refuses_the_call(make_guard, monkeypatch, code, message):
    monkeypatch.setattr("mcp_fastguard.transport.stdio.COMMAND_WAIT", 0.5 if "sleep" in code else 30.0)
    guard = make_guard(stdio={"token_command": [sys.executable, "-X", "utf8", "-c", code]})

    with pytest.raises(GuardFault, match=message) as fault:
        run(StdioCaller(guard).request("ping", None, 1))
    assert fault.value.code == "stdio_token_missing"


def test_command_that_is_not_there_refuses_the_call(make_guard):
    guard = make_guard(stdio={"token_command": ["/does/not/exist"]})

    with pytest.raises(GuardFault, match="cannot be run"):
        run(StdioCaller(guard).request("ping", None, 1))


@pytest.mark.parametrize(
    "stdio",
    [
        {},
        {"principal": "carol", "token_file": "token"},
        {"token_command": []},
        {"token_command": [""]},
        {"principal": ""},
        {"token_file": "token", "scopes": ["a"]},
        {"token_variable": "HOME"},
    ],
)
def test_contradictions_stop_the_start(make_guard, stdio):
    with pytest.raises(GuardConfigError, match="stdio"):
        make_guard(stdio=stdio)
