"""Serves applications on loopback, several in one process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from mcp_fastguard.dev.loopback import require_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from mcp_fastguard.guard import Guard

__all__ = ["bound", "has_keys", "interrupted", "run", "serving"]

#: The guard fetches keys in the background; on loopback that takes milliseconds.
PATIENCE: Final = 5.0

#: Streams that are open at the end are cut after so many seconds.
FAREWELL: Final = 1


def bound(host: str, port: int) -> socket.socket:
    """A socket on an address, before anything else is started. Port 0 is any that is free.

    Raises:
        ValueError: the host is not this machine's loopback.
        RuntimeError: the address is taken.
    """
    require_loopback(host)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        message = f"{host}:{port} cannot be had ({error.strerror}): does something else run there?"
        raise RuntimeError(message) from error


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has two of these."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


@contextlib.asynccontextmanager
async def serving(app: Any, listening: socket.socket, *, log_level: str = "critical") -> AsyncIterator[None]:
    """Serves an application, and ends it.

    Raises:
        RuntimeError: the application does not start.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_level=log_level,
            access_log=False,
            proxy_headers=False,
            lifespan="on",
            # A client of somebody's own may hold a stream open for ever.
            timeout_graceful_shutdown=FAREWELL,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        if task.done():
            task.result()
            message = "a server ended at its start"
            raise RuntimeError(message)
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def has_keys(guard: Guard, issuer: str) -> None:
    """Waits for the first fetch. A call that came before it would have used the one look for unknown keys up.

    Raises:
        TimeoutError: the guard could not fetch the keys of the authorization server.
    """
    async with asyncio.timeout(PATIENCE):
        while guard.key_status().get(issuer, {}).get("age") is None:  # noqa: ASYNC110 - it ends in another thread
            await asyncio.sleep(0.01)


async def interrupted() -> None:
    """Waits until this process is told to end, so that the audit log can be sealed. Told twice, it ends at once."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Windows has no handlers of this kind; there, Ctrl-C cancels the task.
    with contextlib.suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, told.set)
    await told.wait()
    for number in numbers:
        loop.remove_signal_handler(number)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Runs a coroutine on the quickest loop that is there; gives what it returns."""
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        return asyncio.run(main)
    return int(uvloop.run(main))
