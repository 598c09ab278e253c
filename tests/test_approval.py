"""Room approval by itself: what the gate refuses already, it refuses once more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mcp_fastguard import ToolRequest, approval
from mcp_fastguard.errors import ApprovalDenied
from mcp_fastguard.transport.messages import MessageLayer
from support import records


def settled(tier):
    asyncio.run(approval.settle(SimpleNamespace(tier=tier, rule="tools.ask")))


@pytest.mark.parametrize("tier", ["auto", "log"])
def test_tier_that_asks_nobody_passes(tier):
    settled(tier)


@pytest.mark.parametrize("tier", ["approve", "block", "a tier that is not known"])
def test_tier_that_asks_somebody_is_refused(tier):
    with pytest.raises(ApprovalDenied, match="tools.ask") as denied:
        settled(tier)

    assert denied.value.code == "approval_required"


def test_call_that_needs_an_approval_is_refused_in_the_corridor_told_and_not_run(guard, issuer, monkeypatch):
    told = []
    guard.on_decision(told.append)
    # As if the gate had let it pass.
    monkeypatch.setattr(approval, "is_needed", lambda _: True)

    async def walk():
        async with guard.call(ToolRequest.direct(tool="add", arguments={}, token=issuer.token())):
            pytest.fail("the call was settled")

    with pytest.raises(ApprovalDenied):
        asyncio.run(walk())
    assert [getattr(decision, "code", "allowed") for decision in told] == ["allowed", "approval_required"]


def test_call_of_a_server_that_nobody_approves_ends_with_its_refusal(guard, issuer, monkeypatch):
    monkeypatch.setattr(approval, "is_needed", lambda _: True)

    async def walk():
        call = guard.call(ToolRequest.direct(tool="add", arguments={}, token=issuer.token()))
        await call.authorize()
        await MessageLayer.settle(call)

    with pytest.raises(ApprovalDenied):
        asyncio.run(walk())

    _, ending = records(guard)
    assert (ending["status"], ending["error"]) == ("error", "ApprovalDenied")
