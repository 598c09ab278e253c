"""Bodies of requests on their way through an ASGI layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard._fastguard import MAX_BODY_BYTES_BEFORE_TOKEN

if TYPE_CHECKING:
    from mcp_fastguard.transport.scope import Headers, Message, Receive, Scope, Send

__all__ = ["drain", "replay", "respond"]


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was decided on, whole, and after it only what the server says."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def drain(receive: Receive) -> None:
    """Reads a short body away before a refusal that does not depend on it.

    hypercorn 0.18 ends an HTTP/2 connection, with the streams of all who share it, when an answer overtakes the body. A long body
    is left unread all the same: nobody who has no token may make the server read it.
    """
    left = MAX_BODY_BYTES_BEFORE_TOKEN
    while left >= 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b"")) + 1


async def respond(scope: Scope | None, send: Send, status: int, headers: Headers, content: bytes = b"") -> None:
    """Sends a whole answer. Without a scope it is to a request that wants its body."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    # RFC 9110 section 9.3.2: the headers of an answer to HEAD are those of GET's, its body is empty.
    is_head = scope is not None and scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else content})
