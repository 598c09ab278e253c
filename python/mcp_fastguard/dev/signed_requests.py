"""A scene of the demonstration: what a gateway on the way changes in a signed request is found out (RFC 9421)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx2
from joserfc.jwk import OKPKey

from mcp_fastguard.client import RequestSigner
from mcp_fastguard.dev.stage import NARROW, Bearer, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp_fastguard.dev.demo import Walk
    from mcp_fastguard.dev.stage import Stage

__all__ = ["SigningClient", "show_signed_requests"]

_CALL: Final[dict[str, Any]] = {"name": "list_schemas", "arguments": {}}

#: Without a handshake the older era's server refuses a call, and not the guard.
_PASSED: Final = {"200", "400 without a code"}


class SigningClient:
    """A client with a key that the guard knows."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self._key = OKPKey.generate_key("Ed25519")

    @property
    def table(self) -> dict[str, Any]:
        """``[signatures]`` of a guard that takes signed requests alone."""
        client = {"client_id": self.client_id, "jwks": self._key.as_dict(private=False)}
        return {"mode": "required", "clients": [client]}

    def signer(self, token: str) -> RequestSigner:
        """Signs requests that bring this token."""
        return RequestSigner(self._key.as_dict(private=True), inner=Bearer(token))


async def show_signed_requests(walk: Walk, stage: Stage, era: str, client: SigningClient) -> None:
    """Requests as their client signed them, and as somebody on the way has changed them."""
    token = stage.issuer.issue(client.client_id, NARROW)
    signer = client.signer(token)
    async with stage.client(era, signer) as official:
        called = await official.call_tool("list_schemas", {})
        walk.row(era, "a client that signs its requests", "a result", "an error" if called.is_error else "a result")
    unsigned = await stage.post(era, token, "tools/call", _CALL)
    walk.row(era, "the same token, not signed", "401 signature_missing", outcome(unsigned))

    async def sent(change: Callable[[httpx2.Request], None], auth: httpx2.Auth = signer) -> str:
        return outcome(await stage.post(era, None, "tools/call", _CALL, auth=auth, on_the_way=change))

    kept: dict[str, str] = {}
    first = await sent(lambda request: kept.update(request.headers))
    walk.row(era, "one signed call", "passed", "passed" if first in _PASSED else first)
    other = stage.issuer.issue(client.client_id, NARROW)
    cases: dict[str, tuple[Callable[[httpx2.Request], None], str]] = {
        "the same call once more": (_with_headers(kept), "401 signature_replayed"),
        "its body changed on the way": (_with_other_tool, "401 digest_mismatch"),
        "its token changed on the way": (_with_headers({"authorization": f"Bearer {other}"}), "401 signature_mismatch"),
    }
    for tried, (change, expected) in cases.items():
        walk.row(era, tried, expected, await sent(change))
    stranger = SigningClient(client.client_id).signer(token)
    walk.row(
        era, "signed by a key that nobody knows", "401 signature_key_unknown", await sent(lambda _: None, stranger)
    )


def _with_headers(headers: Mapping[str, str]) -> Callable[[httpx2.Request], None]:
    return lambda request: request.headers.update(headers)


def _with_other_tool(request: httpx2.Request) -> None:
    # As long as the other name, so that the headers about its length stay true.
    request.stream = httpx2.ByteStream(request.content.replace(b"list_schemas", b"run_pipeline"))
