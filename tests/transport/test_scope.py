"""What is read from the scope and the first message of an ASGI connection."""

from collections import UserDict

import pytest

from mcp_fastguard import ToolRequest
from mcp_fastguard._fastguard import MAX_BODY_BYTES_BEFORE_TOKEN, whole_body


def scope(**changes) -> dict:
    return {"type": "http", "method": "POST", "path": "/mcp", "headers": [], "client": ("192.0.2.7", 1234), **changes}


def test_peer_is_the_address_of_the_connection():
    assert ToolRequest.of_scope("/mcp", scope(), b"{}").peer == "192.0.2.7"
    assert ToolRequest.of_scope("/mcp", scope(client=["fe80::1%eth0", 1]), None).peer == "fe80::1"


@pytest.mark.parametrize("client", [None, (), [], ("testclient", 50_000), ("", 1), (None, 1), ("192.0.2.7",)], ids=repr)
def test_peer_that_is_no_address_is_unknown(client):
    assert ToolRequest.of_scope("/mcp", scope(client=client), b"{}").peer is None


def test_peer_of_a_scope_without_client_is_unknown():
    bare = scope()
    del bare["client"]

    assert ToolRequest.of_scope("/mcp", bare, b"{}").peer is None


def test_scope_of_another_kind_of_mapping_is_read_too():
    assert ToolRequest.of_scope("/mcp", UserDict(scope()), b"{}").peer == "192.0.2.7"


@pytest.mark.parametrize("name", ["method", "headers"])
def test_scope_that_is_not_whole_is_told_by_the_name_of_what_it_lacks(name):
    broken = scope()
    del broken[name]

    with pytest.raises(KeyError, match=name):
        ToolRequest.of_scope("/mcp", broken, b"{}")


@pytest.mark.parametrize(
    "headers", [[("name", "value")], [(b"name", "value")], [b"name"], [(b"a", b"b", b"c")]], ids=repr
)
def test_header_that_is_no_pair_of_bytes_is_an_error(headers):
    with pytest.raises((TypeError, ValueError)):
        ToolRequest.of_scope("/mcp", scope(headers=headers), b"{}")


def test_headers_of_any_sequence_are_read():
    for headers in ([[b"x5t", b"1"]], ((b"x5t", b"1"),), iter([(b"x5t", b"1")])):
        assert ToolRequest.of_scope("/mcp", scope(headers=headers), b"{}").peer == "192.0.2.7"


@pytest.mark.parametrize(
    "extensions",
    [None, {}, {"tls": None}, {"tls": {}}, {"tls": {"client_cert_chain": ()}}, {"tls": {"client_cert_chain": None}}],
    ids=repr,
)
def test_connection_without_a_certificate_makes_a_request_without_one(extensions):
    request = ToolRequest.of_scope("/mcp", scope(extensions=extensions), b"{}")

    assert not request.speaks_of_certificates


def test_whole_message_gives_the_very_bytes_that_came():
    body = b'{"jsonrpc": "2.0"}'

    assert whole_body({"type": "http.request", "body": body, "more_body": False}) is body
    assert whole_body({"type": "http.request", "body": body}) is body
    assert whole_body({"type": "http.request"}) == b""


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
        {"type": "http.request", "body": bytearray(b"{}")},
        {"type": "http.request", "body": b" " * (MAX_BODY_BYTES_BEFORE_TOKEN + 1)},
    ],
    ids=["more to come", "client gone", "not bytes", "too long"],
)
def test_message_that_must_be_read_otherwise_gives_nothing(message):
    assert whole_body(message) is None


def test_body_at_the_bound_is_whole():
    body = b" " * MAX_BODY_BYTES_BEFORE_TOKEN

    assert whole_body({"type": "http.request", "body": body}) is body


def test_message_without_a_type_is_an_error():
    with pytest.raises(KeyError, match="type"):
        whole_body({"body": b"{}"})
