"""The administrators' endpoint: operators revoke and block while the server runs. Off unless ``[admin]`` says otherwise.

Who may is decided by the core as for any other call: rooms request to policy, with an audience, an issuer and a scope of its own.
Here is only read what an administrator wants, and done.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard._fastguard import AllowedCall, ToolRequest
from mcp_fastguard.errors import Denied, GuardError, GuardFault, RequestDenied
from mcp_fastguard.transport.bodies import respond
from mcp_fastguard.transport.challenge import http_answer
from mcp_fastguard.transport.scope import public_path

if TYPE_CHECKING:
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.revocations.entry import Entry
    from mcp_fastguard.transport.scope import Receive, Scope, Send

__all__ = ["MAX_ADMIN_BODY_BYTES", "AdminEndpoint"]

logger = logging.getLogger("mcp_fastguard")

#: Twice the longest entry (:data:`mcp_fastguard.revocations.entry.MAX_ENTRY_BYTES`); nothing else is ever sent.
MAX_ADMIN_BODY_BYTES: Final = 16 * 1024

#: What each act may name; see :class:`mcp_fastguard.revocations.Entry`.
_TIMES: Final = {"issued_before", "until"}
_ENTRIES: Final = {"fastguard/revoke": "revoke", "fastguard/block": "block", "fastguard/unblock": "unblock"}


class AdminEndpoint:
    """An ASGI app of the endpoint alone.

    Args:
        guard: what is administered.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        body: bytes | None = None
        try:
            body = await self._read(scope, receive)
            if body is None:
                return
            await self._answered(scope, body, send)
        except GuardError as error:
            logger.info("an administrator's request was refused: %s", error)
            await respond(scope, send, *http_answer(error, body, allow=b"POST"))

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body, once what surrounds it is in order; None where the client has left."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk: bytes = message.get("body", b"")
            body += chunk
            if len(body) > MAX_ADMIN_BODY_BYTES:
                self._deny(scope, "body_too_large")
            if not message.get("more_body", False):
                break
        if any(name == b"origin" for name, _ in scope["headers"]):
            # Browsers add it to whatever a page sends across origins. No page is an administrator.
            self._deny(scope, "origin_refused")
        if scope["method"] == "POST" and not _is_json(scope):
            self._deny(scope, "body_type_refused")
        return body

    def _deny(self, scope: Scope, code: str) -> None:
        with self._guard.listeners.telling():
            self._guard.gate.deny(ToolRequest.of_scope(public_path(scope), scope, None), code)

    async def _answered(self, scope: Scope, body: bytes, send: Send) -> None:
        async with self._guard.call(ToolRequest.of_scope(public_path(scope), scope, body)) as call:
            proof = call.proof
            if not isinstance(proof, AllowedCall):
                raise GuardFault("internal", "an administrator's call was not allowed")
            with self._guard.listeners.telling(proof=proof):
                found = await self._done(proof, body)
        content = json.dumps({"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": found}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if proof.dpop_nonce is not None:
            headers.append((b"dpop-nonce", proof.dpop_nonce.encode("ascii")))
        await respond(scope, send, 200, headers, content)

    async def _done(self, proof: AllowedCall, body: bytes) -> dict[str, Any]:
        method, params = _wanted(body)
        if method in _ENTRIES:
            entry = _entry(_ENTRIES[method], params)
            # It may wait for the server by which other processes are told.
            had_effect = await asyncio.to_thread(self._act, entry, proof)
            reaches = "deployment" if self._guard.tells_others else "process"
            return {"done": True, "had_effect": had_effect, "reaches": reaches}
        if params:
            raise _invalid("this method takes no members of `params`")
        if method == "fastguard/refresh_keys":
            self._guard.refresh_keys()
            return {"done": True, "reaches": "process"}
        if method == "fastguard/status":
            return self._status()
        raise _invalid("the method is not one of administrators")

    def _act(self, entry: Entry, by: AllowedCall) -> bool:
        try:
            return self._guard.act(entry, by=by)
        except ValueError as error:
            raise GuardFault("revocations_full", str(error)) from error

    def _status(self) -> dict[str, Any]:
        guard = self._guard
        config = json.loads(guard.gate.config_json())
        state = guard.state_status()
        return {
            "policy": guard.gate.policy_digest,
            "keys": guard.key_status(),
            "limits": {"mode": config["limits"].get("mode") or ("exact" if config.get("state") else "local")},
            "state": {"asked": state["asked"], "seconds": state["seconds"], "heard": state["heard"]},
            "counts": dict(guard.gate.statistics()),
        }


def _wanted(body: bytes) -> tuple[str, dict[str, Any]]:
    """Method and parameters. The core has read the body already, so it is one message without repeated members."""
    message = json.loads(body)
    if not set(message) <= {"jsonrpc", "id", "method", "params"}:
        raise _invalid("the message has a member that is not known")
    if "id" not in message or "method" not in message:
        raise _invalid("the message wants no answer")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise _invalid("`params` is no object")
    return message["method"], params


def _entry(act: str, params: dict[str, Any]) -> Entry:
    from mcp_fastguard.revocations import Entry, EntryError  # noqa: PLC0415 - only where somebody is revoked

    for name, value in params.items():
        is_time = type(value) in {int, float} and 0 <= value < 2**53
        if not (is_time if name in _TIMES else isinstance(value, str) and value):
            raise _invalid("a member of `params` has the wrong type, or is empty")
    try:
        return Entry.make(act, **params)
    except (EntryError, TypeError) as error:
        raise _invalid("`params` names nothing, or what is not known") from error


def _invalid(detail: str) -> Denied:
    return RequestDenied("message_invalid", detail, 400)


def _is_json(scope: Scope) -> bool:
    values = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(values) != 1:
        return False
    media_type, _, parameters = values[0].decode("latin-1").partition(";")
    is_utf8 = not parameters.strip() or parameters.strip().lower() in {"charset=utf-8", 'charset="utf-8"'}
    return media_type.strip().lower() == "application/json" and is_utf8
