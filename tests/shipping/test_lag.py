"""How far places are behind, for whoever watches."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from mcp_fastguard import ToolRequest
from mcp_fastguard.observe.prometheus import GuardCollector
from mcp_fastguard.shipping import ShipError
from mcp_fastguard.shipping.lag import lag_of
from shipping_support import Memory, drain, line, shipper, write_log

#: Ten seconds after the lines of `write_log`.
NOW = 1_795_824_010.125


def test_lag_is_what_the_place_does_not_have(tmp_path):
    write_log(tmp_path, records=3)
    assert lag_of(tmp_path, "test", NOW) == (3 * (len(line(0)) + 1), 10.0, 0, 0, 0)

    memory = Memory()
    drain(shipper(tmp_path, memory))
    assert lag_of(tmp_path, "test", NOW) == (0, 0.0, 3, 0, 0)

    write_log(tmp_path, records=1, first=3)
    memory.failures = [ShipError("away")]
    shipper(tmp_path, memory).step()
    assert lag_of(tmp_path, "test", NOW) == (len(line(3)) + 1, 10.0, 3, 0, 1)


def test_half_written_line_is_no_age(tmp_path):
    log = write_log(tmp_path, records=0)
    (log / "000001.jsonl").write_text('{"seq":0,')

    assert lag_of(tmp_path, "test", NOW).seconds == 0.0


@pytest.fixture
def watched(make_guard, config, issuer, tmp_path):
    guard = make_guard(audit={**config["audit"], "ship": [{"name": "siem", "sink": "file", "path": "out"}]})
    registry = CollectorRegistry()
    registry.register(GuardCollector(guard))
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    guard.flush()
    return guard, registry


def value(registry, name):
    return registry.get_sample_value(f"fastguard_ship_{name}", {"place": "siem"})


def test_metrics_of_the_server_show_a_shipper_that_does_not_run(watched):
    guard, registry = watched

    # Of the guard's log, and of the registry of logs.
    files = [*guard.audit_folder.parent.rglob("*.jsonl")]
    assert value(registry, "waiting_bytes") == sum(file.stat().st_size for file in files)
    assert value(registry, "lag_seconds") >= 0
    assert value(registry, "shipped_total") == 0


def test_metrics_show_what_was_shipped(watched, tmp_path):
    guard, registry = watched
    from mcp_fastguard.shipping import Shipper, ShipSettings

    drain(Shipper(guard.audit_folder.parent, ShipSettings("siem", "file", path=tmp_path / "out")))

    assert value(registry, "waiting_bytes") == 0
    assert value(registry, "lag_seconds") == 0
    assert value(registry, "shipped_total") >= 2
    assert (value(registry, "rejected_total"), value(registry, "failures")) == (0, 0)


def test_cursor_that_cannot_be_read_spoils_no_other_metric(watched, caplog):
    guard, registry = watched
    file = guard.audit_folder.parent / "ship" / "siem.json"
    file.parent.mkdir()
    file.write_text("none")

    assert value(registry, "waiting_bytes") is None
    assert registry.get_sample_value("fastguard_audit_failing") == 0
    assert "no cursor" in caplog.text


def test_guard_that_ships_nowhere_has_no_such_metric(make_guard):
    registry = CollectorRegistry()
    registry.register(GuardCollector(make_guard()))

    assert value(registry, "waiting_bytes") is None
