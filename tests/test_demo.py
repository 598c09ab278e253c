"""The demonstration is the end-to-end test: every step through real servers and the official client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mcp_fastguard.dev.authorization_server import AuthorizationServer

RESOURCE = "http://127.0.0.1:8766/mcp"


def test_demonstration_goes_as_expected():
    command = [sys.executable, "-m", "mcp_fastguard.cli", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "steps went as expected" in done.stdout


@pytest.fixture
def server():
    return AuthorizationServer("http://127.0.0.1:8765", RESOURCE)


def ask(server, **form):
    secret = server.add_client("c", ["a:read", "a:write"])
    given = {
        "grant_type": "client_credentials",
        "client_id": "c",
        "client_secret": secret,
        "resource": RESOURCE,
        **form,
    }
    with TestClient(server.app(), base_url="http://127.0.0.1:8765") as client:
        return client.post("/token", data={name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    "issuer", ["https://auth.example.com", "http://10.0.0.1:80", "http://0.0.0.0:1", "http://127.0.0.1.example.com"]
)
def test_server_refuses_to_run_off_loopback(issuer):
    with pytest.raises(ValueError, match="loopback"):
        AuthorizationServer(issuer, RESOURCE)


def test_token_is_issued_for_the_scopes_asked(server):
    answer = ask(server, scope="a:read")
    assert answer.status_code == 200
    assert answer.json()["scope"] == "a:read"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"resource": None}, 400, "invalid_target"),
        ({"resource": "https://elsewhere.example"}, 400, "invalid_target"),
        ({"scope": "a:read admin"}, 400, "invalid_scope"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_request_that_is_not_in_order_is_refused(server, form, status, error):
    answer = ask(server, **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_rotation_publishes_both_keys_until_the_old_is_retired(server):
    first = server.jwks["keys"][0]["kid"]
    second = server.rotate()
    assert [key["kid"] for key in server.jwks["keys"]] == [second, first]
    assert all("d" not in key for key in server.jwks["keys"])
    server.retire_old()
    assert [key["kid"] for key in server.jwks["keys"]] == [second]


def test_rotation_over_http_needs_the_secret(server):
    with TestClient(server.app()) as client:
        assert client.post("/dev/rotate").status_code == 403
        answer = client.post("/dev/rotate", headers={"authorization": f"Bearer {server.admin_secret}"})
        assert answer.json()["kid"] == server.jwks["keys"][0]["kid"]
