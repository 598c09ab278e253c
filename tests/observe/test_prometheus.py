"""The collector, read as Prometheus reads it."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mcp_fastguard import Denied, Guard, GuardError, ToolRequest
from mcp_fastguard.observe import dashboard
from mcp_fastguard.observe.prometheus import FAMILIES, GuardCollector
from support import Issuer

ROOT = Path(__file__).parents[2]
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}

pytestmark = pytest.mark.anyio


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def watched(guard: Guard, registry: CollectorRegistry) -> Guard:
    registry.register(GuardCollector(guard))
    return guard


def scraped(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Sample's name and labels -> value, out of the exposition's text."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return scraped(registry).get((name, frozenset(labels.items())))


async def call(guard: Guard, tool: str, token: str | None) -> None:
    """A call as the message layers make it: they know what was asked for."""
    request = ToolRequest.direct(tool=tool, token=token)
    with suppress(GuardError):
        await guard.authorize(request)


def tools_of(registry: CollectorRegistry) -> set[str]:
    return {
        label
        for name, labels in scraped(registry)
        if name == "fastguard_decisions_total"
        for key, label in labels
        if key == "tool"
    }


async def test_decisions_are_counted_by_outcome_room_code_and_tool(
    watched: Guard, registry: CollectorRegistry, issuer: Issuer
) -> None:
    token = issuer.token()
    for tool, text in [("add", token), ("add", token), ("secret", token), ("nowhere", token), ("add", None)]:
        await call(watched, tool, text)
    expected = {
        ("allowed", "", "", "add"): 2,
        ("denied", "policy", "scope_insufficient", "secret"): 1,
        ("denied", "policy", "target_unknown", "other"): 1,
        ("denied", "token", "token_missing", ""): 1,
    }
    names = ("outcome", "room", "code", "tool")
    for labels, count in expected.items():
        assert value(registry, "fastguard_decisions_total", **dict(zip(names, labels, strict=True))) == count
    assert sum(n for (name, _), n in scraped(registry).items() if name == "fastguard_decisions_total") == 5


async def test_quota_that_is_spent_is_counted(
    make_guard: Callable[..., Guard], registry: CollectorRegistry, issuer: Issuer
) -> None:
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})
    registry.register(GuardCollector(guard))
    token = issuer.token()
    await call(guard, "add", token)
    await call(guard, "add", token)
    labels = {"outcome": "denied", "room": "limits", "code": "quota_spent", "tool": "add"}
    assert value(registry, "fastguard_decisions_total", **labels) == 1


async def test_fault_is_counted(watched: Guard, registry: CollectorRegistry, issuer: Issuer) -> None:
    watched.close()
    await call(watched, "add", issuer.token())
    labels = {"outcome": "fault", "room": "", "code": "closed", "tool": ""}
    assert value(registry, "fastguard_decisions_total", **labels) == 1


async def test_ten_thousand_invented_tools_make_one_label(
    make_guard: Callable[..., Guard], config: dict[str, Any], registry: CollectorRegistry, issuer: Issuer
) -> None:
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1000000/minute"}]})
    registry.register(GuardCollector(guard))
    token = issuer.token(scope="warehouse:schema:read")
    for number in range(5_000):
        await call(guard, f"invented_{number}", token)
        await call(guard, f"list_{number}", token)
    assert tools_of(registry) == {"other", "list_*"}
    labels = {"outcome": "allowed", "room": "", "code": "", "tool": "list_*"}
    assert value(registry, "fastguard_decisions_total", **labels) == 5_000
    assert len(scraped(registry)) < 100


async def test_more_tools_than_the_bound_are_others(
    make_guard: Callable[..., Guard], registry: CollectorRegistry, issuer: Issuer
) -> None:
    guard = make_guard(tools={f"tool_{number:03}": {"open": True} for number in range(300)})
    registry.register(GuardCollector(guard, max_tools=200))
    token = issuer.token()
    for number in range(300):
        await call(guard, f"tool_{number:03}", token)
    assert tools_of(registry) == {f"tool_{number:03}" for number in range(200)} | {"other"}
    assert value(registry, "fastguard_decisions_total", outcome="allowed", room="", code="", tool="other") == 100


async def test_tool_with_a_rule_beside_its_code_has_a_label(
    watched: Guard, registry: CollectorRegistry, issuer: Issuer
) -> None:
    await call(watched, "coded", issuer.token())
    assert tools_of(registry) == {"other"}

    @watched.tool(open=True)
    def coded() -> None: ...

    await call(watched, "coded", issuer.token())
    assert tools_of(registry) == {"other", "coded"}


async def test_tool_that_the_operator_names_has_a_label(
    guard: Guard, registry: CollectorRegistry, issuer: Issuer
) -> None:
    registry.register(GuardCollector(guard, tools=["list_tables"]))
    token = issuer.token(scope="warehouse:schema:read")
    await call(guard, "list_tables", token)
    await call(guard, "list_views", token)
    assert tools_of(registry) == {"list_tables", "list_*"}


async def test_pattern_with_the_longest_prefix_gives_the_label(
    make_guard: Callable[..., Guard], registry: CollectorRegistry, issuer: Issuer
) -> None:
    rule = {"open": True}
    guard = make_guard(tools={"*": rule, "orders_*": rule, "orders_x*_write*": rule, "exact": rule})
    collector = GuardCollector(guard)
    registry.register(collector)
    for tool in ["orders_1", "orders_", "orders_x1_writes", "orders_x1_reads", "xorders_1", "exact", "exactly"]:
        await call(guard, tool, issuer.token())
        # The gate's own word, where it allowed.
        allowed = guard.check(ToolRequest.direct(tool=tool, token=issuer.token()))
        labels = {"outcome": "allowed", "room": "", "code": "", "tool": allowed.rule.split('"')[1]}
        assert value(registry, "fastguard_decisions_total", **labels), tool


def test_negative_bound_is_refused(guard: Guard) -> None:
    with pytest.raises(ValueError, match="max_tools"):
        GuardCollector(guard, max_tools=-1)


async def test_durations_are_in_buckets(watched: Guard, registry: CollectorRegistry, issuer: Issuer) -> None:
    for _ in range(7):
        await call(watched, "add", issuer.token())
    name = "fastguard_decision_duration_seconds"
    assert value(registry, f"{name}_count", outcome="allowed") == 7
    assert value(registry, f"{name}_bucket", outcome="allowed", le="+Inf") == 7
    total = value(registry, f"{name}_sum", outcome="allowed")
    assert total is not None
    assert 0 < total < 7
    bounds = [
        (float(dict(labels)["le"]), n)
        for (sample, labels), n in scraped(registry).items()
        if sample == f"{name}_bucket" and ("outcome", "allowed") in labels
    ]
    assert [n for _, n in sorted(bounds)] == sorted(n for _, n in bounds)
    assert value(registry, f"{name}_count", outcome="denied") == 0
    assert value(registry, "fastguard_decision_wait_seconds_count") == 0


async def test_figures_of_the_gate_are_read_at_the_scrape(
    watched: Guard, registry: CollectorRegistry, issuer: Issuer
) -> None:
    assert value(registry, "fastguard_tokens_cached") == 0
    await call(watched, "add", issuer.token())
    watched.flush()
    assert value(registry, "fastguard_tokens_cached") == 1
    assert value(registry, "fastguard_windows") == 1
    assert value(registry, "fastguard_audit_queue_records") == 0
    assert value(registry, "fastguard_audit_failing") == 0
    assert (value(registry, "fastguard_audit_written_total") or 0) >= 1


def test_figures_of_the_keys_are_those_of_the_guard(
    watched: Guard, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {
        "https://a.example": {"age": 12.5, "failures": 0, "fetches": 3, "last_error": None, "due_in": 1.0},
        "https://b.example": {"age": None, "failures": 2, "fetches": 2, "last_error": "refused", "due_in": 1.0},
    }
    monkeypatch.setattr(Guard, "key_status", lambda _: status)
    assert value(registry, "fastguard_keys_age_seconds", issuer="https://a.example") == 12.5
    assert value(registry, "fastguard_keys_age_seconds", issuer="https://b.example") is None
    assert value(registry, "fastguard_keys_failures", issuer="https://b.example") == 2
    assert value(registry, "fastguard_keys_fetches_total", issuer="https://a.example") == 3


def test_second_guard_in_a_registry_is_refused(
    watched: Guard, make_guard: Callable[..., Guard], registry: CollectorRegistry, tmp_path: Path
) -> None:
    other = make_guard(audit={"path": str(tmp_path / "other")})
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(GuardCollector(other))


def test_counts_of_many_threads_are_whole(watched: Guard, registry: CollectorRegistry) -> None:
    def work() -> None:
        for _ in range(500):
            with pytest.raises(Denied):
                watched.check(ToolRequest.direct(tool="add"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = {"outcome": "denied", "room": "token", "code": "token_missing", "tool": ""}
    assert value(registry, "fastguard_decisions_total", **labels) == 2_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_begins_to_count_at_zero(watched: Guard, registry: CollectorRegistry) -> None:
    with pytest.raises(Denied):
        watched.check(ToolRequest.direct(tool="add"))
    child = os.fork()
    if not child:
        text = generate_latest(registry).decode()
        os._exit(0 if "fastguard_decisions_total{" not in text else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    labels = {"outcome": "denied", "room": "token", "code": "token_missing", "tool": ""}
    assert value(registry, "fastguard_decisions_total", **labels) == 1


async def test_nothing_of_a_token_is_exposed(watched: Guard, registry: CollectorRegistry, issuer: Issuer) -> None:
    token = issuer.token()
    for tool in ["add", "secret", token]:
        await call(watched, tool, token)
    text = generate_latest(registry).decode()
    assert not any(part in text for part in token.split("."))
    assert "alice" not in text


# --- the dashboard and the page --------------------------------------------------------------------


def samples() -> set[str]:
    """The names of all samples that the collector can export."""
    return {name + suffix for name, family in FAMILIES.items() for suffix in SUFFIXES[family.kind]}


def expressions() -> list[str]:
    panels = json.loads(dashboard())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_exposition_has_every_metric_with_its_kind(watched: Guard, registry: CollectorRegistry) -> None:
    found = {family.name: family.type for family in text_string_to_metric_families(generate_latest(registry).decode())}
    assert found == {name: family.kind for name, family in FAMILIES.items()}


def test_dashboard_uses_metrics_of_the_collector_alone() -> None:
    used = {name for text in expressions() for name in re.findall(r"\bfastguard_\w+", text)}
    assert used <= samples()
    # A metric that nobody looks at is one too many, or a panel is missing.
    shown = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in used}
    assert shown == set(FAMILIES)


def test_dashboard_groups_by_labels_of_the_metric() -> None:
    for text in expressions():
        [name] = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in re.findall(r"\bfastguard_\w+", text)}
        known = {*FAMILIES[name].labels, "le", "job", "instance"}
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for label in group.split(",")}
        selected = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", text))
        assert grouped | selected <= known, text


def test_dashboard_of_panels_that_do_not_overlap() -> None:
    panels = json.loads(dashboard())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_page_lists_the_metrics_of_the_collector() -> None:
    page = (ROOT / "docs/observe.md").read_text(encoding="utf-8")
    section = page.split("\n## Prometheus\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(fastguard_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    expected = [
        (
            name + ("_total" if family.kind == "counter" else ""),
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.text,
        )
        for name, family in FAMILIES.items()
    ]
    assert rows == expected
