"""What is fetched, from where, and within which bounds (F1 to F5)."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keys_support import ISSUER, SET, Loopback, chunked, respond
from mcp_fastguard._fastguard import MAX_KEY_SET_BYTES
from mcp_fastguard.keys import FetchError, KeySource
from mcp_fastguard.keys.fetch import fetch_keys


def keys_at(loopback, path="/jwks", *, allowed=True):
    return KeySource(ISSUER, loopback.url + path, allow_http_loopback=allowed)


def discovered(issuer, *, allowed=True):
    return KeySource(issuer, jwks_uri=None, allow_http_loopback=allowed)


def fetch(source, deadline=10.0):
    return asyncio.run(fetch_keys(source, deadline=deadline)).content


def reason(source, deadline=10.0):
    with pytest.raises(FetchError) as failed:
        fetch(source, deadline)
    return str(failed.value)


def metadata(**members):
    return respond(json.dumps(members).encode())


# --- the document -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"]
)
def test_key_set_comes_as_it_was_sent(loopback, media_type):
    loopback.routes["/jwks"] = respond(b'{"keys" : []}\n', media_type=media_type)

    assert fetch(keys_at(loopback)) == b'{"keys" : []}\n'


def test_request_asks_for_json_that_is_not_compressed(loopback):
    loopback.routes["/jwks"] = respond()

    fetch(keys_at(loopback))

    (_, headers), *_ = loopback.requests
    assert headers["accept-encoding"] == "identity"
    assert headers["accept"].startswith("application/json")
    assert "cookie" not in headers


@pytest.mark.parametrize("media_type", ["text/html", "text/plain", "application/octet-stream", "image/svg+json", None])
def test_content_that_is_not_json_is_refused(loopback, media_type):
    loopback.routes["/jwks"] = respond(media_type=media_type)

    assert "not JSON" in reason(keys_at(loopback))


@pytest.mark.parametrize("status", [204, 304, 400, 404, 500, 503])
def test_status_other_than_200_is_refused(loopback, status):
    loopback.routes["/jwks"] = respond(b"", status=status)

    assert f"status {status}" in reason(keys_at(loopback))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused_and_its_target_not_asked(loopback, status):
    loopback.routes["/jwks"] = respond(b"", status=status, location="/elsewhere")
    loopback.routes["/elsewhere"] = respond()

    assert f"status {status}" in reason(keys_at(loopback))
    assert loopback.paths == ["/jwks"]


def test_compressed_body_is_refused(loopback):
    loopback.routes["/jwks"] = respond(content_encoding="gzip")

    assert "content encoding" in reason(keys_at(loopback))


@pytest.mark.parametrize("send", [respond, lambda body: chunked([body[:1000], body[1000:]])], ids=["stated", "chunked"])
def test_body_of_the_longest_length_passes_and_one_byte_more_is_refused(loopback, send):
    longest = SET + b" " * (MAX_KEY_SET_BYTES - len(SET))
    loopback.routes["/longest"] = send(longest)
    loopback.routes["/longer"] = send(longest + b" ")

    assert fetch(keys_at(loopback, "/longest")) == longest
    assert f"more than {512 * 1024} bytes" in reason(keys_at(loopback, "/longer"))


def test_body_without_end_is_not_read_to_its_deadline(loopback):
    def forever():
        while not loopback.released.is_set():
            yield b" " * 65_536

    loopback.routes["/jwks"] = chunked(forever())

    assert "more than" in reason(keys_at(loopback), deadline=60.0)


def test_dripping_body_is_ended_by_the_deadline_for_all_of_it(loopback):
    def drip():
        # Each byte comes long before any timeout of a single read.
        while not loopback.released.wait(0.02):
            yield b" "

    loopback.routes["/jwks"] = chunked(drip())
    began = time.monotonic()

    assert reason(keys_at(loopback), deadline=0.3) == "no key set within 0.3 s"
    assert time.monotonic() - began < 2.0


def test_silent_server_is_left_at_the_deadline(loopback):
    loopback.routes["/jwks"] = lambda _: loopback.released.wait()

    # Which of the two timeouts is first is chance; both are the same.
    assert reason(keys_at(loopback), deadline=0.2)


def test_deadline_counts_discovery_and_keys_together(loopback):
    def slowly(route):
        def late(handler):
            loopback.released.wait(0.2)
            route(handler)

        return late

    loopback.routes["/.well-known/oauth-authorization-server"] = slowly(
        metadata(issuer=loopback.url, jwks_uri=f"{loopback.url}/jwks")
    )
    loopback.routes["/jwks"] = slowly(respond())

    assert reason(discovered(loopback.url), deadline=0.3) == "no key set within 0.3 s"


def test_refused_connection_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert "ConnectError" in reason(KeySource(ISSUER, f"http://127.0.0.1:{port}/jwks", allow_http_loopback=True))


def test_response_that_is_no_http_is_a_failure_told_in_one_line(loopback):
    loopback.routes["/jwks"] = lambda handler: handler.wfile.write(b"\x00\x1b[31m\r\nnonsense\r\n\r\n" * 100)

    told = reason(keys_at(loopback))

    assert told.isprintable()
    assert len(told) < 300


def test_proxies_of_the_environment_are_not_used(loopback, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    loopback.routes["/jwks"] = respond()

    assert fetch(keys_at(loopback)) == SET


def test_certificate_of_no_known_authority_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Loopback()
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True, do_handshake_on_connect=False)
    server.server.handle_error = lambda *_: None
    with server:
        source = KeySource(ISSUER, f"https://localhost:{server.server.server_port}/jwks", allow_http_loopback=True)

        assert "CERTIFICATE_VERIFY_FAILED" in reason(source)
        assert server.requests == []


# --- where it may come from ---------------------------------------------------------------------


def test_http_on_loopback_needs_leave(loopback):
    loopback.routes["/jwks"] = respond()

    assert "not https" in reason(keys_at(loopback, allowed=False))
    assert loopback.requests == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://auth.example.com/jwks",
        "http://192.0.2.1/jwks",
        "http://10.0.0.1/jwks",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/jwks",
        "http://[::]/jwks",
        "http://[fe80::1]/jwks",
        "http://[::ffff:192.0.2.1]/jwks",
        "http://127.0.0.1.example.com/jwks",
        "http://localhost.example.com/jwks",
        "http://localhost./jwks",
        "http://127.1/jwks",
        "http://0x7f.1/jwks",
        "http://2130706433/jwks",
        "http://127.0.0.1%00.example.com/jwks",
        "ftp://127.0.0.1/jwks",
        "file:///etc/passwd",
        "ws://127.0.0.1/jwks",
        "//127.0.0.1/jwks",
        "127.0.0.1/jwks",
        "https:///jwks",
        "https:jwks",
        "",
        "/jwks",
    ],
)
def test_place_that_is_neither_https_nor_loopback_is_refused(uri):
    assert "not https" in reason(KeySource(ISSUER, uri or "/", allow_http_loopback=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_known_in_its_spellings(host):
    from mcp_fastguard.keys.client import checked_url

    assert checked_url(f"http://{host}:1/jwks", allow_http_loopback=True).scheme == "http"


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:hunter2@auth.example.com/jwks",
        "https://hunter2@auth.example.com/jwks",
        "https://:hunter2@auth.example.com/jwks",
        "https://@auth.example.com/hunter2",
        "http://127.0.0.1\\@auth.example.com/hunter2",
        "http://hunter2@127.0.0.1/jwks",
    ],
)
def test_user_in_a_url_is_refused_and_not_told(uri):
    told = reason(KeySource(ISSUER, uri, allow_http_loopback=True))

    assert "user" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "uri", ["https://auth.example.com:hunter2/jwks", "https://[::1/hunter2", "https://a\n/hunter2"]
)
def test_url_that_cannot_be_read_is_refused_and_not_told(uri):
    told = reason(KeySource(ISSUER, uri, allow_http_loopback=True))

    assert "cannot be read" in told
    assert "hunter2" not in told


def test_query_of_a_url_is_sent_and_not_told(loopback):
    told = reason(keys_at(loopback, "/jwks?api_key=hunter2"))

    assert loopback.paths == ["/jwks?api_key=hunter2"]
    assert "hunter2" not in told


# --- discovery ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]),
        ("/", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]),
        ("/a", ["/.well-known/oauth-authorization-server/a", "/a/.well-known/openid-configuration"]),
        ("/a/b/", ["/.well-known/oauth-authorization-server/a/b", "/a/b/.well-known/openid-configuration"]),
    ],
)
def test_metadata_are_asked_for_at_both_places_in_order(loopback, path, places):
    assert "no metadata" in reason(discovered(loopback.url + path))

    assert loopback.paths == places


@pytest.mark.parametrize("place", ["/.well-known/oauth-authorization-server/a", "/a/.well-known/openid-configuration"])
def test_keys_are_found_by_the_metadata_of_either_standard(loopback, place):
    issuer = f"{loopback.url}/a"
    loopback.routes[place] = metadata(issuer=issuer, jwks_uri=f"{loopback.url}/jwks")
    loopback.routes["/jwks"] = respond()

    assert fetch(discovered(issuer)) == SET


def test_first_place_that_names_keys_is_the_last_that_is_asked(loopback):
    loopback.routes["/.well-known/oauth-authorization-server"] = metadata(
        issuer=loopback.url, jwks_uri=f"{loopback.url}/jwks"
    )
    loopback.routes["/jwks"] = respond()

    fetch(discovered(loopback.url))

    assert loopback.paths == ["/.well-known/oauth-authorization-server", "/jwks"]


def test_metadata_without_keys_leave_the_answer_to_the_next_place(loopback):
    # `jwks_uri` is optional in RFC 8414 section 2, and required in OpenID Connect Discovery section 3.
    loopback.routes["/.well-known/oauth-authorization-server"] = metadata(issuer=loopback.url)
    loopback.routes["/.well-known/openid-configuration"] = metadata(
        issuer=loopback.url, jwks_uri=f"{loopback.url}/jwks"
    )
    loopback.routes["/jwks"] = respond()

    assert fetch(discovered(loopback.url)) == SET


@pytest.mark.parametrize(
    "change", [lambda url: url + "/", str.upper, lambda _: "https://evil.example.com", lambda _: None]
)
def test_metadata_of_another_issuer_are_not_used(loopback, change):
    # RFC 8414 section 3.3: the value MUST be identical, otherwise the data MUST NOT be used.
    for place in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
        loopback.routes[place] = metadata(issuer=change(loopback.url), jwks_uri=f"{loopback.url}/jwks")
    loopback.routes["/jwks"] = respond()

    assert "another issuer" in reason(discovered(loopback.url))
    assert "/jwks" not in loopback.paths


@pytest.mark.parametrize(
    ("jwks_uri", "why"),
    [
        ("http://auth.example.com/jwks", "not https"),
        ("file:///etc/passwd", "not https"),
        ("https://user:pass@auth.example.com/jwks", "user"),
        ("", "not https"),
        (None, "no `jwks_uri`"),
        (["https://auth.example.com/jwks"], "no `jwks_uri`"),
    ],
)
def test_place_named_by_metadata_is_checked_like_any_other(loopback, jwks_uri, why):
    loopback.routes["/.well-known/oauth-authorization-server"] = metadata(issuer=loopback.url, jwks_uri=jwks_uri)

    assert why in reason(discovered(loopback.url))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"\xff{}",
        b"[" * 100_000,
        b'{"issuer": "https://evil.example.com", "issuer": "ISSUER", "jwks_uri": "ISSUER/jwks"}',
    ],
)
def test_metadata_that_are_no_strict_json_object_are_refused(loopback, body):
    loopback.routes["/.well-known/openid-configuration"] = respond(body.replace(b"ISSUER", loopback.url.encode()))
    loopback.routes["/jwks"] = respond()

    assert "JSON" in reason(discovered(loopback.url))
    assert "/jwks" not in loopback.paths


@pytest.mark.parametrize(
    "issuer", ["https://auth.example.com?a=b", "https://auth.example.com/#", "urn:issuer", "alice"]
)
def test_issuer_that_is_no_url_of_a_host_has_no_metadata(issuer):
    assert "no metadata" in reason(discovered(issuer))
