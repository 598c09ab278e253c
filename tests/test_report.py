"""`fastguard report observed`, and why a recorded call was decided as it was."""

from __future__ import annotations

import tomllib

from mcp_fastguard import Denied, ToolRequest
from mcp_fastguard.cli.explain import explain_record, is_record_id
from mcp_fastguard.cli.observed import groups, toml_for
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


def test_command_reports_or_says_that_nothing_was_refused(tmp_path):
    assert fastguard("report", "observed", tmp_path / "none").returncode == 1
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
