"""`[observe]`: refusals are recorded and not enforced, until a day (decision 16)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from prometheus_client import CollectorRegistry

from mcp_fastguard import Denied, GuardConfigError, ToolRequest, current_call
from mcp_fastguard.observe import log_decisions
from mcp_fastguard.observe.prometheus import GuardCollector
from support import RESOURCE, records
from transport_support import client, headers, message, run, served

FAR = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
SOON = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
PAST = "2026-01-01"


def build(guard):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool()
    def secret() -> str:
        return f"the secret, for {current_call().subject}"

    @mcp.tool()
    def unnamed() -> str:
        """No rule speaks of it."""
        return "unnamed"

    @mcp.tool()
    def ask() -> str:
        return "asked"

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return guard.asgi(mcp.streamable_http_app(transport_security=security))


def observing(*rooms, until=FAR):
    return {"rooms": list(rooms), "until": until}


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_observed_policy_hides_and_refuses_nothing_and_records_it(make_guard, issuer, mode):
    guard = make_guard(observe=observing("policy"))

    async def walk():
        async with served(build(guard)) as transport, client(transport, issuer.token(), mode) as found:
            names = {tool.name for tool in (await found.list_tools()).tools}
            assert names == {"add", "secret", "unnamed", "ask"}
            assert (await found.call_tool("secret", {})).content[0].text == "the secret, for alice"
            assert (await found.call_tool("unnamed", {})).content[0].text == "unnamed"
            assert (await found.call_tool("ask", {})).content[0].text == "asked"
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"

    run(walk())
    observed = {
        record["tool_name"]: record
        for record in records(guard)
        if record["event_type"] == "decision" and record["kind"] == "tool"
    }
    told = {name: (record["result"], record["enforced"], record.get("code")) for name, record in observed.items()}
    assert told == {
        "secret": ("denied", False, "scope_insufficient"),
        "unnamed": ("denied", False, "target_unknown"),
        "ask": ("denied", False, "approval_required"),
        "add": ("allowed", True, None),
    }
    assert observed["secret"]["missing_scopes"] == ["secret:use"]
    ended = {record["decision"] for record in records(guard) if record["event_type"] == "ending"}
    assert {record["id"] for record in observed.values()} <= ended


def test_observed_limits_let_pass_and_policy_is_enforced(make_guard, issuer):
    rules = {"rules": [{"per": "principal", "quota": "1/hour", "tool": "add"}]}
    guard = make_guard(observe=observing("limits"), limits=rules)

    async def walk():
        async with served(build(guard)) as transport, client(transport, issuer.token(), "modern") as found:
            for _ in range(3):
                await found.call_tool("add", {"a": 1, "b": 2})
            with pytest.raises(MCPError):
                await found.call_tool("secret", {})

    run(walk())
    codes = [
        (record.get("code"), record["enforced"])
        for record in records(guard)
        if record.get("kind") == "tool" and record["event_type"] == "decision"
    ]
    assert codes == [(None, True), ("quota_spent", False), ("quota_spent", False), ("scope_insufficient", True)]


def test_observed_token_room_runs_calls_as_nobody(make_guard, issuer):
    guard = make_guard(observe=observing("token", "policy"))
    tampered = issuer.token()[:-4] + "AAAA"

    async def walk():
        async with served(build(guard)) as transport, httpx2.AsyncClient(transport=transport) as http:
            for token in (None, tampered, issuer.token(exp=1)):
                body = message("tools/call", {"name": "secret", "arguments": {}})
                answer = await http.post(RESOURCE, json=body, headers=headers(token, "tools/call", "secret"))
                assert answer.status_code == 200
                # A token that was refused never becomes an identity.
                assert "for None" in answer.text

    run(walk())
    found = [record for record in records(guard) if record["event_type"] == "decision"]
    assert [record["code"] for record in found] == ["token_missing", "signature_invalid", "token_expired"]
    assert not any(record["enforced"] or record.get("authenticated_identity") for record in found)


@pytest.mark.parametrize("room", ["token", "binding"])
def test_head_of_a_long_body_is_not_refused_where_whoever_would_be_passes(make_guard, room):
    nobody = ToolRequest.direct(tool="add", arguments={})

    run(make_guard(observe=observing(room)).authorize_head(nobody))

    with pytest.raises(Denied) as denied:
        run(make_guard().authorize_head(nobody))
    assert denied.value.code == "token_missing"


def test_direct_users_are_never_let_pass(make_guard, issuer):
    guard = make_guard(observe=observing("policy"))

    with pytest.raises(Denied) as denied:
        guard.check(ToolRequest.direct(tool="secret", arguments={}, token=issuer.token()))
    assert denied.value.code == "scope_insufficient"
    assert records(guard)[-1]["enforced"] is True


def test_from_the_day_on_everything_is_enforced(make_guard, issuer, caplog):
    guard = make_guard(observe=observing("policy", until=PAST))

    async def walk():
        async with served(build(guard)) as transport, client(transport, issuer.token(), "modern") as found:
            assert "secret" not in {tool.name for tool in (await found.list_tools()).tools}
            with pytest.raises(MCPError):
                await found.call_tool("secret", {})

    run(walk())
    assert "everything is enforced" in caplog.text


def test_week_before_the_day_it_is_announced(make_guard, caplog):
    make_guard(observe=observing("policy", until=SOON))

    assert f"on {SOON}" in caplog.text


@pytest.mark.parametrize(
    "observe",
    [
        {"rooms": ["policy"]},
        {"rooms": [], "until": FAR},
        {"rooms": ["audit"], "until": FAR},
        {"rooms": ["policy"], "until": "2026-02-30"},
    ],
)
def test_observation_without_a_day_or_of_no_room_is_refused(make_guard, observe):
    with pytest.raises(GuardConfigError, match="observe"):
        make_guard(observe=observe)


def test_observed_refusals_are_told_as_such(make_guard, issuer, caplog):
    registry = CollectorRegistry()
    guard = make_guard(observe=observing("policy"))
    registry.register(GuardCollector(guard))
    guard.on_decision(log_decisions())

    async def walk():
        async with served(build(guard)) as transport, client(transport, issuer.token(), "modern") as found:
            await found.call_tool("secret", {})

    run(walk())
    labels = {"outcome": "observed", "room": "policy", "code": "scope_insufficient", "tool": "secret"}
    assert registry.get_sample_value("fastguard_decisions_total", labels) == 1
    assert any(record.outcome == "observed" for record in caplog.records if record.name == "mcp_fastguard.decisions")


def test_day_may_be_a_date_of_toml_or_of_python(make_guard):
    assert make_guard(
        observe={"rooms": ["policy"], "until": datetime.now(UTC).date() + timedelta(days=30)}
    ).gate.is_observed("policy")
