"""What an operator watches: metrics for Prometheus, spans and metrics for OpenTelemetry, structured lines for logs.

:mod:`~mcp_fastguard.observe.prometheus` needs the extra ``prometheus``, :mod:`~mcp_fastguard.observe.telemetry` the extra
``opentelemetry``; the rest needs nothing.
"""

from __future__ import annotations

from importlib.resources import files

from mcp_fastguard.observe.logs import JSONFormatter, log_decisions

__all__ = ["JSONFormatter", "dashboard", "log_decisions"]


def dashboard() -> str:
    """The Grafana dashboard over the metrics of ``GuardCollector``: JSON text, to be imported."""
    return (files("mcp_fastguard.observe") / "grafana.json").read_text(encoding="utf-8")
