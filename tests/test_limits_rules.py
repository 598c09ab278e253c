"""Room `limits` in a guard: what has a window of its own, and which rules count a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard.errors import GuardConfigError, LimitDenied
from support import records

NOW = 1_800_000_000.0


@pytest.fixture
def admitted(make_guard: Callable[..., Guard], issuer: Any) -> Callable[..., Any]:
    """Builds a guard of some rules; gives how a call of a tool with a token's claims is decided: True, or the rule's name."""

    def build(*rules: dict[str, Any], tools: dict[str, Any] | None = None) -> Callable[..., bool | str]:
        named = [{"name": f"rule-{index}", **rule} for index, rule in enumerate(rules)]
        recipe = {
            "issuers": [
                {
                    "issuer": issuer.issuer,
                    "jwks": issuer.jwks,
                    "algorithms": ["ES256"],
                    "organisation_claim": "org",
                    "roles_claim": "roles",
                }
            ],
            "tools": tools or {"*": {"open": True}},
        }
        guard = make_guard(limits={"rules": named}, **recipe)

        def call(tool: str = "run_query", *, at: float = 0.0, session: str | None = None, **claims: Any) -> bool | str:
            token = issuer.token(now=NOW + at, **claims)
            try:
                guard.check(ToolRequest.direct(tool=tool, arguments={}, token=token, session=session), NOW + at)
            except Denied as denied:
                assert denied.code == "quota_spent"
                return denied.detail.split("`")[1]
            return True

        return call

    return build


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        ("principal", {"client_id": "b", "session": "s"}, {"sub": "bob"}),
        ("client", {"sub": "bob"}, {"client_id": "b"}),
        ("agent", {"sub": "bob"}, {"act": {"sub": "bot"}}),
        ("organisation", {"sub": "bob", "client_id": "b"}, {"org": "globex"}),
        ("role", {"sub": "bob", "roles": ["admin", "analyst"]}, {"roles": ["admin"]}),
        ("tool", {"client_id": "b"}, {"tool": "add"}),
        ("class", {"tool": "heavy_b"}, {"tool": "light_a"}),
        (["organisation", "tool"], {"sub": "bob"}, {"org": "globex"}),
        (["organisation", "tool"], {"sub": "bob"}, {"tool": "add"}),
        (["agent", "class"], {"sub": "bob", "tool": "heavy_b"}, {"tool": "light_a"}),
        ("everyone", {"sub": "bob", "org": "globex", "tool": "add"}, None),
    ],
)
def test_words_of_per_share_a_window_and_divide_it(admitted, per, same, other):
    tools = {
        "heavy_*": {"open": True, "class": "heavy"},
        "light_*": {"open": True, "class": "light"},
        "*": {"open": True},
    }
    call = admitted({"per": per, "quota": "1/minute"}, tools=tools)
    base = {"tool": "heavy_a" if "class" in per else "run_query", "org": "acme", "roles": ["analyst"]}

    assert call(**base) is True
    assert call(**{**base, **same}) == "rule-0"
    if other is not None:
        assert call(**{**base, **other}) is True


@pytest.mark.parametrize("per", ["role", "organisation", "agent", "client"])
def test_caller_without_the_fact_counts_as_its_principal_and_is_not_free(admitted, per):
    call = admitted({"per": per, "quota": "1/minute"})

    assert call(client_id=None) is True
    assert call(client_id=None) == "rule-0"
    assert call(client_id=None, sub="bob") is True


def test_callers_without_a_client_do_not_share_the_window_of_principal_and_client(admitted):
    call = admitted({"per": ["principal", "client"], "quota": "1/hour"})
    assert call(client_id=None) is True
    assert call(client_id=None) == "rule-0"
    assert call(sub="bob", client_id=None) is True


def test_client_that_is_its_own_principal_shares_no_window_of_both_with_another(admitted):
    call = admitted({"per": ["principal", "client"], "quota": "1/hour"})
    assert call(sub=None, client_id="a") is True
    assert call(sub=None, client_id="a") == "rule-0"
    assert call(sub=None, client_id="b") is True


def test_session_and_tool_that_change_names_have_two_windows(admitted):
    call = admitted({"per": ["session", "tool"], "quota": "1/hour"})
    assert call("list_tables", session="list_lakes") is True
    assert call("list_lakes", session="list_tables") is True
    assert call("list_tables", session="list_lakes") == "rule-0"


def test_actor_and_client_of_one_name_are_two_agents(admitted):
    call = admitted({"per": "agent", "quota": "1/minute"})

    assert call(client_id="bot") is True
    assert call(act={"sub": "bot"}) is True
    assert call(act={"sub": "bot"}, client_id="other") == "rule-0"


def test_caller_of_many_roles_counts_in_each(admitted):
    call = admitted({"per": "role", "quota": "1/minute"})
    roles = [f"role-{index}" for index in range(40)]

    assert call(roles=roles) is True
    for role in (roles[0], roles[39]):
        assert call(sub="bob", roles=[role]) == "rule-0"
    assert call(sub="bob", roles=["role-40"]) is True


def test_tool_without_class_counts_with_the_others_without(admitted):
    call = admitted(
        {"per": "class", "quota": "1/minute"}, tools={"h": {"open": True, "class": "heavy"}, "*": {"open": True}}
    )

    assert call("a") is True
    assert call("b") == "rule-0"
    assert call("h") is True


def test_class_is_that_of_the_most_specific_rule_of_a_tool(admitted):
    tools = {"run_*": {"open": True, "class": "heavy"}, "run_query": {"open": True, "class": "light"}}
    call = admitted({"per": "class", "quota": "1/minute"}, tools=tools)

    assert [call("run_query"), call("run_job"), call("run_query")] == [True, True, "rule-0"]


def test_every_quota_of_a_rule_holds(admitted):
    call = admitted({"per": "principal", "quota": ["2/s", "3/h"]})

    assert [call(), call(), call()] == [True, True, "rule-0"]
    assert [call(at=2.0), call(at=4.0), call(at=60.0)] == [True, "rule-0", "rule-0"]
    assert call(at=3_600 * 65 / 64 + 1) is True


def test_quota_of_zero_blocks_at_once(admitted):
    call = admitted({"per": "tool", "quota": "5/minute"}, {"per": "tool", "tool": "add", "quota": "0/minute"})

    assert call("add") == "rule-1"
    assert call("run_query") is True


def test_most_specific_rule_of_one_thing_counts_alone(admitted):
    call = admitted(
        {"per": "tool", "quota": "1/minute"},
        {"per": "tool", "tool": "run_*", "quota": "2/minute"},
        {"per": "tool", "tool": "run_query", "quota": "3/minute"},
    )

    assert [call("add") for _ in range(2)] == [True, "rule-0"]
    assert [call("run_job") for _ in range(3)] == [True, True, "rule-1"]
    assert [call("run_query") for _ in range(4)] == [True, True, True, "rule-2"]


def test_rules_of_different_things_all_count(admitted):
    call = admitted(
        {"per": "principal", "quota": "3/minute"},
        {"per": "principal", "tool": "run_query", "quota": "1/minute"},
        {"per": "tool", "quota": "2/minute"},
    )

    assert [call("run_query"), call("run_query")] == [True, "rule-1"]
    assert [call("add"), call("add")] == [True, True]
    assert call("list") == "rule-0"


def test_role_and_claim_choose_the_quota(admitted):
    call = admitted(
        {"per": "principal", "quota": "1/minute"},
        {"per": "principal", "role": "analyst", "quota": "2/minute"},
        {"per": "principal", "claim": {"plan": "gold"}, "quota": "4/minute"},
    )

    assert [call(sub="a") for _ in range(2)] == [True, "rule-0"]
    assert [call(sub="b", roles=["analyst"]) for _ in range(3)] == [True, True, "rule-1"]
    gold = {"sub": "c", "roles": ["analyst"], "plan": "gold"}
    assert [call(**gold) for _ in range(5)] == [True, True, True, True, "rule-2"]
    assert [call(sub="d", plan="silver") for _ in range(2)] == [True, "rule-0"]


def test_tokens_of_two_roles_do_not_add_up_their_quotas(admitted):
    call = admitted(
        {"per": "principal", "quota": "1/minute"}, {"per": "principal", "role": "r", "quota": "70000/minute"}
    )

    assert call(roles=["r"]) is True
    assert call() == "rule-0"
    assert call(roles=["r"]) is True


def test_claim_of_any_value_is_enough_where_the_rule_says_true(admitted):
    call = admitted(
        {"per": "principal", "quota": "1/minute"}, {"per": "principal", "claim": {"plan": True}, "quota": "2/minute"}
    )

    assert [call(plan="any") for _ in range(3)] == [True, True, "rule-1"]


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ([{"per": "class", "quota": "1/s"}], "per"),
        ([{"per": "principal", "quota": []}], "quota"),
        ([{"per": "principal", "quota": ["1/s", "2/s"]}], "quota"),
        ([{"per": "tool", "quota": "1/s"}, {"per": ["tool", "principal"], "quota": "2/s"}], "quota"),
        ([{"per": "principal", "quota": "1/s", "claim": {"plan": False}}], "claim"),
        ([{"per": "principal", "quota": [f"1/{index}s" for index in range(1, 18)]}], "limits.rules"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(make_guard, rules, key):
    with pytest.raises(GuardConfigError) as refused:
        make_guard(limits={"rules": rules})

    assert key in str(refused.value)


def test_sixteen_quotas_may_count_a_call(admitted):
    call = admitted({"per": "principal", "quota": [f"1/{index}m" for index in range(1, 17)]})

    assert [call(), call()] == [True, "rule-0"]


# --- a full table -----------------------------------------------------------------------------------


def test_newcomers_to_a_full_table_are_counted_together_and_their_records_say_so(make_guard, issuer):
    guard = make_guard(limits={"max_keys": 64, "rules": [{"name": "mine", "per": "principal", "quota": "2/minute"}]})

    def ask(number):
        token = issuer.token(sub=f"caller-{number}")
        return guard.check(ToolRequest.direct(tool="add", arguments={}, token=token))

    for number in range(64):
        ask(number)
    assert [ask(number).remaining for number in (64, 65)] == [1, 0]
    with pytest.raises(LimitDenied) as denied:
        ask(66)
    assert ask(0).remaining == 0

    assert denied.value.code == "quota_spent"
    assert denied.value.retry_after is not None
    modes = [record.get("limits_mode") for record in records(guard, "decision")]
    assert modes == [None] * 64 + ["overflow"] * 3 + [None]
    assert dict(guard.gate.statistics())["windows_overflowed"] == 2
