"""Places to ship to, on loopback: a collector of OTLP, a receiver of syslog over TLS; and logs to ship."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mcp_fastguard.shipping import ShipError, Shipper, ShipSettings
from mcp_fastguard.shipping.item import Item

LOG = "20261128T000000-7-00aa"


def write_log(base: Path, *, records: int = 5, name: str = LOG, first: int = 0, file: int = 1) -> Path:
    """Lines as the core writes them, as far as a reader of logs looks."""
    log = base / name
    log.mkdir(parents=True, exist_ok=True)
    with (log / f"{file:06}.jsonl").open("ab") as opened:
        for seq in range(first, first + records):
            opened.write(line(seq, name).encode() + b"\n")
    return log


def line(seq: int, name: str = LOG, **members: Any) -> str:
    record = {
        "seq": seq,
        "id": f"{name}-{seq}",
        "timestamp": "2026-11-28T00:00:00.125Z",
        "event_type": "decision",
        "kind": "tool",
        "tool_name": "run_query",
        "method": "tools/call",
        "result": "allowed",
        **members,
    }
    return json.dumps(record, separators=(",", ":"))


def write_checkpoint(log: Path, records: int) -> str:
    note = f"example.com/audit/{log.name}\n{records}\nAAAA\n\n- example.com/audit AAAA\n"
    (log / "checkpoint").write_text(note)
    return note


class Memory:
    """A sink that keeps what it gets, and fails when it is told to."""

    pause = 1.0
    max_records = 100
    max_bytes = 1024 * 1024

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []
        self.failures: list[ShipError] = []
        #: Takes the batch, and then fails: the answer is lost.
        self.loses_answers = False
        self.rejected = 0
        self.is_closed = False

    def send(self, items: Any) -> int:
        if self.failures and not self.loses_answers:
            raise self.failures.pop(0)
        self.batches.append(list(items))
        if self.failures:
            raise self.failures.pop(0)
        return self.rejected

    def close(self) -> None:
        self.is_closed = True

    @property
    def seqs(self) -> list[int]:
        return [item.seq for batch in self.batches for item in batch if item.seq is not None]

    @property
    def checkpoints(self) -> list[int]:
        return [item.record["records"] for batch in self.batches for item in batch if item.seq is None]


def shipper(base: Path, sink: Any) -> Shipper:
    """Ships to a sink of the test's."""
    return Shipper(base, ShipSettings("test", "file"), sink=sink, clock=lambda: 1_795_824_000.0)


def shipper_to(base: Path, sink: str, **settings: Any) -> Shipper:
    """Ships as the settings say."""
    return Shipper(base, ShipSettings("test", sink, **settings))


def drain(found: Shipper) -> None:
    """Ships all that waits; fails where the place does."""
    while (pause := found.step()) == 0.0:
        pass
    assert not found._cursor.failures, (pause, found._cursor.last_error)


class Collector:
    """Takes logs as a collector of OpenTelemetry does. Answers stand in ``answers``, then all is well."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        #: Status, headers and body of the next answers.
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.requests.append(({**headers, ":path": self.path}, body))
                status, more, content = collector.answers.pop(0) if collector.answers else (200, {}, b"{}")
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [log for _, body in self.requests for log in logs_of(json.loads(body))]

    @contextmanager
    def running(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def logs_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        log for resource in message["resourceLogs"] for scope in resource["scopeLogs"] for log in scope["logRecords"]
    ]


def server_tls(certificate: Path, client_authority: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client_authority is not None:
        context.load_verify_locations(cafile=client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class SyslogServer:
    """Receives syslog over TLS, one connection after another. How it says farewell is for the test to choose."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        #: Per connection: "close_notify" (the default), "end" of the stream without one, or "reset" before anything is read.
        self.farewells: list[str] = []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[SyslogServer]:
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            # Closing alone does not wake a thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with plain:
                self._take(plain, self.farewells.pop(0) if self.farewells else "close_notify")

    def _take(self, plain: socket.socket, farewell: str) -> None:
        plain.settimeout(10)
        try:
            secure = self._tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
        except OSError:
            return
        self.connections += 1
        with secure:
            if farewell == "reset":
                secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                return
            octets = bytearray()
            while chunk := secure.recv(65_536):
                octets += chunk
            self.messages += messages_of(bytes(octets))
            if farewell == "close_notify":
                secure.unwrap()


def messages_of(octets: bytes) -> list[bytes]:
    """RFC 5425 section 4.3."""
    found = []
    while octets:
        count, _, rest = octets.partition(b" ")
        found.append(rest[: int(count)])
        assert len(found[-1]) == int(count)
        octets = rest[int(count) :]
    return found
