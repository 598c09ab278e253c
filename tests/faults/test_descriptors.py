"""Too few file descriptors, and threads that the system does not give (F33): refused, no crash, and over when they are there again."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import httpx2
import pytest

import process_support
from keys_support import respond
from mcp_fastguard._fastguard import verify_log
from servers_support import free_port, serving
from transport_support import headers, message

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes are tested on Linux")

#: Has no descriptor left, by a limit of 64, till what is held is let go.
LIMITED = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
def fill():
    with contextlib.suppress(OSError):
        while True:
            held.append(open(os.devnull))
loop = asyncio.new_event_loop()
def asked(guard):
    return code(lambda: loop.run_until_complete(guard.authorize(request(given))))
def opened():
    return len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture
def fetching(config, issuer, loopback):
    """A configuration whose keys are fetched."""
    loopback.routes["/jwks"] = respond(json.dumps(issuer.jwks).encode())
    place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True, "algorithms": ["ES256"]}
    return {**config, "issuers": [{"issuer": issuer.issuer, **place}]}


def test_f33_guard_that_cannot_begin_refuses_and_begins_with_the_next_call(fetching, issuer):
    script = """
guard = Guard.from_dict(config)
fill()
found = [asked(guard), asked(guard), code(guard.refresh_keys), code(Guard.from_dict, config)]
held.clear()
found.append(asked(guard))
guard.close()
tell(found=found)
"""

    found = process_support.run(LIMITED + script, fetching, issuer.token())["found"]

    assert found == ["start_failed", "start_failed", "start_failed", "audit_failed", "allowed"]


def test_f33_guard_with_its_keys_decides_on_and_fetches_again_when_it_can(fetching, issuer):
    script = """
guard = Guard.from_dict(config)
found, before = [asked(guard)], opened()
fill()
guard.refresh_keys()
(status,) = guard.key_status().values()
until = time.monotonic() + 20
while not status["failures"] and time.monotonic() < until:
    time.sleep(0.02)
    (status,) = guard.key_status().values()
failures = status["failures"]
exhausted = [asked(guard), code(guard.check, request(given)), code(guard.flush)]
held.clear()
guard.refresh_keys()
while status["failures"] and time.monotonic() < until:
    time.sleep(0.02)
    (status,) = guard.key_status().values()
# The log tries again by itself, after a while.
while (now := asked(guard)) != "allowed" and time.monotonic() < until:
    time.sleep(0.05)
found.append(now)
tell(found=found, exhausted=exhausted, failures=[failures, status["failures"]], left=opened() - before, log=str(guard.audit_folder))
guard.close()
"""

    found = process_support.run(LIMITED + script, fetching, issuer.token())

    assert found["found"] == ["allowed"] * 2
    # The keys are at hand; the log may need a file that cannot be opened, and then no call passes unrecorded.
    assert set(found["exhausted"]) <= {"allowed", "audit_failed"}
    assert found["failures"] == [1, 0]
    assert found["left"] <= 1
    assert verify_log(Path(found["log"]))[2:] == (True, None)


def test_f33_store_that_cannot_be_reached_for_lack_of_sockets_is_away_and_back(shared, issuer):
    script = """
guard = Guard.from_dict(config)
# Connections belong to a loop, so that the other one needs its own.
other = asyncio.new_event_loop()
found = [asked(guard)]
fill()
found.append(code(lambda: other.run_until_complete(guard.authorize(request(given)))))
away = [mode for _, mode in guard.state_status()["answers"]]
held.clear()
found.append(code(lambda: other.run_until_complete(guard.authorize(request(given)))))
tell(found=found, away=away, answers=[[mode, count] for (_, mode), count in guard.state_status()["answers"].items()])
guard.close()
"""

    # A log would need a file meanwhile.
    shared["audit"] = {"enabled": False}
    found = process_support.run(LIMITED + script, shared, issuer.token())

    assert found["found"] == ["allowed"] * 3
    assert found["away"] == ["exact", "local"]
    assert found["answers"] == [["exact", 2], ["local", 1]]


def test_f33_calls_by_one_loop_after_the_other_take_no_more_sockets(shared, issuer):
    """As a script does that ends the loop of each call: nobody closed the connections of the loop before."""
    script = """
