"""Logs of OpenTelemetry, to a collector on loopback."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from certificate_support import Authority
from mcp_fastguard.shipping.cursor import Cursor, cursor_file
from shipping_support import LOG, Collector, drain, line, server_tls, shipper_to, write_checkpoint, write_log

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector():
    with Collector().running() as found:
        yield found


def otlp(base, collector, **settings):
    url = f"http://127.0.0.1:{collector.port}/v1/logs"
    return shipper_to(base, "otlp", **{"url": url, "allow_http_loopback": True, **settings})


def attributes(log):
    return {entry["key"]: next(iter(entry["value"].values())) for entry in log["attributes"]}


def test_records_are_logs_whose_body_is_the_line(tmp_path, collector):
    write_checkpoint(write_log(tmp_path, records=3), 3)

    drain(otlp(tmp_path, collector))

    bodies = [log["body"]["stringValue"] for log in collector.logs]
    assert json.loads(bodies[0])["event_type"] == "checkpoint"
    assert bodies[1:] == [line(0), line(1), line(2)]
    log = collector.logs[2]
    assert (log["timeUnixNano"], log["severityText"]) == ("1795824000125000000", "INFO")
    found = attributes(log)
    assert (found["fastguard.log"], found["fastguard.seq"], found["fastguard.tool_name"]) == (LOG, "1", "run_query")
    [headers] = [headers for headers, _ in collector.requests]
    assert headers[":path"] == "/v1/logs"
    assert headers["content-type"] == "application/json"


def test_message_is_what_the_protocol_defines(tmp_path, collector):
    """By OpenTelemetry's own definition. Its JSON has ids in hexadecimal, where protobuf's has base64."""
    log = write_log(tmp_path, records=1)
    with (log / "000001.jsonl").open("a") as opened:
        opened.write(line(1, trace_id=TRACE, parent_span_id=SPAN, result="faulted", code="internal") + "\n")

    drain(otlp(tmp_path, collector))

    message = json.loads(collector.requests[0][1])
    [_, traced] = message["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for name, value in (("traceId", TRACE), ("spanId", SPAN)):
        assert traced[name] == value
        traced[name] = base64.b64encode(bytes.fromhex(value)).decode()
    parsed = json_format.ParseDict(message, ExportLogsServiceRequest())
    logs = parsed.resource_logs[0].scope_logs[0].log_records
    assert [found.severity_number for found in logs] == [9, 17]
    assert logs[1].trace_id.hex() == TRACE
    assert logs[0].body.string_value == line(0)


def test_ids_of_another_form_are_no_trace(tmp_path, collector):
    log = write_log(tmp_path, records=0)
    (log / "000001.jsonl").write_text(line(0, trace_id="x", parent_span_id=SPAN) + "\n")

    drain(otlp(tmp_path, collector))

    assert "traceId" not in collector.logs[0]


@pytest.mark.parametrize("status", [301, 302, 307, 401, 404, 429, 500, 502, 503])
def test_answer_that_is_not_ok_keeps_the_cursor_where_it_is(tmp_path, collector, status):
    write_log(tmp_path, records=2)
    elsewhere = {"location": f"http://127.0.0.1:{collector.port}/elsewhere"}
    collector.answers = [(status, elsewhere, b"")]
    found = otlp(tmp_path, collector)

    assert found.step() > 0
    assert f"status {status}" in Cursor.read(cursor_file(tmp_path, "test")).last_error
    drain(found)

    # The same two records twice, and no redirect was followed.
    assert [headers[":path"] for headers, _ in collector.requests] == ["/v1/logs"] * 2
    assert [attributes(log)["fastguard.seq"] for log in collector.logs] == ["0", "1", "0", "1"]


def test_collector_that_is_busy_is_asked_again_when_it_says(tmp_path, collector):
    write_log(tmp_path)
    collector.answers = [(429, {"retry-after": "77"}, b"")]

    assert otlp(tmp_path, collector).step() == 77.0


@pytest.mark.parametrize("status", [400, 413])
def test_batch_that_the_collector_cannot_take_comes_in_halves(tmp_path, collector, status):
    write_log(tmp_path, records=600)
    collector.answers = [(status, {}, b"")]
    found = otlp(tmp_path, collector)
    found.step()

    drain(found)

    sizes = [len(json.loads(body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) for _, body in collector.requests]
    assert sizes == [512, 256, 344]


def test_records_that_the_collector_rejects_for_good_are_counted(tmp_path, collector):
    write_log(tmp_path, records=3)
    collector.answers = [(200, {}, json.dumps({"partialSuccess": {"rejectedLogRecords": "2"}}).encode())]

    drain(otlp(tmp_path, collector))

    assert Cursor.read(cursor_file(tmp_path, "test")).rejected == 2


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b'{"partialSuccess":{"rejectedLogRecords":"x"}}', b"x" * 100_000]
)
def test_answer_that_says_nothing_rejects_nothing(tmp_path, collector, body):
    write_log(tmp_path, records=3)
    collector.answers = [(200, {}, body)]

    drain(otlp(tmp_path, collector))

    assert Cursor.read(cursor_file(tmp_path, "test")).rejected == 0


def test_bearer_token_is_read_anew_and_never_said(tmp_path, collector):
    base, file = tmp_path / "audit", tmp_path / "bearer"
    base.mkdir()
    write_log(base, records=1)
    found = otlp(base, collector, bearer_file=file)
    file.write_text("two words-secret\n")
    assert found.step() > 0
    assert "secret" not in cursor_file(base, "test").read_text()

    file.write_text("the-token\n")
    drain(found)

    assert [headers["authorization"] for headers, _ in collector.requests] == ["Bearer the-token"]


def test_collector_that_is_away_is_a_failure(tmp_path):
    write_log(tmp_path, records=1)
    with Collector().running() as gone:
        found = otlp(tmp_path, gone)

    assert found.step() > 0
    assert "ConnectError" in Cursor.read(cursor_file(tmp_path, "test")).last_error


def test_certificate_is_checked_and_nothing_is_sent_before(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    base = tmp_path / "audit"
    base.mkdir()
    write_log(base, records=1)
    with Collector(server_tls(authority.issue("localhost"))).running() as collector:
        url = f"https://localhost:{collector.port}/v1/logs"
        refused = shipper_to(base, "otlp", url=url, ca_file=stranger.file)
        assert refused.step() > 0
        assert collector.requests == []

        other_name = shipper_to(base, "otlp", url=url.replace("localhost", "127.0.0.1"), ca_file=authority.file)
        assert other_name.step() > 0
        assert collector.requests == []

        drain(shipper_to(base, "otlp", url=url, ca_file=authority.file))
        assert len(collector.logs) == 1


def test_collector_gets_the_certificate_that_it_asks_for(tmp_path):
    authority = Authority(tmp_path)
    base = tmp_path / "audit"
    base.mkdir()
    write_log(base, records=1)
    with Collector(server_tls(authority.issue("localhost"), authority.file)).running() as collector:
        url = f"https://localhost:{collector.port}/v1/logs"
        assert shipper_to(base, "otlp", url=url, ca_file=authority.file).step() > 0

        shown = authority.issue("shipper")
        drain(shipper_to(base, "otlp", url=url, ca_file=authority.file, client_certificate=shown))
        assert len(collector.logs) == 1


def test_key_that_is_encrypted_is_a_failure_and_asks_nobody(tmp_path):
    authority = Authority(tmp_path)
    base = tmp_path / "audit"
    base.mkdir()
    write_log(base, records=1)
    shown = authority.issue("shipper", password=b"secret")
    found = shipper_to(base, "otlp", url="https://localhost:1/v1/logs", client_certificate=shown)

    assert found.step() > 0
    assert "cannot be used" in Cursor.read(cursor_file(base, "test")).last_error


def test_environment_names_no_proxy(tmp_path, collector, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    write_log(tmp_path, records=1)

    drain(otlp(tmp_path, collector))

    assert len(collector.logs) == 1
