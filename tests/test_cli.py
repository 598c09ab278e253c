"""The command line, run as people run it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mcp_fastguard import Guard, ToolRequest


@pytest.fixture
def file(tmp_path, issuer):
    path = tmp_path / "fastguard.toml"
    path.write_text(f"""\
version = 1
[resource]
url = "https://mcp.example.com/mcp"
[[issuers]]
issuer = "{issuer.issuer}"
algorithms = ["ES256"]
jwks = '''{json.dumps(issuer.jwks)}'''
[tools.run_query]
scopes = ["warehouse:query:read"]
[tools."list_*"]
scopes = ["warehouse:schema:read"]
[audit]
path = "audit"
""")
    return path


def fastguard(*arguments, given=None):
    command = [sys.executable, "-m", "mcp_fastguard.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, input=given, timeout=60, env={"COLUMNS": "200", "PATH": ""}
    )


def test_check_config_says_ok_or_all_that_is_wrong(file):
    assert fastguard("check-config", file).returncode == 0
    file.write_text(file.read_text().replace("scopes =", "scopez ="))
    done = fastguard("check-config", file)
    assert done.returncode == 1
    assert "nearest is `scopes`" in done.stderr


def test_token_inspect_shows_header_and_claims(issuer):
    done = fastguard("token", "inspect", "-", given=issuer.token())
    assert json.loads(done.stdout)["claims"]["sub"] == "alice"
    assert fastguard("token", "inspect", "nonsense").returncode == 1


def test_token_verify_names_the_key_that_decides(file, issuer):
    assert fastguard("token", "verify", issuer.token(), "--config", file).returncode == 0
    done = fastguard("token", "verify", "-", "--config", file, given=issuer.token(header={"typ": "JWT"}))
    assert done.returncode == 1
    assert "type_refused" in done.stdout
    assert "issuers.types" in done.stdout


def test_explain_names_the_line_that_decides(file, issuer):
    done = fastguard("explain", "run_query", "--token", issuer.token(), "--config", file)
    assert done.returncode == 0
    assert 'fastguard.toml:8: tools."run_query"' in done.stdout
    done = fastguard("explain", "list_tables", "--token", issuer.token(), "--config", file)
    assert done.returncode == 1
    assert "scope_insufficient" in done.stdout
    assert 'fastguard.toml:10: tools."list_*"' in done.stdout
    assert not (file.parent / "audit").exists()


def test_audit_show_and_verify(file, issuer):
    with Guard.from_file(file) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    shown = fastguard("audit", "show", file.parent / "audit", "--who", "alice")
    assert "run_query" in shown.stdout
    assert fastguard("audit", "verify", file.parent / "audit").returncode == 0
    log = next(guard.audit_folder.glob("*.jsonl"))
    log.write_bytes(log.read_bytes().replace(b"alice", b"malic"))
    assert fastguard("audit", "verify", file.parent / "audit").returncode == 1


def test_schema_is_json():
    assert json.loads(fastguard("schema").stdout)["title"] == "fastguard.toml"


def test_explain_decides_calls_that_a_rule_counts_until_they_end(file, issuer):
    rules = '\n[limits]\nrules = [{ name = "at once", per = "principal", concurrent = 1 }]\n'
    file.write_text(file.read_text() + rules)

    done = fastguard("explain", "run_query", "--token", issuer.token(), "--config", file)
    assert done.returncode == 0, done.stdout


def test_explain_shows_every_rule_that_counts_the_call_and_which_decides(file, issuer):
    file.write_text(
        file.read_text()
        + """
[limits]
rules = [
    { name = "mine", per = "principal", quota = ["9/s", "50/h"] },
    { name = "tool", per = ["principal", "tool"], tool = "run_query", quota = "7/minute" },
    { name = "at once", per = "everyone", concurrent = 3 },
    { name = "rows", per = "principal", meter = "rows", quota = "1000/h" },
    { name = "other", per = "principal", tool = "list_tables", quota = "1/h" },
]
"""
    )
    done = fastguard("explain", "run_query", "--token", issuer.token(), "--config", file)

    assert done.returncode == 0, done.stdout
    limits = {
        (cells[0], cells[2]): (cells[1], *cells[3:])
        for cells in ([cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines())
        if len(cells) == 5
    }
    assert limits == {
        ("mine", "9 of 9 calls in 1 s"): ("principal alice", "now", ""),
        ("mine", "50 of 50 calls in 3600 s"): ("principal alice", "now", ""),
        ("tool", "7 of 7 calls in 60 s"): ("principal alice, tool run_query", "now", "the least"),
        ("at once", "3 of 3 calls that run"): ("everyone", "now", ""),
        ("rows", "1000 of 1000 rows in 3600 s"): ("principal alice", "now", ""),
    }


def test_explain_names_the_rule_that_has_no_room_for_the_call_and_why(file, issuer):
    rules = 'rules = [{ name = "none", per = "principal", quota = "0/h" }, { per = "everyone", quota = "5/h" }]'
    file.write_text(f"{file.read_text()}\n[limits]\n{rules}\n")
    done = fastguard("explain", "run_query", "--token", issuer.token(), "--config", file)

    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if "0 of 0" in line)
    assert [cell.strip() for cell in line.split("│")[3:6]] == [
        "0 of 0 calls in 3600 s",
        "never, at a cost of 1",
        "refuses",
    ]


def test_explain_charges_nothing_that_processes_share_and_needs_no_server(file, issuer):
    file.write_text(
        file.read_text()
        + """
[limits]
mode = "exact"
degrade = "refuse"
rules = [{ per = "principal", quota = "5/minute" }]
[state]
url = "redis://127.0.0.1:1"
processes = 2
secret_file = "missing"
[revocations]
shared = true
"""
    )
    done = fastguard("explain", "run_query", "--token", issuer.token(), "--config", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 left" in done.stdout
    assert "? of 5 calls in 60 s" in done.stdout
