"""Tokens bound to a client's certificate (RFC 8705), through the ASGI layer behind a proxy that ends TLS."""

from __future__ import annotations

import httpx2
import pytest

from certificate_support import Holder
from support import RESOURCE
from transport_support import headers, message, run

PROXY = {"addresses": ["192.0.2.0/24"]}
CALL = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})


def answers(guard, token, *extra, seen=None, tls=None):
    """Status and code of one call, with these headers, from 192.0.2.7."""
    guard.attached.add("http")

    async def inner(scope, receive, send):
        if seen is not None:
            seen.append({name.decode() for name, _ in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def walk():
        # Without a lifespan, whose end closes the guard: a test asks more than once.
        app = guard.asgi(inner)

        async def ended(scope, receive, send):
            """As a server that ends TLS by itself would (the `tls` extension of ASGI)."""
            await app(scope if tls is None else {**scope, "extensions": {"tls": tls}}, receive, send)

        transport = httpx2.ASGITransport(ended, client=("192.0.2.7", 1234))
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


# --- names of clients (mutual TLS) ----------------------------------------------------------------

SPIFFE = "spiffe://example.org/agent"


def naming(make_guard, source, *, required=False, client_id="agent", names=(SPIFFE, "agent.example.org")):
    client = {"client_id": client_id, "subject_alt_names": list(names)}
    return make_guard(certificates={"source": source, "required": required, "clients": [client]}, proxies=PROXY)


@pytest.mark.parametrize("source", ["client-cert", "envoy", "nginx"])
def test_certificate_must_have_a_name_of_the_client_though_the_token_is_not_bound(make_guard, issuer, source):
    guard = naming(make_guard, source)
    good = Holder(uris=["spiffe://example.org/other", SPIFFE])
    assert answers(guard, issuer.token(), good.header(source)) == 200
    assert answers(guard, issuer.token(), Holder(names=["AGENT.example.org"]).header(source)) == 200
    assert answers(guard, issuer.token()) == "certificate_missing"
    for other in (
        Holder(),
        Holder(uris=[SPIFFE + "/x"]),
        Holder(uris=["spiffe://example.org/AGENT"]),
        Holder(names=["example.org"]),
        Holder(names=["x.agent.example.org"]),
        # A name of one kind that looks like the other.
        Holder(names=[SPIFFE]),
        Holder(uris=["agent.example.org"]),
    ):
        assert answers(guard, issuer.token(), other.header(source)) == "certificate_name_mismatch"


def test_certificate_with_the_name_must_be_valid(make_guard, issuer):
    guard = naming(make_guard, "nginx")
    assert answers(guard, issuer.token(), Holder(days=-1, uris=[SPIFFE]).header("nginx")) == "certificate_expired"


def test_token_that_is_bound_needs_both_the_certificate_and_the_name(make_guard, issuer):
    guard = naming(make_guard, "nginx")
    named, bare = Holder(uris=[SPIFFE]), Holder()
    assert answers(guard, issuer.token(cnf=named.confirmation), named.header("nginx")) == 200
    assert answers(guard, issuer.token(cnf=bare.confirmation), named.header("nginx")) == "certificate_mismatch"
    assert answers(guard, issuer.token(cnf=bare.confirmation), bare.header("nginx")) == "certificate_name_mismatch"


def test_other_clients_need_a_certificate_only_where_all_do(make_guard, issuer, tmp_path):
    other = Holder()
    assert answers(naming(make_guard, "nginx", client_id="another"), issuer.token()) == 200
    guard = make_guard(
        certificates={"source": "nginx", "required": True}, proxies=PROXY, audit={"path": str(tmp_path / "required")}
    )
    assert answers(guard, issuer.token()) == "certificate_missing"
    assert answers(guard, issuer.token(), other.header("nginx")) == "certificate_name_mismatch"
    assert answers(guard, issuer.token(cnf=other.confirmation), other.header("nginx")) == 200


def test_names_by_envoy_alone_serve_where_it_hands_on_no_certificate(make_guard, issuer):
    guard = naming(make_guard, "envoy")
    hashed = f"By=spiffe://example.org/us;Hash={'0' * 64}"
    for parts, expected in (
        (f"{hashed};URI={SPIFFE}", 200),
        (f"{hashed};URI=spiffe://a/b;DNS=agent.example.org", 200),
        (f"{hashed};URI=agent.example.org", "certificate_name_mismatch"),
        (f"{hashed};DNS={SPIFFE}", "certificate_name_mismatch"),
        (f'{hashed};Subject="URI={SPIFFE}"', "certificate_name_mismatch"),
        (f"By={SPIFFE};Hash={'0' * 64}", "certificate_name_mismatch"),
    ):
        assert answers(guard, issuer.token(), ("x-forwarded-client-cert", parts)) == expected, parts


def test_certificate_of_the_servers_own_tls_counts_where_it_is_the_source(make_guard, issuer, tmp_path):
    guard = naming(make_guard, "tls")
    good = Holder(uris=[SPIFFE])
    assert answers(guard, issuer.token(), tls={"client_cert_chain": [good.pem, Holder().pem]}) == 200
    assert (
        answers(guard, issuer.token(), tls={"client_cert_chain": [Holder().pem, good.pem]})
        == "certificate_name_mismatch"
    )
    unverified = {"client_cert_chain": [good.pem], "client_cert_error": "self-signed"}
    assert answers(guard, issuer.token(), tls=unverified) == "certificate_missing"
    assert answers(guard, issuer.token(), tls={"client_cert_chain": []}) == "certificate_missing"
    assert answers(guard, issuer.token(), tls={"client_cert_chain": ["x"]}) == "certificate_malformed"
    # Headers say nothing then, not even those of a declared proxy.
    assert answers(guard, issuer.token(), good.header("nginx"), good.header("client-cert")) == "certificate_missing"
    other = make_guard(
        certificates={"source": "nginx", "required": True}, proxies=PROXY, audit={"path": str(tmp_path / "other")}
    )
    assert answers(other, issuer.token(), tls={"client_cert_chain": [good.pem]}) == "certificate_missing"


def test_source_of_the_server_itself_needs_no_proxy(make_guard):
    assert "certificates.source" not in dict(make_guard(certificates={"source": "tls"}).gate.warnings())
