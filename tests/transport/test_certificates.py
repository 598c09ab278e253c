"""Tokens bound to a client's certificate (RFC 8705), through the ASGI layer behind a proxy that ends TLS."""

from __future__ import annotations

import httpx2
import pytest

from certificate_support import Holder
from support import RESOURCE
from transport_support import headers, message, run

PROXY = {"addresses": ["192.0.2.0/24"]}
CALL = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})


def answers(guard, token, *extra, seen=None):
    """Status and code of one call, with these headers, from 192.0.2.7."""
    guard.attached.add("http")

    async def inner(scope, receive, send):
        if seen is not None:
            seen.append({name.decode() for name, _ in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def walk():
        # Without a lifespan, whose end closes the guard: a test asks more than once.
        transport = httpx2.ASGITransport(guard.asgi(inner), client=("192.0.2.7", 1234))
        async with httpx2.AsyncClient(transport=transport) as http:
            listed = [*headers(token, "tools/call", "add").items(), *extra]
            return await http.post(RESOURCE, json=CALL, headers=listed)

    answer = run(walk())
    return answer.status_code if answer.status_code == 200 else answer.json()["error"]["data"]["code"]


@pytest.mark.parametrize("source", ["client-cert", "envoy", "nginx"])
def test_certificate_of_the_token_passes_from_a_declared_proxy_alone(make_guard, issuer, source, tmp_path):
    client = Holder()
    token = issuer.token(cnf=client.confirmation)
    guard = make_guard(certificates={"source": source}, proxies=PROXY)
    assert answers(guard, token, client.header(source)) == 200
    assert answers(guard, token, Holder().header(source)) == "certificate_mismatch"
    assert answers(guard, token) == "certificate_missing"

    stranger = make_guard(
        certificates={"source": source},
        proxies={"addresses": ["198.51.100.0/24"]},
        audit={"path": str(tmp_path / "stranger")},
    )
    assert answers(stranger, token, client.header(source)) == "certificate_missing"


@pytest.mark.parametrize("source", ["client-cert", "envoy", "nginx"])
def test_certificate_that_is_over_is_refused(make_guard, issuer, source):
    client = Holder(days=-1)
    guard = make_guard(certificates={"source": source}, proxies=PROXY)
    assert answers(guard, issuer.token(cnf=client.confirmation), client.header(source)) == "certificate_expired"


def test_second_certificate_is_refused(make_guard, issuer):
    client = Holder()
    guard = make_guard(certificates={"source": "nginx"}, proxies=PROXY)
    token = issuer.token(cnf=client.confirmation)
    assert answers(guard, token, client.header("nginx"), client.header("nginx")) == "certificate_malformed"


def test_certificates_of_strangers_do_not_reach_the_app(make_guard, issuer, tmp_path):
    client = Holder()
    extra = [client.header(source) for source in ("client-cert", "envoy", "nginx")] + [("x-other", "1")]
    certificates = {"client-cert", "x-forwarded-client-cert", "ssl-client-cert"}
    for place, proxies, expected in (
        ("declared", PROXY, certificates),
        ("strange", {"addresses": ["198.51.100.0/24"]}, set()),
    ):
        guard = make_guard(certificates={"source": "envoy"}, proxies=proxies, audit={"path": str(tmp_path / place)})
        seen = []
        assert answers(guard, issuer.token(), *extra, seen=seen) == 200
        assert seen[0] & certificates == expected
        assert "x-other" in seen[0]


def test_metadata_announce_certificates_where_they_are_taken(make_guard, tmp_path):
    from mcp_fastguard.transport.metadata import metadata

    taken = make_guard(certificates={"source": "envoy"}, proxies=PROXY)
    assert metadata(taken)["tls_client_certificate_bound_access_tokens"] is True
    other = make_guard(audit={"path": str(tmp_path / "other")})
    assert "tls_client_certificate_bound_access_tokens" not in metadata(other)


def test_source_without_a_proxy_is_warned_of(make_guard):
    warned = dict(make_guard(certificates={"source": "envoy"}).gate.warnings())
    assert "proxies.addresses" in warned["certificates.source"]
