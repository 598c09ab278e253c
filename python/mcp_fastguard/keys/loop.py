"""The event loop that key sets are fetched on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

__all__ = ["KeyLoop"]


class KeyLoop(asyncio.SelectorEventLoop):
    """Resolves names on daemon threads.

    The pool of asyncio's own loops is joined at the end of the interpreter, which a name server that is silent would hold up.
    """

    async def getaddrinfo(  # noqa: PLR0913 - the signature of the base class
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Like `socket.getaddrinfo`. A lookup that nobody awaits any more ends by itself."""
        answer: asyncio.Future[list[Any]] = self.create_future()

        def give(found: list[Any], error: Exception | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def resolve() -> None:
            found: list[Any] = []
            failure: Exception | None = None
            try:
                found = list(socket.getaddrinfo(host, port, family, type, proto, flags))
            except (OSError, ValueError) as error:
                failure = error
            # The loop may have been closed meanwhile.
            with contextlib.suppress(RuntimeError):
                self.call_soon_threadsafe(give, found, failure)

        threading.Thread(target=resolve, name="fastguard-resolver", daemon=True).start()
        return await answer
