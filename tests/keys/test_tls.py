"""Who the issuer's hosts must prove to be, and what is shown to them (F5)."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from certificate_support import DAY, Authority
from keys_support import ISSUER, SET, Loopback, respond
from mcp_fastguard.keys import FetchError, KeySource
from mcp_fastguard.keys.fetch import fetch_keys


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def serve():
    """Starts servers with a certificate, and ends them."""
    running = []

    def start(certificate, clients=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        server = Loopback()
        server.names = []
        context.sni_callback = lambda _socket, name, _context: server.names.append(name)
        server.scheme = "https"
        server.routes["/jwks"] = respond()
        plain = server.server.socket
        server.server.socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        server.server.handle_error = lambda *_: None
        running.append(server.__enter__())
        return server

    yield start
    for server in running:
        server.__exit__()


def source_at(server, host="localhost", **files):
    uri = f"https://{host}:{server.server.server_port}/jwks"
    return KeySource(ISSUER, uri, allow_http_loopback=True, **files)


def fetch(source):
    return asyncio.run(fetch_keys(source, deadline=10.0)).content


def reason(source):
    with pytest.raises(FetchError) as failed:
        fetch(source)
    return str(failed.value)


def test_f5_host_that_the_file_vouches_for_is_asked_by_its_name(authority, serve):
    server = serve(authority.issue("localhost"))

    assert fetch(source_at(server, ca_file=authority.file)) == SET
    # What is connected to is an address, but what is checked is the name.
    assert server.names == ["localhost"]


@pytest.mark.parametrize(
    ("hosts", "ends", "why"),
    [(["auth.example.com"], DAY, "Hostname mismatch"), (["localhost"], -DAY / 2, "certificate has expired")],
)
def test_f5_certificate_of_another_host_or_time_is_refused(authority, serve, hosts, ends, why):
    server = serve(authority.issue(*hosts, ends=ends))

    assert why in reason(source_at(server, ca_file=authority.file))
    assert server.requests == []


def test_f5_file_vouches_instead_of_the_system_and_for_its_own_only(authority, serve, tmp_path):
    server = serve(authority.issue("localhost"))

    assert "CERTIFICATE_VERIFY_FAILED" in reason(source_at(server))
    assert "CERTIFICATE_VERIFY_FAILED" in reason(source_at(server, ca_file=Authority(tmp_path, "other").file))
    assert server.requests == []


def test_f5_file_that_was_renewed_in_place_is_read_again(authority, serve, tmp_path):
    server = serve(authority.issue("localhost"))
    file = tmp_path / "ca.pem"
    file.write_bytes(Authority(tmp_path, "before").file.read_bytes())
    assert "CERTIFICATE_VERIFY_FAILED" in reason(source_at(server, ca_file=file))

    renewed = tmp_path / "renewed.pem"
    renewed.write_bytes(authority.file.read_bytes())
    renewed.replace(file)

    assert fetch(source_at(server, ca_file=file)) == SET


def test_f5_client_certificate_is_shown_to_who_asks_for_it(authority, serve):
    server = serve(authority.issue("localhost"), clients=authority.file)
    certificate = authority.issue("client")

    assert fetch(source_at(server, ca_file=authority.file, client_certificate=certificate)) == SET
    # How the refusal shows depends on what arrives first: the alert, or the end of the connection.
    assert reason(source_at(server, ca_file=authority.file))
    assert server.paths == ["/jwks"]


def test_f5_encrypted_key_is_a_failure_and_asks_nobody_for_a_password(authority, serve):
    server = serve(authority.issue("localhost"))
    certificate = authority.issue("client", password=b"hunter2")

    told = reason(source_at(server, ca_file=authority.file, client_certificate=certificate))

    assert "is encrypted" in told


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_f5_file_that_cannot_be_used_is_a_failure_and_not_the_end_of_checking(authority, serve, tmp_path, content):
    server = serve(authority.issue("localhost"))
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)

    assert "cannot be used" in reason(source_at(server, ca_file=file))
    assert server.requests == []


# --- the bearer token ---------------------------------------------------------------------------


def authorizations(server):
    return [
        {name.lower(): value for name, value in headers.items()}.get("authorization") for _, headers in server.requests
    ]


@pytest.fixture
def bearer(tmp_path):
    file = tmp_path / "bearer"
    file.write_text("hunter2\n")
    return file


def at_loopback(loopback, bearer):
    return KeySource(ISSUER, f"{loopback.url}/jwks", allow_http_loopback=True, bearer_file=bearer)


def test_bearer_token_is_sent_and_read_anew_for_each_fetch(loopback, bearer):
    loopback.routes["/jwks"] = respond()
    fetch(at_loopback(loopback, bearer))
    bearer.write_text("hunter3")
    fetch(at_loopback(loopback, bearer))

    assert authorizations(loopback) == ["Bearer hunter2", "Bearer hunter3"]


def test_bearer_token_is_not_sent_to_another_host_that_metadata_name(loopback, bearer):
    with Loopback() as other:
        other.routes["/jwks"] = respond()
        body = b'{"issuer": "%b", "jwks_uri": "%b/jwks"}' % (loopback.url.encode(), other.url.encode())
        loopback.routes["/.well-known/oauth-authorization-server"] = respond(body)

        fetch(KeySource(loopback.url, None, allow_http_loopback=True, bearer_file=bearer))

        assert authorizations(loopback) == ["Bearer hunter2"]
        assert authorizations(other) == [None]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hunter2 hunter3", b"hunter2\nx: y", b"hunter\xc3\xa9", b"hunter2\x00", b"a" * 16_385]
)
def test_bearer_file_that_holds_no_token_is_a_failure_that_tells_nothing_of_it(loopback, bearer, content):
    bearer.write_bytes(content)

    told = reason(at_loopback(loopback, bearer))

    assert "does not hold one bearer token" in told
    assert "hunter" not in told
    assert loopback.requests == []


def test_bearer_file_that_is_gone_is_a_failure(loopback, bearer):
    bearer.unlink()

    assert "`bearer_file`" in reason(at_loopback(loopback, bearer))
    assert loopback.requests == []


def test_bearer_token_is_told_in_no_failure(loopback, bearer):
    loopback.routes["/jwks"] = respond(b"", status=401)

    assert "hunter" not in reason(at_loopback(loopback, bearer))
