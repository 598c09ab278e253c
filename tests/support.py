"""What tests share: an issuer of tokens, and a look into the log."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from mcp_fastguard import Guard, _fastguard

ISSUER = "https://auth.example.com"
RESOURCE = "https://mcp.example.com/mcp"
ADMIN = "https://mcp.example.com/fastguard/admin"


def skip_aloud(reason: str) -> None:
    """Skips a test that needs something of others; with CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have it: {reason}")
    pytest.skip(reason)


def of_quick_build(name: str) -> Any:
    """A function of the compiled module by which tests provoke what must never happen; skips aloud in builds that have none."""
    found = getattr(_fastguard, name, None)
    if found is None:
        skip_aloud("a build of the quick profile is needed: make build")
    return found


def chromium() -> str:
    """Where Chromium is; skips aloud without it."""
    found = shutil.which("chromium")
    if found is None:
        skip_aloud("chromium is not installed")
    assert found is not None
    return found


class Issuer:
    """An issuer with one key."""

    def __init__(self, issuer: str = ISSUER, key_id: str = "key-1") -> None:
        self.issuer = issuer
        self.key = ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": "ES256"})

    @property
    def jwks(self) -> dict[str, Any]:
        return KeySet([self.key]).as_dict(private=False)

    def token(self, *, header: dict[str, Any] | None = None, now: float | None = None, **claims: Any) -> str:
        """A token that passes, unless a claim says otherwise. A claim of None is left out."""
        at = int(time.time() if now is None else now)
        payload = {
            "iss": self.issuer,
            "aud": RESOURCE,
            "sub": "alice",
            "client_id": "agent",
            "iat": at,
            "exp": at + 900,
            "jti": os.urandom(8).hex(),
            "scope": "warehouse:query:read",
            **claims,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt", **(header or {})}, payload, self.key)


def records(guard: Guard, *event_types: str) -> list[dict[str, Any]]:
    """What a guard has recorded so far; left out, decisions and endings."""
    guard.flush()
    folder = guard.audit_folder
    assert folder is not None
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    found = [json.loads(line) for line in lines]
    return [record for record in found if record["event_type"] in (event_types or ("decision", "ending"))]
