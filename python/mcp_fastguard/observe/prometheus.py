"""Metrics for Prometheus. Needs the extra ``prometheus``."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mcp_fastguard.errors import LimitDenied
from mcp_fastguard.observe.decision import described
from mcp_fastguard.observe.labels import MAX_TOOLS, ToolLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mcp_fastguard._fastguard import AllowedCall, ObservedCall
    from mcp_fastguard.errors import GuardError
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.listeners import Timing

__all__ = ["BUCKETS", "FAMILIES", "Family", "GuardCollector"]

logger = logging.getLogger("mcp_fastguard")

#: Upper bounds of the buckets, in seconds: a decision from the cache takes a few microseconds, a signature tens of them, and
#: what takes longer than a millisecond waits for a processor.
BUCKETS: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1)

#: Upper bounds for waits, in seconds: 50 ms is the longest for the audit log, 5 s the longest for keys.
WAIT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Family(NamedTuple):
    """What one metric is.

    Attributes:
        kind: ``counter``, ``gauge`` or ``histogram``.
        labels: the names of its labels.
        text: its text of help.
    """

    kind: str
    labels: tuple[str, ...]
    text: str


#: All metrics, without the suffix ``_total`` that counters get.
FAMILIES: Final = {
    "fastguard_decisions": Family(
        "counter", ("outcome", "room", "code", "tool"), "Decisions of the guard, and refusals after them."
    ),
    "fastguard_decision_duration_seconds": Family(
        "histogram", ("outcome",), "Time of the decision itself, without waiting."
    ),
    "fastguard_decision_wait_seconds": Family(
        "histogram", (), "Time that calls waited for keys or for the audit log, of those that waited."
    ),
    "fastguard_tokens_cached": Family("gauge", (), "Verified tokens in the cache."),
    "fastguard_windows": Family("gauge", (), "Windows of limits that are kept."),
    "fastguard_windows_overflowed": Family(
        "counter", (), "Charges in windows that newcomers share, because `limits.max_keys` are in use."
    ),
    "fastguard_quota_spent": Family(
        "counter", ("rule",), "Refusals because a quota was spent, by the rule of the limits."
    ),
    "fastguard_replays": Family("gauge", (), "Used proofs that this process remembers."),
    "fastguard_revocations": Family("gauge", (), "Revocations in force."),
    "fastguard_blocks": Family("gauge", (), "Blocks in force."),
    "fastguard_revocations_heard_age_seconds": Family(
        "gauge", ("source",), "Since when nothing was heard of the file or the server of revocations."
    ),
    "fastguard_shared_answers": Family(
        "counter", ("asked", "answer"), "Answers about limits, by their mode, and about proofs that processes share."
    ),
    "fastguard_shared_calls": Family("counter", (), "Calls that waited for the server that processes share."),
    "fastguard_shared_wait_seconds": Family("counter", (), "Seconds that they waited in all."),
    "fastguard_audit_queue_records": Family("gauge", (), "Records that are not on disk yet."),
    "fastguard_audit_written": Family("counter", (), "Lines of the audit log that are on disk."),
    "fastguard_audit_refused": Family("counter", (), "Records that the audit log did not take."),
    "fastguard_audit_unrecorded": Family(
        "counter", (), "Records of calls that ran without one, because the audit log could not be written."
    ),
    "fastguard_audit_failing": Family("gauge", (), "1 while the audit log cannot be written."),
    "fastguard_audit_unverified_counted": Family(
        "counter", (), "Refusals before a token was verified that were counted instead of written."
    ),
    "fastguard_ship_waiting_bytes": Family("gauge", ("place",), "Bytes of audit logs that a place does not have yet."),
    "fastguard_ship_lag_seconds": Family(
        "gauge", ("place",), "Age of the oldest record that a place does not have yet."
    ),
    "fastguard_ship_failures": Family("gauge", ("place",), "Batches to a place that failed in a row."),
    "fastguard_ship_shipped": Family("counter", ("place",), "Records and checkpoints that a place has taken."),
    "fastguard_ship_rejected": Family("counter", ("place",), "Of those, the ones that it could not use."),
    "fastguard_keys_age_seconds": Family("gauge", ("issuer",), "Age of the key set at hand."),
    "fastguard_keys_failures": Family("gauge", ("issuer",), "Fetches of the key set that failed in a row."),
    "fastguard_keys_fetches": Family("counter", ("issuer",), "Fetches of the key set that ended."),
    "fastguard_keys_misses": Family("counter", ("issuer",), "Tokens refused because their key was not there."),
    "fastguard_keys_stale_seconds": Family("gauge", ("issuer",), "Since when the key set should have been replaced."),
}

#: In the order of `Lag`.
_SHIPPED: Final = (
    "fastguard_ship_waiting_bytes",
    "fastguard_ship_lag_seconds",
    "fastguard_ship_shipped",
    "fastguard_ship_rejected",
    "fastguard_ship_failures",
)

#: Figure of the gate -> metric.
_FIGURES: Final = {
    "tokens_cached": "fastguard_tokens_cached",
    "windows": "fastguard_windows",
    "windows_overflowed": "fastguard_windows_overflowed",
    "replays": "fastguard_replays",
    "revocations": "fastguard_revocations",
    "blocks": "fastguard_blocks",
    "audit_queued": "fastguard_audit_queue_records",
    "audit_written": "fastguard_audit_written",
    "audit_refused": "fastguard_audit_refused",
    "audit_unrecorded": "fastguard_audit_unrecorded",
    "audit_failed": "fastguard_audit_failing",
    "unverified_counted": "fastguard_audit_unverified_counted",
}

#: Figure of an issuer's key set -> metric.
_KEY_FIGURES: Final = {
    "age": "fastguard_keys_age_seconds",
    "failures": "fastguard_keys_failures",
    "fetches": "fastguard_keys_fetches",
    "misses": "fastguard_keys_misses",
    "stale": "fastguard_keys_stale_seconds",
}


class _Histogram:
    """Counts of one histogram; its owner locks."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative, as the exposition wants them."""
        below, found = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            found.append(("+Inf" if bound == float("inf") else repr(bound), below))
        return found


