"""``fastguard limits show``: who is near, as the records tell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from mcp_fastguard import ToolRequest
from mcp_fastguard.cli import limits
from mcp_fastguard.cli.commands import app
from mcp_fastguard.cli.limits import nearest
from mcp_fastguard.errors import LimitDenied
from support import records

BEGIN = datetime(2026, 11, 28, 12, tzinfo=UTC)


def record(who: str, left: int, *, rule: str = "r", at: str = "12:00:01", **more: Any) -> dict[str, Any]:
    return {
        "event_type": "decision",
        "timestamp": f"2026-11-28T{at}Z",
        "authenticated_identity": {"subject": who},
        "tool_name": "add",
        "limit": {"rule": rule, "remaining": left},
        **more,
    }


def of_one_log(*found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("log", one) for one in found]


def test_least_left_comes_first_by_the_last_decision():
    found = of_one_log(record("alice", 0), record("bob", 5), record("alice", 9), record("carol", 7, rule="s"))
    near, others = nearest(found, BEGIN, None, 10)

    assert [(one.who, one.rule, one.left) for one in near] == [("bob", "r", 5), ("carol", "s", 7), ("alice", "r", 9)]
    assert others == 0


def test_refusals_of_a_limit_are_counted():
    refused = record("alice", 0, room="limits", code="quota_spent")
    near, _ = nearest(of_one_log(record("alice", 1), refused, refused), BEGIN, None, 10)

    assert (near[0].left, near[0].refused) == (0, 2)


def test_processes_with_windows_of_their_own_show_the_smallest_rest_and_the_last_call():
    found = [("a", record("alice", 3, at="12:00:05")), ("b", record("alice", 8, at="12:00:09", tool_name="list"))]
    near, _ = nearest(found, BEGIN, None, 10)

    assert [(one.left, one.target) for one in near] == [(3, "list")]


def test_callers_of_two_issuers_are_two_though_they_have_one_name():
    one, two = ({"authenticated_identity": {"subject": "alice", "issuer": f"https://{host}"}} for host in "ab")
    found = of_one_log(record("", 3, **one), record("", 7, **two), record("", 2, **one))
    near, _ = nearest(found, BEGIN, None, 10)

    assert [(each.who, each.issuer, each.left) for each in near] == [
        ("alice", "https://a", 2),
        ("alice", "https://b", 7),
    ]


def test_command_names_the_issuer_where_there_are_several(tmp_path, monkeypatch):
    one, two = ({"authenticated_identity": {"subject": "alice", "issuer": f"https://{host}"}} for host in "ab")
    monkeypatch.setattr(limits, "logs", lambda path: [path])
    monkeypatch.setattr(limits, "records_of", lambda log: [record("", 3, **one), record("", 7, **two)])
    shown = CliRunner().invoke(app, ["limits", "show", str(tmp_path), "--since", "2026-11-28T12:00:00Z"])

    assert "alice of https://a" in shown.output
    assert "alice of https://b" in shown.output


def test_older_decisions_other_rules_and_endings_do_not_count():
    found = of_one_log(
        record("old", 0, at="11:59:59"),
        record("other", 0, rule="s"),
        {**record("ended", 0), "event_type": "ending"},
        {"event_type": "decision", "timestamp": "2026-11-28T12:00:01Z"},
        record("alice", 4),
    )

    assert [one.who for one in nearest(found, BEGIN, "r", 10)[0]] == ["alice"]


def test_table_is_bounded_and_says_how_many_others_there_are(monkeypatch):
    monkeypatch.setattr(limits, "MOST", 100)
    found = of_one_log(*(record(f"caller-{number}", number) for number in range(1_000)))
    near, others = nearest(found, BEGIN, None, 20)

    assert [one.left for one in near] == list(range(20))
    assert len(near) + others == 1_000


def test_command_shows_callers_of_a_real_log_by_name(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"name": "[red]mine", "per": "principal", "quota": "2/minute"}]})
    for subject, calls in {"alice": 2, "bob": 1}.items():
        token = issuer.token(sub=subject)
        for _ in range(calls):
            guard.check(ToolRequest.direct(tool="add", arguments={}, token=token))
    with pytest.raises(LimitDenied):
        guard.check(ToolRequest.direct(tool="add", arguments={}, token=issuer.token(sub="alice")))
    assert records(guard)[-1]["limit"] == {"rule": "[red]mine", "remaining": 0}

    shown = CliRunner().invoke(app, ["limits", "show", str(guard.audit_folder)], terminal_width=200)

    assert shown.exit_code == 0
    lines = [[cell.strip() for cell in line.split("│")[1:5]] for line in shown.output.splitlines() if "│" in line]
    assert lines == [["0", "1", "[red]mine", "alice"], ["1", "", "[red]mine", "bob"]]


def test_command_without_a_log_says_so(tmp_path):
    shown = CliRunner().invoke(app, ["limits", "show", str(tmp_path)])

    assert shown.exit_code == 1
    assert "no log there" in shown.output


def test_limits_of_a_call_stand_as_they_do_and_it_is_not_charged(make_guard, issuer):
    rules = [
        {"name": "mine", "per": "principal", "quota": "2/minute"},
        {"name": "all", "per": "everyone", "quota": "9/s"},
    ]
    guard = make_guard(limits={"rules": rules})
    request = ToolRequest.direct(tool="add", arguments={}, token=issuer.token())

    def mine():
        found = {limit.rule: limit for limit in asyncio.run(guard.limits_of(request))}
        assert found.keys() == {"mine", "all"}
        return found["mine"].quota, found["mine"].remaining, found["mine"].has_room

    found = [mine(), mine()]
    guard.check(request)
    guard.check(request)
    found.append(mine())

    assert found == [(2, 2, True), (2, 2, True), (2, 0, False)]