guard = Guard.from_dict(config)
def opened():
    authorize(guard, request(given))
    return len(os.listdir("/proc/self/fd"))
first = opened()
most = max(opened() for _ in range(50))
guard.close()
tell(more=most - first)
"""
    assert process_support.run(script, shared, issuer.token())["more"] <= 1


SERVER = """
import resource, uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
guard = Guard.from_dict(config)
mcp = MCPServer("test", middleware=[guard.mcp_middleware()])
mcp.tool(name="add")(lambda: "3")
security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = guard.asgi(mcp.streamable_http_app(transport_security=security, json_response=True, stateless_http=True))
uvicorn.run(app, host="127.0.0.1", port=int(given), log_level="critical")
"""


def test_f33_server_with_64_descriptors_answers_again_after_a_flood_of_connections(fetching, issuer, tmp_path):
    port = free_port()
    given = tmp_path / "given.json"
    given.write_text(json.dumps([fetching, port]))
    program = process_support.PRELUDE + SERVER
    with (
        given.open() as opened,
        (tmp_path / "errors").open("w") as errors,
        serving(
            [sys.executable, "-c", program], port, stdin=opened, stderr=errors, env=process_support.environment()
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}/mcp"
        body = message("tools/call", {"name": "add", "arguments": {}})
        sent = {"json": body, "headers": headers(issuer.token(), "tools/call", "add"), "timeout": 30}
        assert httpx2.post(url, **sent).status_code == 200
        with contextlib.ExitStack() as flood:
            for _ in range(150):
                flood.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        assert httpx2.post(url, **sent).status_code == 200
        assert process.poll() is None


@pytest.fixture
def everyones(fetching):
    """The same, in a folder that a process without privileges may write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield {**fetching, "audit": {"path": str(folder / "audit")}}
    shutil.rmtree(folder)


@pytest.mark.parametrize("needs", ["keys", "the log", "revocations"])
def test_f33_threads_that_the_system_does_not_give_refuse_and_are_tried_again(everyones, config, issuer, needs):
    """By the limit on threads of a user, which counts for all users but root."""
    if needs == "the log":
        everyones["issuers"] = config["issuers"]
    if needs == "revocations":
        file = Path(everyones["audit"]["path"]).parent / "revocations.jsonl"
        file.touch(0o644)
        everyones |= {"issuers": config["issuers"], "revocations": {"file": str(file)}}
    script = """
import resource
# What is imported at the first need may lie where only root can read.
import mcp_fastguard.revocations.feed
from mcp_fastguard.keys import KeySource
from mcp_fastguard.keys.fetch import fetch_keys
if "jwks_uri" in config["issuers"][0]:
    asyncio.run(fetch_keys(KeySource(config["issuers"][0]["issuer"], config["issuers"][0]["jwks_uri"], True), None, deadline=5.0))
guard = Guard.from_dict(config)
if os.getuid() == 0:
    folder = config["audit"]["path"]
    for parent, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            os.chown(os.path.join(parent, name), 65534, 65534)
    os.setuid(65534)
_, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
decide = guard.check if "jwks" in config["issuers"][0] else lambda request: authorize(guard, request)
found = [code(decide, request(given)) for _ in range(2)]
resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
found += [code(decide, request(given)) for _ in range(2)]
guard.close()
tell(found=found, log=str(guard.audit_folder))
"""

    found = process_support.run(script, everyones, issuer.token(), **process_support.UNTRACED)

    refusal = "audit_failed" if needs == "the log" else "start_failed"
    assert found["found"] == [refusal, refusal, "allowed", "allowed"]
    assert verify_log(Path(found["log"]))[2:] == (True, None)


def test_f33_memory_that_the_system_does_not_give_ends_no_process_that_was_decided_in(config, issuer):
    """A body that cannot be held is refused by Python before the core sees it; the next call is right."""
    script = """
import resource
guard = Guard.from_dict(config)
assert code(guard.check, request(given)) == "allowed"
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 1024 * 1024, hard))
found = []
for _ in range(3):
    try:
        bytes(256 * 1024 * 1024)
    except MemoryError:
        found.append(code(guard.check, request(given)))
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
found.append(code(guard.check, request(given)))
guard.close()
tell(found=found)
"""

    assert process_support.run(script, config, issuer.token())["found"] == ["allowed"] * 4
