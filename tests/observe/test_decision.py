"""Outcome, room and code of every decision, against the page of codes; and the metrics over HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_fastguard import GuardFault, errors
from mcp_fastguard.observe.decision import described
from mcp_fastguard.observe.prometheus import GuardCollector

CODES = (Path(__file__).parents[2] / "docs/codes.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.anyio


def listed(heading: str) -> list[tuple[str, str]]:
    section = CODES.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| ([\w-]+) \|", section, re.MULTILINE)


def test_every_fault_has_the_room_of_the_page() -> None:
    rooms = {code: described(GuardFault(code)).room for code, _ in listed("Faults")}
    assert rooms == {code: room.strip("-") for code, room in listed("Faults")}


def test_every_room_that_refuses_has_its_name() -> None:
    rooms = {room for _, room in listed("Refusals")}
    kinds = {room: getattr(errors, f"{room.removesuffix('s').capitalize()}Denied") for room in rooms}
    assert {room: described(kind("code", "")).room for room, kind in kinds.items()} == {room: room for room in rooms}


async def test_metrics_are_served_on_a_public_path(make_guard, config) -> None:
    guard = make_guard(resource={**config["resource"], "public": ["/metrics/"]})
    registry = CollectorRegistry()
    registry.register(GuardCollector(guard))
    app = guard.asgi(Starlette(routes=[Mount("/metrics", make_asgi_app(registry))]))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://mcp.example.com") as client:
        assert (await client.post("/mcp", content=b"{}")).status_code == 401
        response = await client.get("/metrics/")
    assert response.status_code == 200
    count = 'fastguard_decisions_total{code="token_missing",outcome="denied",room="token",tool=""} 1.0'
    assert count in response.text.splitlines()
