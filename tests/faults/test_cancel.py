"""Callers that leave while they wait: nothing of them is left behind, and nobody else waits for it (F22)."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import signal
import socket
import threading
import time

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from keys_support import PATIENCE, respond
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import Denied
from mcp_fastguard.state.window_script import AT_ONCE
from proof_support import Holder
from servers_support import running
from support import RESOURCE, records
from transport_support import headers, message

CALLERS = 100


def request(token):
    return ToolRequest.direct(tool="add", arguments={}, token=token)


async def left(calls, begun):
    """Has all begin, waits until they wait, and has them leave."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await begun()
    for task in tasks:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in found), found
    await soon(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def soon(holds):
    """Waits for what another thread does."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


def tasks_of(guard):
    """What runs on the thread that fetches."""
    watch = guard._outside.watch
    return [] if watch is None else [task for task in asyncio.all_tasks(watch.worker._loop) if not task.done()]


def test_f22_callers_that_leave_a_fetch_leave_nothing_on_its_thread(make_guard, issuer, loopback):
    def route(handler):
        loopback.released.wait(PATIENCE)
        respond(json.dumps(issuer.jwks).encode())(handler)

    loopback.routes["/jwks"] = route
    place = {"jwks_uri": f"{loopback.url}/jwks", "allow_http_loopback": True, "algorithms": ["ES256"]}
    guard = make_guard(issuers=[{"issuer": issuer.issuer, **place}])

    async def walk():
        await left(
            (guard.authorize(request(issuer.token())) for _ in range(CALLERS)),
            lambda: soon(lambda: len(tasks_of(guard)) > CALLERS / 2),
        )
        # The fetch alone goes on, and serves who comes.
        await soon(lambda: len(tasks_of(guard)) <= 1)
        stays = asyncio.ensure_future(guard.authorize(request(issuer.token())))
        await asyncio.sleep(0)
        loopback.released.set()
        return (await stays).subject

    assert asyncio.run(walk()) == "alice"
    assert loopback.paths == ["/jwks"]


def test_f22_callers_that_leave_a_lookup_take_no_place_from_others(make_guard, issuer, loopback, tmp_path):
    """256 lookups may be under way at once: more have begun and been left here, and none holds its place."""
    released = threading.Event()
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    now = int(time.time())
    claims = {"active": True, "iss": issuer.issuer, "aud": RESOURCE, "sub": "alice", "client_id": "agent", "scope": ""}
    answer = respond(json.dumps({**claims, "iat": now, "exp": now + 600}).encode())

    def route(handler):
        released.wait(PATIENCE)
        answer(handler)

    loopback.routes["/introspect"] = route
    place = {"introspection_endpoint": f"{loopback.url}/introspect", "allow_http_loopback": True}
    place |= {"introspection_client_id": "guard", "introspection_client_secret_file": str(secret)}
    place |= {"introspection_lookups": "10000/minute", "introspection_lookups_per_address": "10000/minute"}
    guard = make_guard(issuers=[{"issuer": issuer.issuer, **place}])

    async def walk():
        for batch in range(0, 260, 4):
            released.clear()
            await left(
                (guard.authorize(request(f"left-{batch + number}")) for number in range(4)),
                functools.partial(asyncio.to_thread, loopback.wait, batch + 4),
            )
            released.set()
            await soon(lambda: guard._outside._introspector._lookups == {})
        return (await guard.authorize(request("stays"))).subject

    assert asyncio.run(walk()) == "alice"


def test_f22_callers_that_leave_the_store_are_no_failure_of_it(shared, own_server, issuer):
    with Guard.from_dict(shared) as guard:

        async def walk():
            await guard.authorize(request(issuer.token()))
            breaking = guard._outside.deployment._here().breaking
            own_server.signal(signal.SIGSTOP)
            await left(
                (guard.authorize(request(issuer.token())) for _ in range(CALLERS)),
                # The first alone, and the others together.
                lambda: soon(lambda: len(breaking._asking) == 1 + math.ceil((CALLERS - 1) / AT_ONCE)),
            )
            own_server.signal(signal.SIGCONT)
            # What has ended leaves the set a turn of the loop later.
            await soon(lambda: not breaking._asking)
            assert not breaking.is_open
            await guard.authorize(request(issuer.token()))
            await guard.aclose()

        asyncio.run(walk())
        assert set(guard.state_status()["answers"]) == {("limits", "exact")}


def test_f22_proof_of_a_caller_that_left_stays_spent(guard, issuer):
    holder = Holder()
    token = issuer.token(cnf=holder.confirmation)
    proof = holder.proof(token)
    sent = [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'
    bound = ToolRequest.http(method="POST", path="/mcp", headers=sent, body=body)

    async def walk():
        begun = asyncio.Event()

        async def tool():
            begun.set()
            await asyncio.Event().wait()

        async def call():
            async with guard.call(bound) as found:
                await found.run(tool)

        task = asyncio.ensure_future(call())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Denied) as denied:
            await guard.authorize(bound)
        return denied.value.code

    assert asyncio.run(walk()) == "proof_replayed"
    endings = records(guard, "ending")
    assert [(ending["status"], ending["error"]) for ending in endings] == [("cancelled", "CancelledError")]


def test_f22_client_that_hangs_up_ends_its_call_and_no_other(make_guard, issuer):
    guard = make_guard()
    begun, ended = [], []
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    async def add(a: int) -> str:
        begun.append(a)
        try:
            if a:
                await asyncio.sleep(PATIENCE)
        finally:
            ended.append(a)
        return "3"

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = guard.asgi(mcp.streamable_http_app(transport_security=security))

    def wire(a):
        body = json.dumps(message("tools/call", {"name": "add", "arguments": {"a": a}})).encode()
        lines = [f"{name}: {value}" for name, value in headers(issuer.token(), "tools/call", "add").items()]
        lines += ["host: mcp.example.com", f"content-length: {len(body)}", "connection: close"]
        return "\r\n".join(["POST /mcp HTTP/1.1", *lines, "", ""]).encode() + body

    def called(connection):
        connection.settimeout(PATIENCE)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer

    with running("uvicorn", app) as port:
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for connection in waiting:
            connection.sendall(wire(1))
        until = time.monotonic() + PATIENCE
        while len(begun) < len(waiting):
            assert time.monotonic() < until
            time.sleep(0.01)
        for connection in waiting:
            connection.close()
        while len(ended) < len(waiting):
            assert time.monotonic() < until, ended
            time.sleep(0.01)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(wire(0))
            assert called(connection).startswith(b"HTTP/1.1 200")
    statuses = [ending["status"] for ending in records(guard, "ending")]
    assert sorted(statuses) == ["cancelled"] * 20 + ["ok"]
