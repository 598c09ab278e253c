"""Calls that run and results are counted in one process, beside windows that all processes share."""

from __future__ import annotations

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import GuardFault, LimitDenied
from shared_limits_support import run

SHARED = {"name": "shared", "per": "principal", "quota": "3/minute"}
AT_ONCE = {"name": "at once", "per": "principal", "concurrent": 1}
ROWS = {"name": "rows", "per": "principal", "meter": "rows", "quota": "5/minute"}


@pytest.fixture
def guard_of(config, shared_server, tmp_path, request):
    guards = []

    def build(*rules, mode="exact"):
        secret = tmp_path / "state.secret"
        secret.write_bytes(b"thirty-two bytes that all of them know")
        state = {
            "url": f"redis://127.0.0.1:{shared_server.port}/0",
            "processes": 2,
            "secret_file": str(secret),
            "budget": "1s",
            "prefix": f"t{abs(hash(request.node.nodeid))}",
        }
        audit = {"path": str(tmp_path / f"audit-{len(guards)}")}
        limits = {"mode": mode, "rules": list(rules)}
        guards.append(Guard.from_dict({**config, "state": state, "limits": limits, "audit": audit}))
        return guards[-1]

    yield build
    for guard in guards:
        guard.close()


@pytest.fixture
def begun(issuer):
    async def begin(guard, tool="add"):
        return await guard.call(ToolRequest.direct(tool=tool, arguments={}, token=issuer.token())).__aenter__()

    return begin


async def refused(beginning):
    with pytest.raises(LimitDenied) as denied:
        await beginning
    return denied.value.code


@pytest.mark.parametrize("mode", ["exact", "leased"])
def test_place_is_held_while_the_call_runs_and_what_it_refuses_is_not_charged_outside(guard_of, begun, mode):
    guard = guard_of(SHARED, AT_ONCE, mode=mode)

    async def walk():
        first = await begun(guard)
        assert first.proof.owes
        found = [await refused(begun(guard)) for _ in range(5)]
        first.close()
        second = await begun(guard)
        left = second.proof.remaining
        second.close()
        return found, left

    assert run(walk(), guard) == (["concurrency_spent"] * 5, 1)


def test_call_that_the_store_refuses_keeps_no_place(guard_of, begun):
    guard = guard_of({**SHARED, "quota": "1/minute"}, {**AT_ONCE, "per": "everyone"})

    async def walk():
        (await begun(guard)).close()
        return [await refused(begun(guard)) for _ in range(3)]

    assert run(walk(), guard) == ["quota_spent"] * 3


def test_call_that_a_later_room_refuses_keeps_no_place(guard_of, begun):
    guard = guard_of(SHARED, AT_ONCE)

    async def walk():
        kept = []
        for _ in range(2):
            with pytest.raises(Exception, match="secret:use") as denied:
                await begun(guard, "secret")
            # Whoever keeps the refusal keeps no place by it.
            kept.append(denied.value)
        (await begun(guard)).close()
        return [denied.code for denied in kept]

    assert run(walk(), guard) == ["scope_insufficient"] * 2


def test_only_owing_rules_ask_no_store(guard_of, begun, shared_server):
    guard = guard_of(AT_ONCE, ROWS)

    async def walk():
        call = await begun(guard)
        code = await refused(begun(guard))
        call.note(rows=5)
        call.close()
        return code, await refused(begun(guard))

    assert run(walk(), guard) == ("concurrency_spent", "quota_spent")
    assert guard.state_status()["asked"] == 0


def test_meter_refuses_before_the_store_is_charged(guard_of, begun):
    guard, other = guard_of(SHARED, ROWS), guard_of(SHARED)

    async def walk():
        call = await begun(guard)
        call.note(rows=5)
        call.close()
        found = [await refused(begun(guard)) for _ in range(5)]
        return found, (await begun(other)).proof.remaining

    assert run(walk(), guard, other) == (["quota_spent"] * 5, 1)


def test_authorize_tells_of_no_ending_and_charges_nothing(guard_of, begun, issuer):
    guard = guard_of(SHARED, AT_ONCE)

    async def walk():
        with pytest.raises(GuardFault) as fault:
            await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=issuer.token()))
        return fault.value.code, (await begun(guard)).proof.remaining

    assert run(walk(), guard) == ("needs_call", 2)


def test_start_warns_that_they_are_not_shared(config, tmp_path):
    secret = tmp_path / "state.secret"
    secret.write_bytes(b"thirty-two bytes that all of them know")
    state = {"url": "redis://127.0.0.1:1/0", "secret_file": str(secret), "processes": 2}
    found = {}
    for name, tables in {"shared": {"state": state}, "alone": {}}.items():
        audit = {"path": str(tmp_path / f"audit-{name}")}
        with Guard.from_dict(
            {**config, "limits": {"rules": [SHARED, AT_ONCE, ROWS]}, "audit": audit, **tables}
        ) as guard:
            found[name] = [key for key, _ in guard.gate.warnings() if key.startswith("limits")]

    assert found == {"shared": ["limits.rules[1]", "limits.rules[2]"], "alone": []}
