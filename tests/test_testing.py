"""What users test their servers with: the rules are theirs, and nothing is decided more kindly than behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import pickle
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import fastmcp
import mcp
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from mcp_fastguard import Denied, GuardConfigError, GuardFault, ToolRequest, current_call, testing
from mcp_fastguard.errors import LimitDenied, PolicyDenied
from mcp_fastguard.testing import FakeClock, GuardUnderTest, Issuer, as_caller, denied
from support import RESOURCE
from transport_support import client, run, served

ROOT = Path(__file__).parents[1]
QUERY = "warehouse:query:read"

RULES = {
    "version": 1,
    "resource": {"url": RESOURCE},
    "issuers": [{"issuer": "https://login.example.com", "jwks_uri": "https://login.example.com/jwks"}],
    "limits": {"rules": [{"per": "tool", "tool": "run_query", "quota": "2/minute"}]},
    "tools": {"run_query": {"scopes": [QUERY]}, "whoami": {"open": True}, "outer": {"open": True}},
}


def call(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)


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


# --- guards and tokens ----------------------------------------------------------------------------


def test_guard_keeps_the_rules_and_the_issuer_of_the_file(tmp_path):
    file = tmp_path / "fastguard.toml"
    file.write_text(
        """
        version = 1
        [resource]
        url = "https://mcp.example.com/mcp"
        [[issuers]]
        issuer = "https://login.example.com"
        jwks_uri = "https://login.example.com/jwks"
        algorithms = ["RS256"]
        audiences = ["api://warehouse"]
        types = ["JWT"]
        require = { azp = true, tid = "tenant" }
        scope_claims = ["scp"]
        client_claims = ["azp"]
        organisation_claim = "org"
        max_lifetime = "2m"
        [tools.run_query]
        scopes = ["warehouse:query:read"]
        [audit]
        path = "audit"
        """
    )
    with testing.guard(file) as guard:
        allowed = guard.check(call(testing.make_token([QUERY], subject="bob", org="acme")))
        assert (allowed.subject, allowed.client_id, allowed.organisation) == ("bob", "test-client", "acme")
        assert (allowed.issuer, allowed.scopes) == ("https://login.example.com", (QUERY,))
        assert allowed.token.audience == ("api://warehouse",)
        assert allowed.token.expires_at == guard.clock.now() + 120
        with denied("lifetime_too_long"):
            guard.check(call(testing.make_token([QUERY], expires_in=121)))
        with denied("claim_refused"):
            guard.check(call(testing.make_token([QUERY], tid="another")))
    assert not (tmp_path / "audit").exists()


def test_guard_of_a_dict_without_issuers_has_one():
    with testing.guard({name: table for name, table in RULES.items() if name != "issuers"}) as guard:
        assert guard.check(call(testing.make_token([QUERY]))).issuer == "https://issuer.test"


def test_each_issuer_of_the_configuration_has_tokens(fastguard_guard, make_token):
    two = [{"issuer": f"https://{name}.example.com", "asserts_scopes": [QUERY]} for name in ("one", "two")]
    guard = fastguard_guard({**RULES, "issuers": two})

    assert guard.check(call(make_token([QUERY]))).issuer == "https://one.example.com"
    assert guard.check(call(make_token([QUERY], issuer="https://two.example.com"))).issuer == "https://two.example.com"
    with pytest.raises(ValueError, match="no issuer `https://three"):
        make_token(issuer="https://three.example.com")


def test_error_of_a_file_names_its_line(tmp_path):
    file = tmp_path / "fastguard.toml"
    file.write_text('version = 1\n[resource]\nurrl = "https://mcp.example.com/mcp"\n')
    with pytest.raises(GuardConfigError, match=r"fastguard\.toml:3.*urrl"):
        testing.guard(file)


def test_log_that_is_off_stays_off_and_has_no_records(fastguard_guard, make_token):
    guard = fastguard_guard({**RULES, "audit": {"enabled": False}})
    guard.check(call(make_token([QUERY])))
    assert guard.audit_folder is None
    assert guard.records() == []


def test_temporary_log_goes_with_its_guard():
    guard = testing.guard(RULES)
    folder = guard.audit_folder
    guard.check(call(testing.make_token([QUERY])))
    assert [record["event_type"] for record in guard.records()] == ["decision"]
    guard.close()
    assert folder.is_dir()
    del guard
    gc.collect()
    assert not folder.exists()


def test_token_without_a_guard_has_nobody_to_be_for():
    testing.guard(RULES).close()
    gc.collect()
    with pytest.raises(LookupError, match="build one first"):
        testing.make_token()


def test_token_is_for_the_guard_that_is_named(fastguard_guard, make_token):
    first = fastguard_guard(RULES)
    fastguard_guard({**RULES, "resource": {"url": "https://other.example.com/mcp"}})
    assert first.check(call(make_token([QUERY], guard=first))).subject == "alice"
    with denied("audience_mismatch"):
        first.check(call(make_token([QUERY])))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"expires_in": -60}, "token_expired"),
        ({"aud": "https://other.example.com"}, "audience_mismatch"),
        ({"jti": None, "exp": None}, "claim_missing"),
        ({"subject": None, "client_id": None}, "principal_missing"),
        ({"nbf": 32_503_680_000}, "token_not_yet_valid"),
    ],
)
def test_token_can_be_made_wrong(guard, make_token, options, code):
    guard.check(call(make_token([QUERY])))
    with denied(code):
        guard.check(call(make_token([QUERY], **options)))


def test_token_of_another_issuer_s_key_is_refused(guard):
    with denied("signature_invalid"):
        guard.check(call(Issuer().sign({"iss": "https://login.example.com", "aud": RESOURCE})))


def test_missing_signer_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "joserfc.jwk", None)
    with pytest.raises(ImportError, match=r"mcp-fastguard\[testing\]"):
        _ = Issuer().jwks


def test_scopes_as_one_string_are_a_mistake(guard, make_token):
    with pytest.raises(TypeError, match=r"\['a', 'b'\]"):
        make_token("a b")
    with pytest.raises(TypeError, match="scopes"), as_caller(scopes="a"):
        pytest.fail("it was taken")


def test_clock_rules_every_decision_of_a_guard(guard, make_token, fastguard_clock):
    async def walk():
        request = call(make_token([QUERY]))
        async with guard.call(request) as found:
            fastguard_clock.advance(329)
            await found.run(lambda: asyncio.sleep(0))
        async with guard.call(call(make_token([QUERY]))) as found:
            fastguard_clock.advance(331)
            # Looked at again before the tool runs.
            with denied("token_expired"):
                await found.run(lambda: asyncio.sleep(0))

    run(walk())


def test_revocation_is_of_the_time_of_the_clock(guard, make_token, fastguard_clock):
    fastguard_clock.advance(1000)
    token = make_token([QUERY])
    guard.check(call(token))
    guard.revoke(subject="alice")
    with denied("token_revoked"):
        guard.check(call(token))
    fastguard_clock.advance(1)
    guard.check(call(make_token([QUERY])))


def test_listener_is_told_by_the_clock_too(guard, make_token, fastguard_clock):
    told = []
    guard.on_decision(told.append)
    token = make_token([QUERY])
    guard.check(call(token))
    fastguard_clock.advance(1000)
    with denied("token_expired") as refused:
        guard.check(call(token))
    assert told[1:] == [refused.value]


def test_guard_can_be_built_by_its_own_constructors(tmp_path):
    with GuardUnderTest.from_dict(RULES) as guard:
        assert guard.check(call(testing.make_token([QUERY]))).subject == "alice"


def test_clock_stands_until_it_is_advanced():
    clock = FakeClock()
    assert abs(clock.now() - time.time()) < 60
    clock = FakeClock(1000)
    assert (clock.now(), clock.advance(0.5), clock.now()) == (1000.0, 1000.5, 1000.5)
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match="back"):
            clock.advance(wrong)
    with pytest.raises(ValueError, match="epoch"):
        FakeClock(-1)


# --- denied ---------------------------------------------------------------------------------------


def test_denied_gives_the_refusal(guard, make_token):
    with denied("scope_insufficient") as refused:
        guard.check(call(make_token()))
    assert isinstance(refused.value, PolicyDenied)
    with pytest.raises(AssertionError, match="end of the block"):
        _ = denied("scope_insufficient").value


def test_denied_fails_where_nothing_is_refused():
    with pytest.raises(AssertionError, match="nothing was refused; expected `quota_spent`"), denied("quota_spent"):
        pass


def test_denied_fails_for_another_code_and_shows_the_refusal():
    with pytest.raises(AssertionError, match="`quota_spent`.*not with `token_expired`") as failed:  # noqa: SIM117
        with denied("token_expired"):
            raise LimitDenied("quota_spent", "rule 0")
    assert isinstance(failed.value.__cause__, Denied)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the tool's own"),
        GuardFault("closed"),
        MCPError(-32602, "the server's own"),
        MCPError(500, "the call could not be decided", {"code": "call_unproved"}),
    ],
)
def test_denied_lets_other_errors_pass(error):
    with pytest.raises(type(error)) as passed, denied("call_unproved"):
        raise error
    assert passed.value is error


def test_denied_reads_what_a_client_saw():
    with denied("body_too_deep") as refused:
        raise BaseExceptionGroup("transport", [MCPError(-32600, "the request is not valid", {"code": "body_too_deep"})])
    assert (refused.value.status, refused.value.detail) == (400, "the request is not valid")
    assert pickle.loads(pickle.dumps(refused.value)).code == "body_too_deep"


# --- the plugin -----------------------------------------------------------------------------------


def user_environment(folder: Path) -> dict[str, str]:
    """Where Python finds the package, and beside it what an installer would have written."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *filter(None, sys.path)])}


