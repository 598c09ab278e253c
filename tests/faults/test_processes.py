"""Forks after the start: gunicorn that loads the app first, and both ways of multiprocessing (F18)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

import process_support
from keys_support import respond
from mcp_fastguard._fastguard import verify_log
from servers_support import free_port, started
from transport_support import headers, message

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

WORKERS = 4
CALL = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})

#: The app: a guard with all that it can have, which decided and fetched already when gunicorn forks.
APP = """
import asyncio, json, os
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_fastguard import Guard, ToolRequest

with open(os.environ["GIVEN"]) as file:
    config, token = json.load(file)
guard = Guard.from_dict(config)
other = Guard.from_dict({**config, "audit": {"path": config["audit"]["path"] + "-other"}})
for one in (guard, other):
    asyncio.run(one.authorize(ToolRequest.direct(tool="add", arguments={}, token=token)))
mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

@mcp.tool()
def add(a: int, b: int) -> str:
    answers = guard.state_status()["answers"]
    return f"{os.getpid()} {guard.audit_folder} {answers}"

security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = guard.asgi(mcp.streamable_http_app(transport_security=security, json_response=True, stateless_http=True))
"""


@pytest.fixture
def deployed(shared, issuer, loopback, tmp_path):
    """gunicorn with its workers; gives its port, its process and the folder of the logs."""
    loopback.routes["/jwks"] = respond(json.dumps(issuer.jwks).encode())
    port = free_port()
    place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True, "algorithms": ["ES256"]}
    (tmp_path / "revocations.jsonl").touch()
    config = {
        **shared,
        "issuers": [{"issuer": issuer.issuer, **place}],
        "revocations": {"file": str(tmp_path / "revocations.jsonl")},
    }
    (tmp_path / "preloaded.py").write_text(APP)
    (tmp_path / "given.json").write_text(json.dumps([config, issuer.token()]))
    command = [sys.executable, "-m", "gunicorn", "preloaded:app", "--preload", "-w", str(WORKERS)]
    command += ["-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "--log-level", "error"]
    command += ["--graceful-timeout", "5"]
    changes = {"GIVEN": str(tmp_path / "given.json"), "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    with (tmp_path / "errors").open("w") as errors:
        process = started(command, port, cwd=tmp_path, env=process_support.environment(**changes), stderr=errors)
        yield port, process
        process.terminate()
        process.wait(20)
    assert "Traceback" not in (tmp_path / "errors").read_text()


async def called(port, token, count, clients):
    """So many calls by so many clients; gives how often each answered what."""
    body = json.dumps(CALL).encode()
    lines = [f"{name}: {value}" for name, value in headers(token, "tools/call", "add").items()]
    lines += ["host: mcp.example.com", f"content-length: {len(body)}", "connection: close"]
    wire = "\r\n".join(["POST /mcp HTTP/1.1", *lines, "", ""]).encode() + body
    left = iter(range(count))
    found: dict[str, int] = {}

    async def client():
        # Each call on a connection of its own, so that the kernel spreads them over the workers.
        for _ in left:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(wire)
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200"), answer
            text = json.loads(answer.partition(b"\r\n\r\n")[2])["result"]["content"][0]["text"]
            found[text] = found.get(text, 0) + 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


def connections(process):
    """The connections that a process has with others."""
    import psutil

    found = psutil.Process(process.pid).net_connections("inet")
    return {(one.laddr, one.raddr) for one in found if one.raddr and one.status != "CLOSE_WAIT"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="connections of others are read from /proc")
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_f18_workers_of_an_app_that_was_loaded_first_share_nothing_and_none_hangs(deployed, issuer, count):
    port, process = deployed

    found = asyncio.run(called(port, issuer.token(), count, 8))

    import psutil

    workers = psutil.Process(process.pid).children()
    assert len(workers) == WORKERS
    answered = {int(text.split()[0]): Path(text.split()[1]) for text in found}
    assert sum(found.values()) == count
    assert "local" not in " ".join(found)
    # Each that answered has a log of its own, which is not the parent's.
    assert set(answered) <= {worker.pid for worker in workers}
    assert len(set(answered.values())) == len(answered) >= 2
    assert all(f"-{worker}-" in log.name for worker, log in answered.items())
    # Every connection, to the store and to the issuer, is of one process alone.
    own = [connections(one) for one in (process, *workers)]
    assert sum(map(len, own)) == len(set().union(*own))
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    for log in answered.values():
        count, _, is_sealed, problem = verify_log(log)
        assert (is_sealed, problem) == (True, None)
        assert count > 0


def test_f18_fork_in_a_running_loop_leaves_the_parents_connections_to_the_parent(shared, issuer):
    script = """
import gc
guard = Guard.from_dict(config)
async def walk():
    await guard.authorize(request(given))
    for _ in range(3):
        child = os.fork()
        if child == 0:
            # What the child does not use is finalised, and it makes connections of its own.
            gc.collect()
            found = threading.Thread(target=lambda: authorize(guard, request(given)))
            found.start()
            found.join()
            os._exit(guard.state_status()["answers"] != {("limits", "exact"): 2 + made})
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await asyncio.gather(*(guard.authorize(request(given)) for _ in range(5)))
    await guard.aclose()
made = 0
asyncio.run(walk())
tell(answers=[[*name, count] for name, count in guard.state_status()["answers"].items()])
"""
    script = script.replace("2 + made", "counted + 1").replace("        child = os.fork()", COUNTED)

    assert process_support.run(script, shared, issuer.token())["answers"] == [["limits", "exact", 16]]


COUNTED = """        counted = guard.state_status()["answers"]["limits", "exact"]
        child = os.fork()"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_f18_processes_of_multiprocessing_decide_for_themselves(config, issuer, method):
    """Those that are forked get the guard itself, as a pool of a running server does; the others build theirs."""
    script = """
import multiprocessing
context = multiprocessing.get_context(given["method"])
if given["method"] == "fork":
    import guarded_worker
    guarded_worker.guard = Guard.from_dict(config)
    authorize(guarded_worker.guard, request(given["token"]))
import guarded_worker
with context.Pool(3, guarded_worker.begin, (config,)) as pool:
    found = pool.starmap(guarded_worker.decide, [(given["token"], number) for number in range(60)], chunksize=1)
    pool.close()
    pool.join()
if guarded_worker.guard is not None:
    authorize(guarded_worker.guard, request(given["token"]))
    found.append([os.getpid(), str(guarded_worker.guard.audit_folder), "alice"])
    guarded_worker.guard.close()
tell(found=found)
"""
    found = process_support.run(script, config, {"method": method, "token": issuer.token()})["found"]

    assert {subject for _, _, subject in found} == {"alice"}
    logs = {process: log for process, log, _ in found}
    assert len(set(logs.values())) == len(logs) >= 2
    for log in logs.values():
        _, _, _, problem = verify_log(log)
        # A worker of a pool is ended without a word; what it wrote holds.
        assert problem is None
    assert len({Path(log).parent for log in logs.values()}) == 1


def test_f18_import_and_building_start_no_thread(config, issuer):
    script = """
counts = [threading.active_count(), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1]
guards = [Guard.from_dict(config) for _ in range(3)]
counts += [threading.active_count(), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1]
tell(counts=counts)
"""
    assert process_support.run(script, config)["counts"] == [1] * 4
