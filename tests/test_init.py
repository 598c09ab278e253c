"""`fastguard init` and `check-config --app`: a whole configuration from a server's own tools."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.cli.scaffold import bad_scopes, proposed_scope
from mcp_fastguard.transport.offers import Offer

SERVERS = {
    "sdk": """\
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
mcp = MCPServer("shop")
""",
    "fastmcp": """\
from fastmcp import FastMCP
from mcp_types import ToolAnnotations
mcp = FastMCP("shop")
""",
}

TOOLS = '''
@mcp.tool(annotations=ToolAnnotations(readOnlyHint=True))
def list_orders() -> str:
    """The orders.

    With a second paragraph."""
    return ""

@mcp.tool(annotations=ToolAnnotations(destructiveHint=True))
def delete_order(id: str) -> str:
    """Removes one for good."""
    return ""

@mcp.tool(name="odd name\\n[tools.evil]")
def odd() -> str:
    return ""

@mcp.prompt()
def summary() -> str:
    return ""

@mcp.resource("shop://{table}/rows")
def rows(table: str) -> str:
    return ""
'''


@pytest.fixture(params=sorted(SERVERS))
def folder(request, tmp_path):
    (tmp_path / "server.py").write_text(SERVERS[request.param] + TOOLS)
    return tmp_path


def fastguard(folder, *arguments):
    command = [sys.executable, "-m", "mcp_fastguard.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, env={"COLUMNS": "250", "PATH": ""}
    )


def test_init_writes_a_rule_for_each_tool_and_check_config_finds_no_gap(folder):
    done = fastguard(folder, "init", "--issuer", "https://auth.example.com", "--app", "server:mcp")
    assert done.returncode == 0, done.stderr
    text = (folder / "fastguard.toml").read_text()

    rules = tomllib.loads(text)
    assert rules["tools"]["list_orders"] == {"scopes": ["order:read"]}
    assert rules["tools"]["delete_order"] == {"scopes": ["order:write"], "tier": "log"}
    assert set(rules["tools"]) == {"list_orders", "delete_order", "odd name\n[tools.evil]"}
    assert rules["prompts"] == {"summary": {"open": True}}
    assert rules["resources"] == {"shop://*/rows": {"open": True}}
    assert "# The orders." in text
    assert config_warnings(text) == []
    assert fastguard(folder, "check-config", "--app", "server:mcp").returncode == 0


def test_commands_that_look_at_rules_warn_of_what_the_file_says_alone(folder):
    fastguard(folder, "init", "--issuer", "https://auth.example.com", "--app", "server:mcp")
    path = folder / "fastguard.toml"
    # With keys in the file nothing is fetched.
    from support import Issuer

    issuer = 'issuer = "https://auth.example.com"\n'
    path.write_text(path.read_text().replace(issuer, f"{issuer}jwks = '{json.dumps(Issuer().jwks)}'\n"))
    for arguments in (["check-config", "--app", "server:mcp"], ["explain", "list_orders"]):
        assert "no record is kept" not in fastguard(folder, *arguments).stderr, arguments
    path.write_text(path.read_text().replace('path = "audit"', "enabled = false"))
    assert "no record is kept" in fastguard(folder, "check-config").stderr


def test_check_config_names_tools_without_rules_and_rules_without_tools(folder):
    fastguard(folder, "init", "--issuer", "https://auth.example.com", "--app", "server:mcp")
    path = folder / "fastguard.toml"
    path.write_text(
        path.read_text().replace("[tools.list_orders]", "[tools.list_ordres]").replace('"order:write"', '"admin"')
    )
    done = fastguard(folder, "check-config", "--app", "server:mcp")

    assert done.returncode == 1
    assert "tool `list_orders` has no rule" in done.stderr
    assert 'tools."list_ordres" speaks of no tool' in done.stderr
    assert "scope `admin` says nothing" in done.stderr


def test_init_writes_over_nothing_unless_told(tmp_path):
    (tmp_path / "fastguard.toml").write_text("mine")
    refused = fastguard(tmp_path, "init", "--issuer", "https://auth.example.com")
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert (tmp_path / "fastguard.toml").read_text() == "mine"
    assert fastguard(tmp_path, "init", "--issuer", "https://auth.example.com", "--force").returncode == 0
    printed = fastguard(tmp_path, "init", "--idp", "okta", "--domain", "example.okta.com", "-o", "-")
    assert "https://example.okta.com/oauth2/default/v1/keys" in printed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--idp", "entra"], "--tenant"),
        ([], "fastguard init --idp help"),
        (["--issuer", "http://auth.example.com"], "https"),
        (["--issuer", "https://auth.example.com", "--app", "nothing:mcp"], "cannot be imported"),
        (["--issuer", "https://auth.example.com", "--app", "json:loads"], "no MCPServer or FastMCP"),
        (["--issuer", "https://auth.example.com", "--app", "server"], "module:attribute"),
    ],
)
def test_init_says_what_it_lacks_and_writes_nothing(tmp_path, arguments, message):
    done = fastguard(tmp_path, "init", *arguments)

    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "fastguard.toml").exists()


def test_list_of_providers():
    done = fastguard(".", "init", "--idp", "help")
    assert done.returncode == 0
    assert "cognito: Amazon Cognito" in done.stdout


@pytest.mark.parametrize(
    ("offer", "scope"),
    [
        (Offer("list_tables"), "table:read"),
        (Offer("getTable"), "table:read"),
        (Offer("run_query"), "query:write"),
        (Offer("run_query", is_read_only=True), "query:read"),
        (Offer("ping"), "ping:write"),
        (Offer("delete_user_access"), "access:write"),
        (Offer("___"), "tool:write"),
        (Offer("export_all"), "export:write"),
        (Offer("list_all_orders"), "order:read"),
        (Offer("get_api"), "get:read"),
    ],
)
def test_scope_is_what_the_name_speaks_of_and_whether_it_writes(offer, scope):
    assert proposed_scope(offer) == scope


def test_scopes_that_allow_everything_are_bad():
    assert bad_scopes({"admin", "api", "full-access", "order:read", "order:*"}) == [
        "admin",
        "api",
        "full-access",
        "order:*",
    ]