def pytest_of_a_user(folder: Path, *options: str) -> str:
    """Runs pytest as in a project of a user that has the package installed, and gives its output."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = folder / "site" / "mcp_fastguard-0.0.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mcp-fastguard\nVersion: 0.0.0\n")
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["pytest11"].items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=user_environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plugin_of_an_installed_package_has_its_fixtures_and_loads_nothing_unasked(tmp_path):
    (tmp_path / "test_user.py").write_text(
        """
import sys

def test_nothing_is_loaded_unasked():
    assert not {"mcp", "fastmcp", "joserfc", "starlette"} & set(sys.modules)

def test_fixtures_are_found(fastguard_guard, fastguard_clock, fastguard_issuer, make_token):
    assert fastguard_guard.__name__ == "build"
"""
    )
    assert "2 passed" in pytest_of_a_user(tmp_path)


def test_page_of_the_docs_runs_as_it_is_written(tmp_path):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    # Each block that is a file follows a paragraph that names it.
    blocks = re.findall(r"([^\n]*)\n\n```(?:python|toml)\n(.*?)```", page, re.DOTALL)
    for before, text in blocks:
        named = re.findall(r"`(\w+\.(?:py|toml))`", before)
        (tmp_path / (named[-1] if named else "script.py")).write_text(text, encoding="utf-8")
    files = {"fastguard.toml", "server.py", "test_rules.py", "test_tokens.py", "test_http.py", "script.py"}
    assert {file.name for file in tmp_path.iterdir()} == files

    assert "8 passed" in pytest_of_a_user(tmp_path)
    subprocess.run(
        [sys.executable, "-W", "error", "script.py"], cwd=tmp_path, env=user_environment(tmp_path), check=True
    )
