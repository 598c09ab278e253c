"""What a client sees of a refusal. Decided here and nowhere else: the code, never the detail."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mcp_fastguard.errors import Denied, GuardError, GuardFault, SpentQuota
from mcp_fastguard.transport.bodies import respond

if TYPE_CHECKING:
    from mcp_fastguard.transport.scope import Scope, Send

__all__ = ["REFUSAL", "answer", "http_answer", "log_refusal", "rpc_error", "tool_result"]

logger = logging.getLogger("mcp_fastguard")

#: JSON-RPC codes that the specifications give (JSON-RPC 2.0 section 5.1, MCP 2026-07-28 streamable HTTP).
_RPC_CODES: Final = {
    "body_not_json": -32700,
    "batch_refused": -32600,
    "message_invalid": -32600,
    "member_duplicated": -32600,
    "body_too_deep": -32600,
    "header_mismatch": -32020,
    "header_duplicated": -32020,
    "header_invalid": -32020,
}

#: Said to people who read the client's log. The detail stays in the server's.
_MESSAGES: Final = {
    400: "the request is not valid",
    401: "a valid token is needed",
    403: "this caller may not do this",
    404: "not found",
    405: "the HTTP method is not allowed here",
    413: "the body is too large",
    415: "the body must not be encoded",
    429: "too many calls",
    500: "the call could not be decided",
    503: "the call cannot be decided at the moment",
}

#: Limits that are spent, of which a model can be told what to do about them.
_LIMITS: Final = frozenset({"quota_spent", "concurrency_spent", "windows_full"})

#: Under which name the data of a refusal stand beside such a result.
REFUSAL: Final = "mcp-fastguard/refusal"

#: Units of quotas, as the draft names them.
_QUOTA_UNITS: Final = {"bytes": "content-bytes"}

#: Faults that pass by themselves; all others are a matter for the operator.
_PASSING_FAULTS: Final = frozenset({"audit_queue_full", "audit_failed", "start_failed"})


def status_of(error: GuardError) -> int:
    """The HTTP status of a refusal."""
    if isinstance(error, Denied):
        return error.status
    if isinstance(error, GuardFault) and error.code in _PASSING_FAULTS:
        return 503
    return 500


def rpc_error(error: GuardError) -> tuple[int, str, dict[str, Any]]:
    """Code, message and data of the JSON-RPC error.

    Codes of our own are the HTTP status: positive, because the specification reserves -32768 to -32000.
    """
    status = status_of(error)
    code = getattr(error, "code", "internal")
    data: dict[str, Any] = {"code": code}
    if isinstance(error, Denied):
        if error.retry_after is not None:
            data["retryAfter"] = math.ceil(error.retry_after)
        if error.spent is not None:
            spent = error.spent
            data["limit"] = {
                "policy": spent.rule,
                "quota": spent.quota,
                "window": spent.window,
                "remaining": spent.remaining,
                "unit": spent.unit,
            }
        if error.challenge is not None:
            data["wwwAuthenticate"] = error.challenge
    return _RPC_CODES.get(code, status), _MESSAGES.get(status, "refused"), data


def tool_result(error: GuardError) -> dict[str, Any] | None:
    """A spent limit as the result of a tool, as the wire has it: clients hand results to their model, and errors of the protocol
    mostly not. None for every other refusal.
    """
    if getattr(error, "code", None) not in _LIMITS:
        return None
    _, message, data = rpc_error(error)
    limit = data.get("limit")
    if limit is not None:
        unit = "" if limit["unit"] == "calls" else f" {limit['unit']}"
        message += f": `{limit['policy']}` allows {limit['quota']}{unit} in {limit['window']:g} s"
    message += f"; try again in {data['retryAfter']} s" if "retryAfter" in data else "; wait until a call has ended"
    content = [{"type": "text", "text": f"{message}."}]
    # MCP 2026-07-28 has every result say that it is one; earlier versions pass over it.
    return {"content": content, "isError": True, "resultType": "complete", "_meta": {REFUSAL: data}}


def http_answer(
    error: GuardError, body: bytes | None, *, allow: bytes = b"GET, POST, DELETE", by_result: bool = False
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer to a refused HTTP request.

    Args:
        error: the refusal.
        body: the request's body, if it was read; its JSON-RPC id is answered to.
        allow: the methods that a 405 names.
        by_result: whether the caller of a tool is told of a spent limit by a result.
    """
    status = status_of(error)
    code, message, data = rpc_error(error)
    data.pop("wwwAuthenticate", None)
    method, request_id = _asked(body)
    result = tool_result(error) if by_result and method == "tools/call" and request_id is not None else None
    told: dict[str, Any] = {"error": {"code": code, "message": message, "data": data}}
    if result is not None:
        status, told = 200, {"result": result}
    content = json.dumps({"jsonrpc": "2.0", "id": request_id, **told}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if isinstance(error, Denied) and error.challenge is not None:
        headers.append((b"www-authenticate", error.challenge.encode("latin-1", "replace")))
    if isinstance(error, Denied) and error.nonce is not None:
        headers.append((b"dpop-nonce", error.nonce.encode("ascii")))
    retry_after = (
        1.0
        if status == HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, Denied)
        else getattr(error, "retry_after", None)
    )
    if retry_after is not None:
        # Rounded up: a client that waits so long is admitted.
        headers.append((b"retry-after", str(max(1, math.ceil(retry_after))).encode()))
    if isinstance(error, Denied) and error.spent is not None:
        headers.extend(_rate_limit(error.spent, retry_after))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", allow))
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        # RFC 9110 section 12.5.3: says that the coding was at fault, and which one is taken.
        headers.append((b"accept-encoding", b"identity"))
    return status, headers, content


