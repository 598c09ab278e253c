"""What tests of keys share: an issuer on loopback, one that answers when told, and a sink that can be waited for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.server
import queue
import threading

from mcp_fastguard.keys import Fetched, FetchError, KeySource

ISSUER = "https://auth.example.com"
SOURCE = KeySource(ISSUER, "https://auth.example.com/jwks", allow_http_loopback=False)
SET = b'{"keys": []}'
#: No test waits longer for what must come.
PATIENCE = 20.0


class FakeClock:
    """Monotonic seconds that a test moves."""

    def __init__(self):
        self.seconds = 1_000.0

    def __call__(self):
        return self.seconds


class Sink:
    """A gate that keeps what it was told."""

    def __init__(self, refuses=None):
        self.sets = []
        #: For how long each set holds.
        self.fresh = []
        self.failures = []
        self.threads = set()
        self.refuses = refuses
        self._changed = threading.Condition()

    def replace_keys(self, issuer, jwks, fresh):
        with self._changed:
            self.threads.add(threading.current_thread().name)
            if self.refuses is not None:
                raise self.refuses
            self.sets.append((issuer, jwks))
            self.fresh.append(fresh)
            self._changed.notify_all()

    def keys_failed(self, issuer, reason, retry_after):
        with self._changed:
            self.failures.append((issuer, reason, retry_after))
            self._changed.notify_all()

    def wait(self, *, sets=0, failures=0):
        """Until so much has come."""
        with self._changed:
            come = self._changed.wait_for(lambda: len(self.sets) >= sets and len(self.failures) >= failures, PATIENCE)
        assert come, (self.sets, self.failures)


class Asked:
    """One fetch that waits for its answer."""

    def __init__(self, source, known):
        self.source = source
        self.known = known
        self.cancelled = threading.Event()
        self._answer = concurrent.futures.Future()

    async def __call__(self):
        try:
            return await asyncio.wrap_future(self._answer)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def answer(self, content=SET, validator=None, fresh=None):
        self._answer.set_result(Fetched(content, validator, fresh))

    def fail(self, reason="down"):
        self._answer.set_exception(reason if isinstance(reason, Exception) else FetchError(reason))


class ToldIssuer:
    """A fetch that a test answers, call for call."""

    def __init__(self):
        self.count = 0
        self._asked = queue.Queue()

    async def __call__(self, source, known):
        self.count += 1
        asked = Asked(source, known)
        self._asked.put(asked)
        return await asked()

    def next(self):
        """The next fetch, waited for."""
        return self._asked.get(timeout=PATIENCE)


class Loopback:
    """An HTTP server with a function for each path: it gets the handler and writes the response."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        #: The bodies of POST requests.
        self.bodies = []
        self.released = threading.Event()
        self._changed = threading.Condition()
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with served._changed:
                    served.requests.append((self.path, dict(self.headers)))
                    served._changed.notify_all()
                self.close_connection = True
                with contextlib.suppress(ConnectionError):
                    served.routes.get(self.path, missing)(self)

            def do_POST(self):
                served.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.do_GET()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.scheme = "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    @property
    def paths(self):
        return [path for path, _ in self.requests]

    def wait(self, count):
        """Until so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, PATIENCE), self.paths

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


def respond(body=SET, *, status=200, media_type="application/json", **headers):
    """A route that gives this response."""

    def route(handler):
        handler.send_response(status)
        if media_type is not None:
            handler.send_header("content-type", media_type)
        handler.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return route


missing = respond(b"{}", status=404)


def chunked(parts):
    """A route that gives a body of unstated length, part by part."""

    def route(handler):
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for part in parts:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")

    return route
