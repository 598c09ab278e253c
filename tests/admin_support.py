"""What tests of the administrators' endpoint share: a token for it, a message, and one request to the layer."""

from __future__ import annotations

import json

import httpx2

from support import ADMIN
from transport_support import run


class Inner:
    """A guarded app that notes what reaches it."""

    def __init__(self):
        self.reached = []

    async def __call__(self, scope, receive, send):
        self.reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def administrator(issuer, **claims):
    return issuer.token(**{"aud": ADMIN, "scope": "fastguard:admin", "sub": "root", "client_id": "console", **claims})


def wanted(act="status", params=None, **extra):
    return {"jsonrpc": "2.0", "id": 7, "method": f"fastguard/{act}", "params": params or {}, **extra}


def send(guard, token=None, body=None, *, url=ADMIN, method="POST", headers=None, app=None):
    """One request to the layer; the answer."""
    content = body if isinstance(body, bytes) else json.dumps(wanted() if body is None else body).encode()
    more = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    more = {name: value for name, value in {**more, **(headers or {})}.items() if value is not None}

    async def sent():
        layer = guard.asgi(Inner() if app is None else app)
        transport = httpx2.ASGITransport(layer, client=("192.0.2.7", 1234))
        async with httpx2.AsyncClient(transport=transport) as http:
            return await http.request(method, url, content=content, headers=more)

    return run(sent())


def refused(answer):
    """The code and the status of a refusal."""
    return answer.json()["error"]["data"]["code"], answer.status_code
