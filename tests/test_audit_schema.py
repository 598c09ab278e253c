"""Every record against the schema of the package, and every member of the schema against the records."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from audit_support import SPAN, TRACE, broad_run, configuration, lines_of
from mcp_fastguard import ToolRequest
from mcp_fastguard.audit import record_schema
from support import records
from transport_support import headers, message

SCHEMA = record_schema()

#: Members and values that no guard writes today, each with its reason.
UNWRITTEN = {
    "decision.input_unparsed": "the gate refuses what is no JSON before it knows the caller; users of the core may record it",
    "decision.limits_mode": "only where processes share windows: tests/state",
    "decision.decided_in_us": "the gate does not measure; users of the core may: a_decision_is_one_line, in Rust",
    "ending.session": "the gate does not repeat the decision's; users of the core may",
    "ending.execution_time_ms": "the gate is not told; users of the core may record it: an_ending_names_its_decision, in Rust",
    "ending.summary_failed": "only where a tool has a summary of its own: tests/test_result_summary.py",
    "recovered.cut_bytes": "only where the log of a killed process was repaired: tests/test_audit.py",
    "log_pruned": "only where somebody prunes: tests/test_audit_prune.py",
    "log_forgotten": "only where somebody forgets a log: tests/test_audit_prune.py",
    "checkpoint": "no line of a log: tests/shipping",
}


@pytest.fixture(scope="module")
def written(issuer, tmp_path_factory) -> list[dict[str, Any]]:
    config = configuration(issuer, tmp_path_factory.mktemp("written") / "audit")
    return lines_of(broad_run(config, issuer))


def test_schema_is_one_of_its_draft_and_describes_every_member():
    Draft202012Validator.check_schema(SCHEMA)
    assert not list(undescribed(SCHEMA, "$"))


def undescribed(schema: dict[str, Any], path: str):
    """Members without a description, and objects that allow what they do not list."""
    if "description" not in schema:
        yield path
    if "properties" in schema:
        if schema.get("additionalProperties") is not False:
            yield f"{path}: open"
        for name, member in schema["properties"].items():
            yield from undescribed(member, f"{path}.{name}")
    for name, definition in schema.get("$defs", {}).items():
        yield from undescribed(definition, f"{path}#{name}")
    for form in schema.get("anyOf", []):
        yield from undescribed(form, path)


def test_every_record_that_a_guard_writes_fits_the_schema(written):
    validator = Draft202012Validator(SCHEMA)
    wrong = [(record["event_type"], error.message) for record in written for error in validator.iter_errors(record)]
    assert wrong == []
    assert {record.get("result") for record in written} >= {"allowed", "denied"}
    assert {record.get("room") for record in written} >= {
        "request",
        "token",
        "binding",
        "limits",
        "policy",
        "approval",
    }
    assert {record.get("status") for record in written} >= {"ok", "error", "cancelled", "unused"}
    assert any(record.get("enforced") is False for record in written)


def test_every_member_of_the_schema_is_written_or_listed_with_its_reason(written):
    found = {name for record in written for name in members(record, record["event_type"])}
    listed = {
        name
        for kind in SCHEMA["oneOf"]
        for name in members_of(SCHEMA["$defs"][kind["$ref"].rpartition("/")[2]], kind["$ref"].rpartition("/")[2])
    }
    missing = {name for name in listed - found if not any(name.startswith(known) for known in UNWRITTEN)}
    assert missing == set()
    assert not {known for known in UNWRITTEN if known in found}, "written after all"


def members(value: Any, path: str):
    yield path
    if isinstance(value, dict) and not path.endswith("input_params"):
        for name, member in value.items():
            yield from members(member, f"{path}.{name}")
    if isinstance(value, list):
        for element in value:
            yield from members(element, path)


def members_of(schema: dict[str, Any], path: str):
    yield path
    for name, member in schema.get("properties", {}).items():
        yield from members_of(member, f"{path}.{name}")
    yield from members_of(schema["items"], path) if "properties" in schema.get("items", {}) else ()


def test_every_form_of_an_argument_is_written(written):
    arguments = [value for record in written for value in record.get("input_params", {}).values()]
    forms = {frozenset(value) if isinstance(value, dict) else type(value) for value in arguments}
    assert {
        frozenset({"hash", "type"}),
        frozenset({"hash", "type", "length"}),
        frozenset({"value"}),
        frozenset({"start", "truncated", "length", "hash"}),
        str,
        int,
        bool,
        list,
        type(None),
    } <= forms


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"result": "maybe"}, {"timestamp": "yesterday"}, {"seq": -1}, {"event_type": "unknown"}],
)
def test_record_that_is_none_does_not_fit_the_schema(written, change):
    record = next(record for record in written if record["event_type"] == "decision")

    assert not Draft202012Validator(SCHEMA).is_valid({**record, **change})


def test_trace_of_a_request_is_recorded_once_its_caller_is_known(written):
    traced = [record for record in written if "trace_id" in record]

    assert {(record["trace_id"], record["parent_span_id"]) for record in traced} == {(TRACE, SPAN)}
    assert all("authenticated_identity" in record for record in traced)


META_TRACE, META_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "meta", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", None, (TRACE, SPAN)),
        (None, f"00-{META_TRACE}-{META_SPAN}-00", (META_TRACE, META_SPAN)),
        # A proxy's span is nearer than the client's.
        (f"00-{TRACE}-{SPAN}-01", f"00-{META_TRACE}-{META_SPAN}-00", (TRACE, SPAN)),
        ("nonsense", f"00-{META_TRACE}-{META_SPAN}-00", (META_TRACE, META_SPAN)),
        ("nonsense", 7, (None, None)),
        (f"00-{'0' * 32}-{SPAN}-01", f"00-{META_TRACE}-{META_SPAN}", (None, None)),
    ],
)
def test_trace_is_that_of_the_header_or_of_the_message(guard, issuer, header, meta, expected):
    body = message("tools/call", {"name": "add", "arguments": {}})
    if meta is not None:
        body["params"]["_meta"]["traceparent"] = meta
    sent = {**headers(issuer.token(), "tools/call", "add"), **({} if header is None else {"traceparent": header})}
    encoded = [(name.encode(), value.encode()) for name, value in sent.items()]

    guard.check(ToolRequest.http(method="POST", path="/mcp", headers=encoded, body=json.dumps(body).encode()))

    [record] = records(guard, "decision")
    assert (record.get("trace_id"), record.get("parent_span_id")) == expected


def test_trace_that_comes_twice_is_none_and_refuses_nothing(guard, issuer):
    sent = headers(issuer.token(), "tools/call", "add")
    encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
    encoded += [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())] * 2
    body = json.dumps(message("tools/call", {"name": "add", "arguments": {}})).encode()

    guard.check(ToolRequest.http(method="POST", path="/mcp", headers=encoded, body=body))

    [record] = records(guard, "decision")
    assert "trace_id" not in record


def test_trace_of_a_message_that_an_sdk_has_parsed_is_recorded(guard, issuer):
    params = {"name": "add", "arguments": {}, "_meta": {"traceparent": f"00-{META_TRACE}-{META_SPAN}-00"}}

    guard.check(ToolRequest.message(method="tools/call", params=params, id=1, token=issuer.token()))

    [record] = records(guard, "decision")
    assert (record["trace_id"], record["parent_span_id"]) == (META_TRACE, META_SPAN)


def test_command_prints_the_schema():
    done = subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "audit", "schema"], capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == SCHEMA
