"""What tests of logins share: one browser and one client before the embedded authorization server, by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet

ISSUER = "http://127.0.0.1:8765"
RESOURCE = "http://127.0.0.1:8766/mcp"
CALLBACK = "http://127.0.0.1:4000/callback"
READ, WRITE = "notes:read", "notes:write"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
METADATA = {
    "redirect_uris": [CALLBACK],
    "client_name": "Probe",
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
}


class FakeClock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class Browser:
    """One browser and one client before a server, by hand."""

    def __init__(self, server):
        self.server = server
        self.app = server.app()
        self.cookies = {}
        self.client_id = None

    def send(self, method, path, **options):
        async def send():
            transport = httpx2.ASGITransport(self.app, client=("127.0.0.1", 1234))
            async with httpx2.AsyncClient(transport=transport, base_url=ISSUER, cookies=self.cookies) as client:
                response = await client.request(method, path, **options)
                self.cookies = dict(client.cookies)
                return response

        return asyncio.run(send())

    def register(self, **changes):
        metadata = {name: value for name, value in {**METADATA, **changes}.items() if value is not None}
        answer = self.send("POST", "/register", json=metadata)
        self.client_id = answer.json().get("client_id")
        return answer

    def open(self, **changes):
        parameters = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "state": "st&te",
            "scope": f"{READ} {WRITE}",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
        }
        parameters = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
        return self.send("GET", "/authorize", params=parameters)

    def answer(self, page, *, headers=None, **changes):
        assert page.status_code == 200, page.text
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        scopes = [unescape(scope) for scope in re.findall(r'name="scope" value="([^"]*)"', page.text)]
        form = {**hidden, "scope": scopes, "subject": "alice", "decision": "allow", **changes}
        return self.send("POST", "/consent", data=form, headers=headers)

    def code(self, **changes):
        return answered(self.answer(self.open(), **changes))["code"]

    def redeem(self, code, /, **changes):
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": CALLBACK,
            "client_id": self.client_id,
            "resource": RESOURCE,
        }
        return self.token(form, changes)

    def refresh(self, token, **changes):
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self.client_id}
        return self.token({**form, "resource": RESOURCE}, changes)

    def token(self, form, changes):
        headers = changes.pop("headers", None)
        form = {name: value for name, value in {**form, **changes}.items() if value is not None}
        return self.send("POST", "/token", data=form, headers=headers)


def answered(response):
    """What the client's callback is told."""
    assert response.status_code == 303, response.text
    location = urlsplit(response.headers["location"])
    assert response.headers["location"].startswith(CALLBACK + "?")
    return {name: value for name, (value,) in parse_qs(location.query, strict_parsing=True).items()}


def error(response):
    return response.status_code, response.json()["error"]


def claims(server, answer):
    token = answer.json()["access_token"]
    return jwt.decode(token, KeySet.import_key_set(server.jwks), algorithms=["ES256"]).claims
