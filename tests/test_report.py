"""`fastguard report observed`, and why a recorded call was decided as it was."""

from __future__ import annotations

import io
import json
import tomllib

from rich.console import Console

from mcp_fastguard import Denied, ToolRequest
from mcp_fastguard.cli.explain import explain_record, is_record_id
from mcp_fastguard.cli.observed import groups, table_of_groups, toml_for
from support import records
from test_cli import fastguard


def observed(code, tool, *, client="agent", subject="alice", missing=(), scopes=("read",), kind="tool", key=""):
    return {
        "result": "denied",
        "enforced": False,
        "code": code,
        "kind": kind,
        "tool_name": tool,
        "client_id": client,
        "authenticated_identity": {"subject": subject},
        "missing_scopes": list(missing),
        "scopes": list(scopes),
        "config_key": key,
    }


def test_refusals_are_grouped_by_target_client_and_missing_scope():
    found = groups(
        [
            observed("scope_insufficient", "a", missing=["x"]),
            observed("scope_insufficient", "a", missing=["x"], subject="bob"),
            observed("scope_insufficient", "a", missing=["y"]),
            observed("scope_insufficient", "a", missing=["x"], client="other"),
            {**observed("scope_insufficient", "a", missing=["x"]), "enforced": True},
            {"result": "allowed", "enforced": True},
        ]
    )

    assert [(group.client, group.missing, group.calls, group.subjects) for group in found] == [
        ("agent", ("x",), 2, 2),
        ("agent", ("y",), 1, 1),
        ("other", ("x",), 1, 1),
    ]


def test_toml_for_unnamed_tools_is_a_configuration_whatever_their_names():
    names = ["plain", "with space", 'quo"te', "back\\slash", "line\nbreak", "[table]"]
    text = toml_for(groups([observed("target_unknown", name) for name in names]))

    assert tomllib.loads(text)["tools"] == {name: {"scopes": ["read"]} for name in names}


def test_comments_hold_nothing_that_breaks_out_of_them():
    hostile = "x\n[tools.evil]\nopen = true\n"
    found = groups(
        [
            observed(code, hostile, client=hostile, missing=[hostile], key=hostile)
            for code in ("scope_insufficient", "quota_spent", "tier_blocked", "token_expired")
        ]
    )

    assert tomllib.loads(toml_for(found)) == {}


def test_each_cause_names_its_last_record_for_explain(tmp_path):
    ids = [f"20261124T033347-9468-1499-{number}" for number in (1, 2)]
    refused = [
        {**observed("scope_insufficient", "delete_order", missing=["order:write"]), "id": known} for known in ids
    ]
    evil = {**observed("quota_spent", "a"), "id": "$(evil)"}
    log = tmp_path / "my logs" / "one"
    log.mkdir(parents=True)
    (log / "000001.jsonl").write_text("\n".join(map(json.dumps, [*refused, evil])))

    shown = fastguard("report", "observed", tmp_path / "my logs")

    assert shown.returncode == 0, shown.stderr
    commands = [line for line in shown.stdout.splitlines() if "fastguard explain" in line]
    assert commands == [f"#   fastguard explain {ids[1]} --audit '{tmp_path / 'my logs'}'"]
    assert "evil" not in shown.stdout
    assert not [line for line in toml_for(groups(refused)).splitlines() if "--audit" in line]


def test_names_are_whole_in_a_narrow_terminal():
    refused = observed("scope_insufficient", "a_tool_of_a_rather_long_name", missing=["order:write"])
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table_of_groups(groups([refused])))
    rows = [line.split("│") for line in console.export_text().splitlines() if line.startswith("│")]
    assert "".join(row[3].strip() for row in rows) == "toola_tool_of_a_rather_long_name"


def test_command_reports_or_says_that_nothing_was_refused(tmp_path):
    missing = fastguard("report", "observed", tmp_path / "none")
    assert missing.returncode == 1
    assert ".fastguard/audit" in missing.stderr
    done = fastguard("report", "observed", tmp_path)
    assert done.returncode == 0
    assert "nothing" in done.stdout


def test_record_tells_why_its_call_was_refused(make_guard, issuer):
    guard = make_guard()
    try:
        guard.check(ToolRequest.direct(tool="secret", arguments={}, token=issuer.token()))
    except Denied:
        record = records(guard)[-1]
    assert is_record_id(record["id"])

    verdict = explain_record(None, record)

    assert not verdict.is_allowed
    assert verdict.decided_by == 'tools."secret"'
    assert ("policy", "refuses") in [(room, says) for room, says, _ in verdict.rooms]
    shown = fastguard("explain", record["id"], "--audit", guard.audit_folder.parent)
    assert shown.returncode == 1
    assert "secret:use" in shown.stdout
    assert fastguard("explain", record["id"][:-1] + "999", "--audit", guard.audit_folder.parent).returncode == 1