async def answer(
    error: GuardError, body: bytes | None, scope: Scope | None, send: Send, *, by_result: bool = False
) -> None:
    """Answers a refused HTTP request; see :func:`http_answer` and :func:`respond`."""
    await respond(scope, send, *http_answer(error, body, by_result=by_result))


def log_refusal(error: GuardError) -> None:
    """Names the check, the value that was refused, and the key to look at; never a token."""
    if isinstance(error, Denied):
        logger.info("refused: %s (see `%s`)", error, error.config_key or "docs/codes.md")
    else:
        logger.error("not decided: %s", error)


def _rate_limit(spent: SpentQuota, retry_after: float | None) -> list[tuple[bytes, bytes]]:
    """``RateLimit-Policy`` and ``RateLimit`` of draft-ietf-httpapi-ratelimit-headers-10."""
    # A structured string (RFC 9651 section 3.3.3) is of printable ASCII.
    shown = "".join(letter if " " <= letter <= "~" else "?" for letter in spent.rule)
    name = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    policy, state = f"{name};q={spent.quota}", f"{name};r={spent.remaining}"
    if spent.unit != "calls":
        # The unit of bytes is the draft's; one of rows it has not.
        policy += f';qu="{_QUOTA_UNITS.get(spent.unit, spent.unit)}"'
    if spent.window.is_integer():
        # `w` is a whole number of seconds.
        policy += f";w={int(spent.window)}"
    if retry_after is not None:
        state += f";t={max(1, math.ceil(retry_after))}"
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]


def _asked(body: bytes | None) -> tuple[str | None, str | int | float | None]:
    """Method and id of a message, as far as they can be read."""
    try:
        message = json.loads(body or b"null", parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(message, dict):
        return None, None
    method, found = message.get("method"), message.get("id")
    is_id = isinstance(found, str | int | float) and not isinstance(found, bool)
    return method if isinstance(method, str) else None, found if is_id else None


def _no_number(name: str) -> None:
    """``NaN`` and ``Infinity`` are no JSON, and would make none of the answer that they stood in as its id.

    Raises:
        ValueError: always.
    """
    raise ValueError(name)
