"""Type-checked, never run: what users write must check, and skipped steps must not."""

from __future__ import annotations

from mcp_fastguard import AllowedCall, Guard, ToolRequest, current_call
from mcp_fastguard.binding import BoundToken, DPoPVerifier
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.testing import FakeClock, GuardUnderTest, as_caller, denied, guard, make_token
from mcp_fastguard.token import KeySet, TokenVerifier, VerifiedToken, verify_compact


def direct(guard: Guard) -> str | None:
    request = ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token="a.b.c")
    allowed: AllowedCall = guard.check(request)
    return allowed.subject


async def corridor(guard: Guard, request: ToolRequest) -> int:
    async def tool() -> int:
        current_call().record(rows=1)
        return 1

    async with guard.call(request) as call:
        return await call.run(tool)


def tokens(jwks: dict[str, object]) -> tuple[str, ...]:
    keys = KeySet.from_jwks(jwks)
    header, payload = verify_compact("a.b.c", keys, algorithms=["ES256"])
    verifier = TokenVerifier(issuer="i", audience="a", keys=keys, algorithms=["ES256"])
    return verifier.verify(str(header) + payload.decode()).scopes


def proofs(token: VerifiedToken) -> str:
    verifier = DPoPVerifier(max_age=60, algorithms=["ES256", "EdDSA"])
    bound: BoundToken = verifier.confirm(token, "a.b.c", method="POST", url="https://h/mcp", access_token="d.e.f")
    return bound.thumbprint


def nonces(bound: BoundToken) -> str:
    return bound.nonce or DPoPVerifier(nonce_secret=b"s" * 32).nonce(now=1.0)


def windows() -> bool:
    return SlidingWindow(quota=100, window=60.0).admit("key", cost=1).allowed


def under_test(clock: FakeClock) -> float | None:
    tested: GuardUnderTest = guard("fastguard.toml", clock=clock)
    token: str = make_token(scopes=["warehouse:query:read"], subject=None, org_id="acme")
    with as_caller(tested, scopes=["warehouse:query:read"]), denied("quota_spent") as refused:
        tested.check(ToolRequest.direct(tool="run_query", token=token))
    return refused.value.retry_after


def forged() -> AllowedCall:
    # A proof cannot be made by hand: the argument is of type Never.
    return AllowedCall("proof")  # type: ignore[arg-type]
