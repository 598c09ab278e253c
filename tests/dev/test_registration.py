"""Clients that register themselves (RFC 7591)."""

from __future__ import annotations

import base64
import json

import pytest

from login_support import CALLBACK, METADATA, READ, RESOURCE, error
from mcp_fastguard.dev.clients import MAX_REGISTERED


def test_registration_gives_back_what_was_registered(browser, clock):
    # RFC 7591 section 3.2.1.
    found = browser.register().json()

    assert found["redirect_uris"] == [CALLBACK]
    assert (found["client_name"], found["token_endpoint_auth_method"]) == ("Probe", "none")
    assert (found["grant_types"], found["response_types"]) == (["authorization_code", "refresh_token"], ["code"])
    assert found["client_id_issued_at"] == clock.now
    assert "client_secret" not in found


def test_client_with_a_secret_must_show_it(browser):
    # RFC 7591 section 2: client_secret_basic is the default.
    found = browser.register(token_endpoint_auth_method=None).json()
    assert (found["token_endpoint_auth_method"], found["client_secret_expires_at"]) == ("client_secret_basic", 0)

    assert error(browser.redeem(browser.code())) == (401, "invalid_client")

    basic = base64.b64encode(f"{found['client_id']}:{found['client_secret']}".encode()).decode()
    answer = browser.redeem(browser.code(), client_id=None, headers={"authorization": f"Basic {basic}"})
    assert answer.status_code == 200


def test_public_client_that_shows_a_secret_is_refused(browser):
    assert error(browser.redeem(browser.code(), client_secret="x")) == (401, "invalid_client")


def test_client_that_registered_itself_acts_for_people_only(browser):
    browser.register(grant_types=["authorization_code", "client_credentials"])

    answer = browser.token({"grant_type": "client_credentials", "client_id": browser.client_id}, {"resource": RESOURCE})

    assert error(answer) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "http://client.example/cb",
        "http://192.0.2.1/cb",
        "https://client.example/cb#fragment",
        "https://user@client.example/cb",
        "https://client.example:port/cb",
        "https:///cb",
        "https://client.example;script-src/cb",
        "https://client.example,x/cb",
        "https://*.example/cb",
        "https://client.example/c b",
        "https://client.example/;\r\nx",
        "https://client.example/\"'><script>",
        "/cb",
    ],
)
def test_redirect_uri_that_no_client_may_have_is_not_registered(browser, uri):
    answer = browser.register(redirect_uris=[CALLBACK, uri])

    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_redirect_uri", "invalid_client_metadata"}


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uris": []},
        {"redirect_uris": None},
        {"redirect_uris": "x"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"grant_types": ["client_credentials"]},
        {"response_types": ["token"]},
        {"client_name": 5},
    ],
)
def test_metadata_that_cannot_be_served_are_refused(browser, changes):
    assert browser.register(**changes).status_code == 400


def test_registration_that_is_no_json_is_refused(browser):
    for body in (b"", b"[]", b"{", b"\xff"):
        assert error(browser.send("POST", "/register", content=body)) == (400, "invalid_client_metadata")


def test_registered_clients_are_bounded(server, browser):
    first = browser.client_id
    for _ in range(MAX_REGISTERED):
        server._clients.register(json.dumps(METADATA).encode(), READ)

    assert browser.open(client_id=first).status_code == 400
