"""Tools and callers that an operator blocks for a time."""

from __future__ import annotations

import time

import pytest

from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import Denied, PolicyDenied
from support import records


def request(token, tool="run_query"):
    return ToolRequest.direct(tool=tool, arguments={"sql": "select 1"}, token=token)


def refusal(guard, token, tool="run_query", now=None):
    with pytest.raises(Denied) as denied:
        guard.check(request(token, tool), now)
    return denied.value


@pytest.mark.parametrize(
    ("block", "spared"),
    [
        ({"subject": "alice"}, {"sub": "bob"}),
        ({"client_id": "agent"}, {"client_id": "other"}),
        ({"issuer": "https://auth.example.com", "subject": "alice"}, {"sub": "bob"}),
        ({"subject": "alice", "client_id": "agent"}, {"client_id": "other"}),
        ({"tool": "run_query", "subject": "alice"}, {"sub": "bob"}),
    ],
)
def test_block_hits_who_has_all_that_it_names(guard, issuer, block, spared):
    guard.check(request(issuer.token()))

    guard.block(**block)

    refused = refusal(guard, issuer.token())
    assert (refused.code, refused.status, refused.retry_after) == ("blocked", 403, None)
    assert isinstance(refused, PolicyDenied)
    assert guard.check(request(issuer.token(**spared)))


def test_blocked_tool_is_refused_to_everyone_and_others_are_not(guard, issuer):
    guard.block(tool="run_query")

    assert refusal(guard, issuer.token(sub="bob")).code == "blocked"
    assert guard.check(request(issuer.token(), "add"))


def test_token_that_is_issued_later_is_blocked_as_well(guard, issuer):
    guard.block(subject="alice")

    assert refusal(guard, issuer.token(now=time.time() + 5)).code == "blocked"


def test_block_ends_on_its_second(make_guard, issuer):
    guard = make_guard()
    now = float(int(time.time()))
    token = issuer.token(now=now)
    guard.block(subject="alice", until=now + 10)

    refused = refusal(guard, token, now=now + 9)
    assert (refused.code, refused.retry_after) == ("blocked", 1.0)
    assert guard.check(request(token), now + 10)


def test_same_block_again_takes_the_new_end(make_guard, issuer):
    guard = make_guard()
    now = float(int(time.time()))
    token = issuer.token(now=now)
    guard.block(subject="alice")
    guard.block(subject="alice", until=now + 5)

    assert dict(guard.gate.statistics())["blocks"] == 1
    assert guard.check(request(token), now + 5)


def test_block_is_lifted_by_the_same_names_alone(guard, issuer):
    guard.block(subject="alice", tool="run_query")

    assert not guard.unblock(subject="alice")
    assert refusal(guard, issuer.token()).code == "blocked"
    assert guard.unblock(subject="alice", tool="run_query")
    assert guard.check(request(issuer.token()))
    assert not guard.unblock(subject="alice", tool="run_query")


def test_block_charges_no_limit(make_guard, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/hour"}]})
    guard.block(tool="run_query")
    token = issuer.token()

    for _ in range(3):
        assert refusal(guard, token).code == "blocked"
    guard.unblock(tool="run_query")
    assert guard.check(request(token))


def test_block_outlives_a_reload(guard, issuer):
    guard.block(subject="alice")

    guard.reload()

    assert refusal(guard, issuer.token()).code == "blocked"


def test_call_under_way_ends_when_its_tool_is_blocked(guard, issuer):
    allowed = guard.check(request(issuer.token()))

    guard.block(tool="run_query")

    with pytest.raises(PolicyDenied, match="blocked"):
        guard.gate.recheck(allowed)


def test_block_is_enforced_where_policy_is_only_observed(make_guard, issuer):
    guard = make_guard(observe={"rooms": ["policy"], "until": "2999-01-01"})
    assert guard.gate.decide(request(issuer.token(scope="other")), observes=True)

    guard.block(subject="alice")

    with pytest.raises(PolicyDenied) as denied:
        guard.gate.decide(request(issuer.token()), observes=True)
    assert denied.value.code == "blocked"


def test_block_of_nothing_is_a_mistake(guard):
    with pytest.raises(ValueError, match="must name something"):
        guard.block(until=time.time() + 5)


def test_blocks_are_bounded(guard):
    for number in range(9_999):
        guard.block(subject=str(number))
    guard.block(subject="short", until=time.time() - 1)
    guard.block(subject="in the place of the one that has ended")
    with pytest.raises(ValueError, match="too many blocks"):
        guard.block(subject="one more")


def test_acts_of_operators_are_recorded(guard):
    guard.revoke(subject="alice", issued_before=0)
    guard.block(tool="run_query", until=0)
    guard.unblock(tool="run_query")
    guard.unblock(tool="run_query")

    revoked, blocked, unblocked = records(guard, "revoked", "blocked", "unblocked")
    assert (revoked["subject"], revoked["issued_before"]) == ("alice", "1970-01-01T00:00:00.000Z")
    assert (blocked["tool_name"], blocked["until"]) == ("run_query", "1970-01-01T00:00:00.000Z")
    assert unblocked["tool_name"] == "run_query"
