"""The end of a server with everything under way (F34): within two seconds, and nothing that was answered is lost."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import process_support
from keys_support import PATIENCE
from mcp_fastguard._fastguard import verify_log
from servers_support import free_port, started
from transport_support import headers, message

#: What the requirements give a shutdown, and what a loaded machine may add before it is even seen.
WITHIN, LOADED = 2.0, 3.0


@pytest.fixture
def everything(shared, config, issuer, loopback, tmp_path):
    """Keys at hand of one issuer; another whose host hangs, opaque tokens asked about at a host that hangs, a store, a file of
    revocations and the word of other processes.
    """
    loopback.routes["/jwks"] = loopback.routes["/introspect"] = lambda _: loopback.released.wait(PATIENCE)
    (tmp_path / "revocations.jsonl").touch()
    (tmp_path / "secret").write_text("a secret")
    asked = {"introspection_endpoint": f"{loopback.url}/introspect", "introspection_client_id": "guard"}
    other = {"issuer": loopback.url, "jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True}
    scopes = {"asserts_scopes": ["*"]}
    return {
        **shared,
        "issuers": [
            {**config["issuers"][0], **scopes},
            {
                **other,
                **asked,
                **scopes,
                "introspection_client_secret_file": str(tmp_path / "secret"),
                "algorithms": ["ES256"],
            },
        ],
        "revocations": {"file": str(tmp_path / "revocations.jsonl")},
    }


def test_f34_close_ends_within_two_seconds_whatever_is_under_way(everything, issuer, own_server):
    script = """
guard = Guard.from_dict(config)
async def walk():
    found = await guard.authorize(request(given["token"]))
    waiting = [asyncio.ensure_future(guard.authorize(request(f"opaque-{number}"))) for number in range(20)]
    await asyncio.sleep(0.3)
    # The server of the store neither answers nor refuses.
    stop(given["store"])
    waiting += [asyncio.ensure_future(guard.authorize(request(given["token"]))) for _ in range(20)]
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await asyncio.to_thread(guard.close)
    took = time.monotonic() - began
    late = code(lambda: guard.check(request(given["token"])))
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    return found.subject, took, late, sorted({getattr(one, "code", type(one).__name__) for one in ended})
subject, took, late, ended = asyncio.run(walk())
names = sorted(thread.name for thread in threading.enumerate() if thread.name == "fastguard-revocations")
tell(subject=subject, took=took, late=late, ended=ended, threads=names, log=str(guard.audit_folder))
"""
    given = {"token": issuer.token(), "store": own_server.process.pid}

    try:
        found = process_support.run(script, everything, given)
    finally:
        own_server.signal(signal.SIGCONT)

    assert (found["subject"], found["late"], found["threads"]) == ("alice", "closed", [])
    assert found["took"] < WITHIN
    # None of those who waited passed.
    assert "AllowedCall" not in found["ended"], found
    assert verify_log(Path(found["log"]))[2:] == (True, None)


def test_f34_end_of_the_interpreter_does_not_wait_for_what_nobody_closed(everything, issuer):
    script = """
guard = Guard.from_dict(config)
async def walk():
    await guard.authorize(request(given))
    waiting = [asyncio.ensure_future(guard.authorize(request(f"opaque-{number}"))) for number in range(20)]
    await asyncio.sleep(0.3)
asyncio.run(walk())
guard.flush()
tell(log=str(guard.audit_folder), at=time.monotonic())
"""
    process = process_support.start(script, everything, issuer.token())
    found = json.loads(process.stdout.readline())
    process.communicate(timeout=PATIENCE)
    took = time.monotonic() - found["at"]

    assert process.returncode == 0
    assert took < WITHIN + LOADED
    count, _, _, problem = verify_log(Path(found["log"]))
    assert problem is None
    assert count >= 1


SERVER = """
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
guard = Guard.from_dict(config)
mcp = MCPServer("test", middleware=[guard.mcp_middleware()])
mcp.tool(name="add")(lambda: "3")
security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = guard.asgi(mcp.streamable_http_app(transport_security=security, json_response=True, stateless_http=True))
print(guard.audit_folder, flush=True)
uvicorn.run(app, host="127.0.0.1", port=int(given), log_level="critical", timeout_graceful_shutdown=1)
"""


def test_f34_server_that_is_terminated_under_load_ends_and_keeps_every_record(everything, issuer, tmp_path):
    port = free_port()
    given = tmp_path / "given.json"
    given.write_text(json.dumps([everything, port]))
    with given.open() as opened, (tmp_path / "errors").open("w") as errors:
        process = started(
            [sys.executable, "-c", process_support.PRELUDE + SERVER],
            port,
            stdin=opened,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=process_support.environment(),
        )
    log = Path(process.stdout.readline().strip())
    body = json.dumps(message("tools/call", {"name": "add", "arguments": {}})).encode()
    over = threading.Event()
    allowed = [0] * 4

    def wire(token):
        lines = [f"{name}: {value}" for name, value in headers(token, "tools/call", "add").items()]
        lines += ["host: mcp.example.com", f"content-length: {len(body)}", "connection: close"]
        return "\r\n".join(["POST /mcp HTTP/1.1", *lines, "", ""]).encode() + body

    def load(number):
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                    # One of four asks about a token at a host that hangs.
                    connection.sendall(wire(issuer.token() if number else "opaque"))
                    allowed[number] += connection.recv(100).startswith(b"HTTP/1.1 200")
            except OSError:
                return

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(allowed))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + PATIENCE
    while sum(allowed) < 50:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.wait(PATIENCE)
    took = time.monotonic() - began
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    process.stdout.close()

    # uvicorn gives its requests a second, and the guard has two.
    assert took < 1.0 + WITHIN + LOADED
    assert "Traceback" not in (tmp_path / "errors").read_text()
    _, _, is_sealed, problem = verify_log(log)
    assert (is_sealed, problem) == (True, None)
    lines = [json.loads(line) for file in log.glob("*.jsonl") for line in file.read_text().splitlines()]
    endings = [line for line in lines if line["event_type"] == "ending" and line["status"] == "ok"]
    assert len(endings) >= sum(allowed) >= 50
