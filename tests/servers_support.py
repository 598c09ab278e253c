"""Real servers in threads or processes of their own, on a port of loopback that the system chose."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import socket
import subprocess
import threading
import time

import pytest

SERVERS = ["uvicorn", "hypercorn", "granian"]


def free_socket():
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found


def free_port():
    """A port that is free now."""
    with free_socket() as found:
        return found.getsockname()[1]


def started(command, port, **options):
    """A server in a process of its own, which accepts connections. Whoever starts it ends it."""
    process = subprocess.Popen(command, **options)
    until = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return process
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait(20)
            pytest.fail(f"{command[1]} did not start")
        time.sleep(0.05)


@contextlib.contextmanager
def serving(command, port, **options):
    """The same, ended at the end."""
    process = started(command, port, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


class _Uvicorn:
    def __init__(self, app, options):
        import uvicorn

        # A test whose configuration names the port brings the socket.
        options = dict(options)
        self._socket = options.pop("socket", None) or free_socket()
        self.port = self._socket.getsockname()[1]
        config = {"proxy_headers": False, "log_level": "critical", "lifespan": "on", **options}
        self._server = uvicorn.Server(uvicorn.Config(app, **config))

    async def run(self):
        await self._server.serve(sockets=[self._socket])

    def stop(self):
        self._server.should_exit = True

    def close(self):
        self._socket.close()


class _Hypercorn:
    def __init__(self, app, options):
        from hypercorn.config import Config

        self._socket = free_socket()
        self.port = self._socket.getsockname()[1]
        self._app, self._config, self._stop = app, Config(), asyncio.Event()
        self._config.bind = [f"fd://{self._socket.detach()}"]
        self._config.graceful_timeout = 1
        self._config.errorlog = None
        for name, value in options.items():
            setattr(self._config, name, value)

    async def run(self):
        from hypercorn.asyncio import serve

        self._loop = asyncio.get_running_loop()
        await serve(self._app, self._config, shutdown_trigger=self._stop.wait)

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)

    def close(self):
        """The server closes its socket itself."""


class _Granian:
    def __init__(self, app, options):
        self._app, self._options = app, options
        with free_socket() as found:
            self.port = found.getsockname()[1]

    async def run(self):
        from granian.constants import Interfaces
        from granian.server.embed import Server

        self._loop = asyncio.get_running_loop()
        self._server = Server(self._app, port=self.port, interface=Interfaces.ASGI, log_enabled=False, **self._options)
        await self._server.serve()

    def stop(self):
        self._loop.call_soon_threadsafe(self._server.stop)

    def close(self):
        """The server closes its socket itself."""


@contextlib.contextmanager
def running(name, app, **options):
    """Runs one app; gives the port."""
    server = {"uvicorn": _Uvicorn, "hypercorn": _Hypercorn, "granian": _Granian}[name](app, options)
    thread = threading.Thread(target=lambda: asyncio.run(server.run()), daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            break
        if not thread.is_alive() or time.monotonic() > until:
            pytest.fail(f"{name} did not start")
        time.sleep(0.02)
    try:
        yield server.port
    finally:
        server.stop()
        thread.join(20)
        server.close()
        logging.getLogger(name).handlers.clear()
    assert not thread.is_alive(), f"{name} did not stop"


def raw(port, request: bytes, timeout=5):
    """Sends bytes as they are; gives status, headers in lower case and body of the answer, or None where there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=request.split(b" ")[0].decode("latin-1"))
        try:
            answer.begin()
        except (http.client.HTTPException, OSError):
            return None
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
