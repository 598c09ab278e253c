"""Room token, where a verifier of the SDK proves identities in the place of ``[[issuers]]``: an existing login."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import Attested, Gate

__all__ = ["OutsideVerifier", "TokenVerifierProtocol"]

logger = logging.getLogger("mcp_fastguard")

#: A verifier is awaited for this long, in seconds, as keys are.
VERIFIER_WAIT: Final = 5.0

#: A verdict without an expiry is believed for this long, in seconds; then the verifier is asked again.
UNSTATED_LIFE: Final = 60.0


class TokenVerifierProtocol(Protocol):
    """What the MCP SDK calls a ``TokenVerifier``; FastMCP's auth providers are ones too."""

    async def verify_token(self, token: str) -> Any:
        """The SDK's ``AccessToken``, or None."""


class OutsideVerifier:
    """Asks a verifier, once for all calls that bring the same token at a time."""

    def __init__(self, verifier: TokenVerifierProtocol, gate: Gate, *, resource: str) -> None:
        self._verifier = verifier
        self._gate = gate
        self._resource = resource
        self._asked: dict[tuple[int, str], asyncio.Task[Any]] = {}

    async def attested(self, text: str) -> Attested | None:
        """What the verifier finds of a token, read as claims are; None where it does not accept it."""
        # A task belongs to one loop, and servers of tests run several.
        key = (id(asyncio.get_running_loop()), text)
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.ensure_future(self._ask(text))
            task.add_done_callback(lambda _: self._asked.pop(key, None))
        try:
            # A waiter that is cancelled takes nothing from the others.
            found = await asyncio.shield(task)
            return None if found is None else self._gate.attest(text, json.dumps(self._claims(found)))
        except Exception as error:  # noqa: BLE001 - whatever a verifier raises, its call is refused
            # Its text may hold the token.
            logger.error("the verifier failed: %s", type(error).__name__)  # noqa: TRY400 - as above
            return self._gate.attest(text, None)

    async def _ask(self, text: str) -> Any:
        async with asyncio.timeout(VERIFIER_WAIT):
            return await self._verifier.verify_token(text)

    def _claims(self, found: Any) -> dict[str, Any]:
        """The SDK's ``AccessToken`` as claims; its own members come before those of the token's."""
        claims: dict[str, Any] = dict(found.claims or {})
        expires_at = found.expires_at if found.expires_at is not None else time.time() + UNSTATED_LIFE
        named = {
            "iss": claims.get("iss") or _issuer_of(self._verifier),
            "sub": getattr(found, "subject", None) or claims.get("sub"),
            "client_id": found.client_id,
            "scope": list(found.scopes or ()),
            "exp": expires_at,
            # Without a resource the verifier has judged the audience itself, or nobody has (RFC 8707).
            "aud": getattr(found, "resource", None) or self._resource,
        }
        return {**claims, **{name: value for name, value in named.items() if value is not None}}


def _issuer_of(verifier: TokenVerifierProtocol) -> str:
    """A name for who vouches, where the token names nobody: principals of two verifiers must not meet."""
    issuer = getattr(verifier, "issuer", None)
    return issuer if isinstance(issuer, str) and issuer else f"verifier:{type(verifier).__name__}"
