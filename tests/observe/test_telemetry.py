"""Spans and metrics, as exporters get them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mcp_fastguard import Guard, GuardError, ToolRequest
from mcp_fastguard.listeners import Timing
from mcp_fastguard.observe.telemetry import INSTRUMENTS, GuardTelemetry
from support import ISSUER, Issuer, records

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.anyio


class Backend:
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def watch(self, guard: Guard, **options: Any) -> None:
        GuardTelemetry(guard, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    def finished(self) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == "fastguard.decide"]

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        return [(dict(point.attributes), point) for point in self.metrics()[name].data.data_points]


@pytest.fixture
def backend() -> Any:
    found = Backend()
    yield found
    found.meter_provider.shutdown()
    found.tracer_provider.shutdown()


async def call(guard: Guard, tool: str, token: str | None, *, method: str = "tools/call", **arguments: Any) -> None:
    params = {"name": tool, "uri": tool, "arguments": arguments}
    request = ToolRequest.message(method=method, params=params, token=token)
    with suppress(GuardError):
        await guard.authorize(request)


async def test_decision_is_a_span_under_the_current_one(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    with backend.tracer_provider.get_tracer("test").start_as_current_span("request") as parent:
        await call(guard, "add", issuer.token())
    [span] = backend.finished()
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < span.end_time
    attributes = dict(span.attributes or {})
    assert isinstance(attributes.pop("mcp_fastguard.record"), int)
    [decision] = records(guard, "decision")
    assert attributes.pop("mcp_fastguard.record_id") == decision["id"]
    assert attributes == {
        "mcp_fastguard.outcome": "allowed",
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "add",
    }


async def test_refusal_is_no_error_of_the_guard(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    await call(guard, "secret", issuer.token())
    [span] = backend.finished()
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes or {})
    [decision] = records(guard, "decision")
    assert decision["id"].endswith(f"-{attributes.pop('mcp_fastguard.record')}")
    assert attributes.pop("mcp_fastguard.record_id") == decision["id"]
    assert attributes == {
        "mcp_fastguard.outcome": "denied",
        "mcp_fastguard.room": "policy",
        "mcp_fastguard.code": "scope_insufficient",
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "secret",
    }


async def test_fault_is_an_error(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    guard.close()
    await call(guard, "add", issuer.token())
    [span] = backend.finished()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "closed"


@pytest.mark.parametrize(
    ("method", "expected"),
    [("prompts/get", {"gen_ai.prompt.name": "secret"}), ("resources/read", {})],
)
async def test_prompts_are_named_and_resources_are_not(
    guard: Guard, issuer: Issuer, backend: Backend, method: str, expected: dict[str, str]
) -> None:
    backend.watch(guard)
    await call(guard, "secret", issuer.token(), method=method)
    attributes = dict(backend.finished()[0].attributes or {})
    assert attributes["mcp.method.name"] == method
    assert {name: value for name, value in attributes.items() if value == "secret"} == expected


async def test_wait_is_part_of_the_span(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    allowed = guard.gate.check(ToolRequest.direct(tool="add", token=issuer.token()))
    [listener] = guard.listeners.timed
    listener(allowed, Timing(0.000_01, 2.0))
    [span] = backend.finished()
    assert (span.attributes or {})["mcp_fastguard.waited"] == 2.0
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == pytest.approx(2_000_010_000, abs=10)


async def test_spans_are_left_out_where_asked(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard, spans=False)
    await call(guard, "add", issuer.token())
    assert backend.finished() == []
    assert len(backend.points("mcp_fastguard.decisions")) == 1


async def test_metrics_have_the_names_kinds_and_units_that_are_listed(
    guard: Guard, issuer: Issuer, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Guard, "key_status", lambda _: {ISSUER: {"age": 12.5}, "https://b.example": {"age": None}})
    backend.watch(guard)
    await call(guard, "add", issuer.token())
    kinds = {"Sum": "counter", "Histogram": "histogram", "Gauge": "gauge"}
    found = {
        name: (kinds[type(metric.data).__name__], metric.unit, metric.description)
        for name, metric in backend.metrics().items()
    }
    assert found == INSTRUMENTS
    [(attributes, point)] = backend.points("mcp_fastguard.keys.age")
    assert (attributes, point.value) == ({"mcp_fastguard.issuer": ISSUER}, 12.5)


async def test_durations_fall_into_buckets_that_tell_them_apart(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    for _ in range(5):
        await call(guard, "add", issuer.token())
    [(attributes, point)] = backend.points("mcp_fastguard.decision.duration")
    assert attributes == {"mcp_fastguard.outcome": "allowed"}
    assert point.count == 5
    assert point.explicit_bounds[0] == 1e-6


async def test_invented_tools_make_no_attribute_of_a_metric(make_guard: Any, issuer: Issuer, backend: Backend) -> None:
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1000000/minute"}]})
    backend.watch(guard, spans=False)
    token = issuer.token(scope="warehouse:schema:read")
    for number in range(5_000):
        await call(guard, f"invented_{number}", token)
        await call(guard, f"list_{number}", token)
    points = backend.points("mcp_fastguard.decisions")
    assert {attributes["gen_ai.tool.name"]: point.value for attributes, point in points} == {
        "other": 5_000,
        "list_*": 5_000,
    }


async def test_no_attribute_holds_a_secret(guard: Guard, issuer: Issuer, backend: Backend) -> None:
    backend.watch(guard)
    token = issuer.token()
    for tool in ["add", "secret", "nowhere"]:
        for text in [token, f"{token}.x", "opaque-secret-token"]:
            await call(guard, tool, text, password="hunter2-argument")
    data = backend.reader.get_metrics_data()
    assert data is not None
    exported = data.to_json() + "".join(span.to_json() for span in backend.finished())
    assert len(backend.finished()) == 9
    for secret in [*token.split("."), "opaque-secret-token", "hunter2-argument", "alice"]:
        assert secret not in exported


async def test_without_an_sdk_nothing_happens(guard: Guard, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    GuardTelemetry(guard)
    await call(guard, "add", issuer.token())
    assert caplog.records == []


def test_page_lists_instruments_and_attributes() -> None:
    page = (ROOT / "docs/observe.md").read_text(encoding="utf-8")
    section = page.split("\n## OpenTelemetry\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+) \| `(.*?)` \| (.*?) \|$", section, re.MULTILINE)
    assert {name: (kind, unit, text) for name, kind, unit, text in rows} == INSTRUMENTS
    source = (ROOT / "python/mcp_fastguard/observe/telemetry.py").read_text(encoding="utf-8")
    used = set(re.findall(r'"((?:mcp|gen_ai|error|mcp_fastguard)\.[\w.]+)"', source)) - set(INSTRUMENTS)
    listed = set(re.findall(r"^\| `([\w.]+)` \| [^|]+ \|$", section, re.MULTILINE))
    assert listed == used
