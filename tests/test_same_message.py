"""Decision 8: whether a message that an SDK hands on is the one that a request carried, compared value by value."""

import json
from types import MappingProxyType

import pytest

from mcp_fastguard import ToolRequest
from mcp_fastguard.call import Call

MANY = 200_000


def carried(arguments) -> ToolRequest:
    """A request whose call has these arguments."""
    params = {"name": "run_query", "arguments": arguments, "_meta": {"progressToken": 1}}
    return of_text(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))


def of_text(body: str) -> ToolRequest:
    return ToolRequest.http(method="POST", path="/mcp", headers=[], body=body.encode())


def handed_on(arguments) -> dict:
    return {"name": "run_query", "arguments": arguments}


VALUES = [
    None, True, False, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**70, 0.1, -0.0, 1e300, "", "ü\u2028\U0001f600", 'a"\\\n',
    [], [1, [2, [None]]], {}, {"a": {"b": [True, "x"]}},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_value_as_it_was_sent_is_the_same(value):
    assert carried({"x": value}).is_message("tools/call", handed_on({"x": value}))


@pytest.mark.parametrize(
    ("sent", "other"),
    [
        (1, 1.0), (1, True), (0, False), (0, None), (1, "1"), (1, 2), (2**64, 2**64 + 2**20), (0.1, 0.2), ("a", "b"),
        ([], {}), ([1, 2], [2, 1]), ([1], [1, 2]), ([1, 2], [1]), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}), ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}), ("a", ["a"]), ({"a": None}, {"b": None}),
    ],
    ids=repr,
)  # fmt: skip
def test_another_value_is_not_the_same(sent, other):
    assert not carried({"x": sent}).is_message("tools/call", handed_on({"x": other}))
    assert not carried({"x": other}).is_message("tools/call", handed_on({"x": sent}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, b"a", "\ud800"], ids=repr)
def test_value_that_no_text_can_carry_is_not_the_same(value):
    for sent in (None, {}, "a", [1], {"1": 2}):
        assert not carried({"x": sent}).is_message("tools/call", handed_on({"x": value}))


def test_order_of_members_does_not_count():
    assert carried({"a": 1, "b": {"c": 2, "d": 3}}).is_message("tools/call", handed_on({"b": {"d": 3, "c": 2}, "a": 1}))


def test_tuple_counts_as_a_list():
    assert carried({"x": [1, 2]}).is_message("tools/call", handed_on({"x": (1, 2)}))


@pytest.mark.parametrize("empty", [None, {}], ids=repr)
def test_absent_arguments_are_the_same_as_empty_ones(empty):
    absent = of_text('{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_query"}}')

    assert absent.is_message("tools/call", handed_on(empty))
    assert carried(empty).is_message("tools/call", {"name": "run_query"})
    assert not absent.is_message("tools/call", handed_on({"x": 1}))
    assert not carried({"x": 1}).is_message("tools/call", {"name": "run_query"})


def test_name_with_escapes_is_read_before_it_is_compared():
    call = of_text(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"n\\u0061me":"run_query","arguments":{"\\u0061":1}}}'
    )

    assert call.is_message("tools/call", handed_on({"a": 1}))


def test_another_method_or_name_is_another_message():
    assert not carried({}).is_message("prompts/get", handed_on({}))
    assert not carried({}).is_message("tools/call", {"name": "drop_table", "arguments": {}})
    assert not carried({}).is_message("tools/call", None)


def test_r1_arguments_of_very_many_members_are_compared_once_each():
    # Were each looked for among all the others, a body within its bound would take a core for minutes.
    arguments = {f"m{number:06}": number for number in range(MANY)}
    backwards = dict(reversed(arguments.items()))

    assert carried(arguments).is_message("tools/call", handed_on(arguments))
    assert carried(arguments).is_message("tools/call", handed_on(backwards))
    assert not carried(arguments).is_message("tools/call", handed_on({**arguments, "m000000": -1}))


def test_call_is_taken_once_by_parameters_of_any_mapping(guard, issuer):
    params = {"name": "run_query", "arguments": {"sql": "select 1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = [(b"authorization", f"Bearer {issuer.token()}".encode()), (b"mcp-protocol-version", b"2025-11-25")]
    request = ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body)
    call = Call(guard, request, guard.check(request))

    assert not call.take("tools/call", MappingProxyType({**params, "name": "drop_table"}))
    assert call.take("tools/call", MappingProxyType(params))
    assert not call.take("tools/call", MappingProxyType(params))
