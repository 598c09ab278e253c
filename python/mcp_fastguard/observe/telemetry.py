"""Spans and metrics for OpenTelemetry, through its API alone. Needs the extra ``opentelemetry``; where spans and metrics go is
for the SDK to say, and without one everything here does nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, StatusCode

from mcp_fastguard._fastguard import __version__
from mcp_fastguard.observe.decision import described, record_id
from mcp_fastguard.observe.labels import MAX_TOOLS, ToolLabels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.trace import TracerProvider

    from mcp_fastguard._fastguard import AllowedCall, ObservedCall
    from mcp_fastguard.errors import GuardError
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.listeners import Timing
    from mcp_fastguard.observe.decision import Decision

__all__ = ["BUCKETS", "INSTRUMENTS", "GuardTelemetry"]

_SCOPE: Final = "mcp_fastguard"

#: Upper bounds of the buckets, in seconds. The SDK's own default begins at 5, which no decision takes.
BUCKETS: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1)

#: Names in spans are cut to so many characters: callers write them.
MAX_NAME: Final = 256

#: Instrument -> kind, unit, description.
INSTRUMENTS: Final = {
    "mcp_fastguard.decisions": ("counter", "{decision}", "Decisions of the guard, and refusals after them."),
    "mcp_fastguard.decision.duration": ("histogram", "s", "Time of the decision itself, without waiting."),
    "mcp_fastguard.tokens.cached": ("gauge", "{token}", "Verified tokens in the cache."),
    "mcp_fastguard.windows": ("gauge", "{window}", "Windows of limits that are kept."),
    "mcp_fastguard.audit.queued": ("gauge", "{record}", "Records that are not on disk yet."),
    "mcp_fastguard.keys.age": ("gauge", "s", "Age of the key set at hand, by issuer."),
}

_FIGURES: Final = {
    "mcp_fastguard.tokens.cached": "tokens_cached",
    "mcp_fastguard.windows": "windows",
    "mcp_fastguard.audit.queued": "audit_queued",
}


class GuardTelemetry:
    """Reports a guard's decisions: ``GuardTelemetry(guard)``, once.

    Each decision becomes a span ``fastguard.decide`` under the current one, and counts in the metrics. Attributes have the names
    of OpenTelemetry's conventions for MCP and GenAI (``mcp.method.name``, ``gen_ai.tool.name``, ``gen_ai.prompt.name``) and
    ``error.type`` where the guard could not decide; ``mcp_fastguard.outcome``, ``.room``, ``.code``, ``.record``, ``.record_id``
    (as the audit log has it) and ``.waited`` are ours. Neither holds tokens, arguments, URIs of resources or callers.

    Args:
        guard: what is watched.
        spans: whether decisions become spans, default True. A server without tracing saves the time by False.
        tools: as of ``GuardCollector``: the metrics bound their tools in the same way.
        max_tools: as of ``GuardCollector``, default 200.
        tracer_provider: default: the global one.
        meter_provider: default: the global one.

    Raises:
        ValueError: ``max_tools`` is negative.
    """

    def __init__(  # noqa: PLR0913 - all but the first are options, given by name
        self,
        guard: Guard,
        *,
        spans: bool = True,
        tools: Iterable[str] = (),
        max_tools: int = MAX_TOOLS,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._guard = guard
        self._labels = ToolLabels(guard, tools, max_tools)
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider) if spans else None
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        _, unit, text = INSTRUMENTS["mcp_fastguard.decisions"]
        self._decisions = meter.create_counter("mcp_fastguard.decisions", unit, text)
        _, unit, text = INSTRUMENTS["mcp_fastguard.decision.duration"]
        self._durations = meter.create_histogram(
            "mcp_fastguard.decision.duration", unit, text, explicit_bucket_boundaries_advisory=BUCKETS
        )
        for name, figure in _FIGURES.items():
            _, unit, text = INSTRUMENTS[name]
            meter.create_observable_gauge(name, [self._reading(figure)], unit, text)
        _, unit, text = INSTRUMENTS["mcp_fastguard.keys.age"]
        meter.create_observable_gauge("mcp_fastguard.keys.age", [self._key_ages], unit, text)
        guard.on_timed_decision(self._listen)

    def _listen(self, decided: AllowedCall | ObservedCall | GuardError, timing: Timing) -> None:
        decision = described(decided)
        label = self._labels.of(decision)
        attributes = _attributes(decision, {"gen_ai.tool.name": label} if label else {})
        self._decisions.add(1, attributes)
        if timing.duration is not None:
            self._durations.record(timing.duration, {"mcp_fastguard.outcome": decision.outcome})
        if self._tracer is not None:
            self._span(decision, timing)

    def _span(self, decision: Decision, timing: Timing) -> None:
        """A span of the past: the listener hears of a decision when it is made."""
        assert self._tracer is not None  # noqa: S101 - its one caller has looked
        ended_at = time.time_ns()
        began_at = ended_at - int(((timing.duration or 0.0) + timing.waited) * 1e9)
        # `gen_ai.operation.name` stays out: the tool is run by somebody else, whose span has it.
        attributes = _attributes(decision, _target(decision))
        if decision.record is not None:
            attributes["mcp_fastguard.record"] = decision.record
        record = record_id(self._guard, decision)
        if record is not None:
            attributes["mcp_fastguard.record_id"] = record
        if timing.waited:
            attributes["mcp_fastguard.waited"] = timing.waited
        span = self._tracer.start_span(
            "fastguard.decide", kind=SpanKind.INTERNAL, attributes=attributes, start_time=began_at
        )
        if decision.outcome == "fault":
            span.set_status(StatusCode.ERROR, decision.code)
        span.end(ended_at)

    def _reading(self, figure: str) -> Any:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value) for name, value in self._guard.gate.statistics() if name == figure]

        return read

    def _key_ages(self, _: CallbackOptions) -> Iterable[Observation]:
        status = self._guard.key_status().items()
        return [
            Observation(figures["age"], {"mcp_fastguard.issuer": issuer})
            for issuer, figures in status
            if figures["age"] is not None
        ]


def _attributes(decision: Decision, more: dict[str, str]) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {"mcp_fastguard.outcome": decision.outcome, **more}
    if decision.room:
        found["mcp_fastguard.room"] = decision.room
    if decision.code:
        found["mcp_fastguard.code"] = decision.code
    if decision.outcome == "fault":
        found["error.type"] = decision.code
    return found


def _target(decision: Decision) -> dict[str, str]:
    """Method and name. The URI of a resource stays out: what it names may be a secret of its reader."""
    found: dict[str, str] = {}
    if decision.method:
        found["mcp.method.name"] = decision.method[:MAX_NAME]
    if decision.tool:
        found["gen_ai.tool.name"] = decision.tool[:MAX_NAME]
    elif decision.target and decision.method == "prompts/get":
        found["gen_ai.prompt.name"] = decision.target[:MAX_NAME]
    return found