class GuardCollector(Collector):
    """Counts a guard's decisions, and reads its figures when it is scraped.

    ``REGISTRY.register(GuardCollector(guard))``; one guard a registry. Counts are those of this process, and begin at 0 in a
    forked child. Decisions then pass through Python, which costs a few microseconds each.

    Args:
        guard: what is watched, for as long as it lives.
        tools: tools that have a label of their own even where only a pattern of the configuration names them.
        max_tools: tools with a label of their own, default 200; the others count as ``"other"``. More make more series.

    Raises:
        ValueError: ``max_tools`` is negative.
    """

    def __init__(self, guard: Guard, *, tools: Iterable[str] = (), max_tools: int = MAX_TOOLS) -> None:
        self._guard = guard
        self._labels = ToolLabels(guard, tools, max_tools)
        self._clear()
        _collectors.add(self)
        guard.on_timed_decision(self._listen)

    def _clear(self) -> None:
        # In a child process the lock may be held by a thread that is not there.
        self._lock = threading.Lock()
        self._decisions: dict[tuple[str, str, str, str], int] = {}
        self._spent: dict[str, int] = {}
        self._durations = {outcome: _Histogram(BUCKETS) for outcome in ("allowed", "denied", "fault", "observed")}
        self._waits = _Histogram(WAIT_BUCKETS)

    def _listen(self, decided: AllowedCall | ObservedCall | GuardError, timing: Timing) -> None:
        decision = described(decided)
        key = (decision.outcome, decision.room, decision.code, self._labels.of(decision))
        with self._lock:
            self._decisions[key] = self._decisions.get(key, 0) + 1
            if isinstance(decided, LimitDenied) and decided.spent is not None:
                rule = decided.spent.rule
                self._spent[rule] = self._spent.get(rule, 0) + 1
            if timing.duration is not None:
                self._durations[decision.outcome].add(timing.duration)
            if timing.waited:
                self._waits.add(timing.waited)

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples, so that a registry refuses a second guard."""
        return iter(_families().values())

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        families = _families()
        with self._lock:
            for key, count in self._decisions.items():
                _add(families["fastguard_decisions"], key, count)
            for outcome, durations in self._durations.items():
                _add_histogram(families["fastguard_decision_duration_seconds"], [outcome], durations)
            _add_histogram(families["fastguard_decision_wait_seconds"], [], self._waits)
            for rule, count in self._spent.items():
                _add(families["fastguard_quota_spent"], [rule], count)
        for figure, value in self._guard.gate.statistics():
            if figure in _FIGURES:
                _add(families[_FIGURES[figure]], [], value)
        for issuer, figures in self._guard.key_status().items():
            for figure, name in _KEY_FIGURES.items():
                if figures.get(figure) is not None:
                    _add(families[name], [issuer], figures[figure])
        self._add_shared(families)
        self._add_shipped(families)
        return iter(families.values())

    def _add_shared(self, families: dict[str, Metric]) -> None:
        shared = self._guard.state_status()
        for asked, count in shared["answers"].items():
            _add(families["fastguard_shared_answers"], asked, count)
        for source, age in shared["heard"].items():
            _add(families["fastguard_revocations_heard_age_seconds"], [source], age)
        _add(families["fastguard_shared_calls"], [], shared["asked"])
        _add(families["fastguard_shared_wait_seconds"], [], shared["seconds"])

    def _add_shipped(self, families: dict[str, Metric]) -> None:
        """By what is on disk, so that a shipper that does not run shows as well."""
        config = self._guard.config
        audit = config.tables.get("audit", {})
        if not audit.get("ship") or not audit.get("enabled", True):
            return
        from mcp_fastguard.shipping import ShipError  # noqa: PLC0415 - only where something is shipped
        from mcp_fastguard.shipping.lag import lag_of  # noqa: PLC0415

        base, now = config.folder / audit.get("path", "audit"), time.time()
        for place in audit["ship"]:
            name = place.get("name", place["sink"])
            try:
                lag = lag_of(base, name, now)
            except (ShipError, OSError) as error:
                logger.warning("how far %s is behind is not known: %s", name, error)
                continue
            for metric, value in zip(_SHIPPED, lag, strict=True):
                _add(families[metric], [name], value)


def _families() -> dict[str, Metric]:
    return {name: Metric(name, family.text, family.kind) for name, family in FAMILIES.items()}


def _add(family: Metric, values: Iterable[str], number: float) -> None:
    labels = dict(zip(FAMILIES[family.name].labels, values, strict=True))
    family.add_sample(family.name + ("_total" if family.type == "counter" else ""), labels, number)


def _add_histogram(family: Metric, values: Iterable[str], histogram: _Histogram) -> None:
    labels = dict(zip(FAMILIES[family.name].labels, values, strict=True))
    buckets = histogram.buckets()
    for bound, count in buckets:
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{family.name}_count", labels, buckets[-1][1])
    family.add_sample(f"{family.name}_sum", labels, histogram.total)


_collectors: weakref.WeakSet[GuardCollector] = weakref.WeakSet()


def _clear_in_child() -> None:
    for collector in list(_collectors):
        collector._clear()  # noqa: SLF001 - this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clear_in_child)
