"""What tests of the audit log share: a run of the guard that writes every kind of record."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard.cli.toml import toml_text
from proof_support import Holder
from support import ADMIN, ISSUER, RESOURCE, Issuer
from transport_support import headers, message, served

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The records of all logs in a folder."""
    files = sorted(folder.rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def toml_of(config: dict[str, Any]) -> str:
    """A configuration as TOML, each table in one line."""

    def written(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{toml_text(name)} = {written(member)}" for name, member in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(written, value)) + "]"
        return toml_text(value) if isinstance(value, str) else json.dumps(value)

    return "".join(f"{name} = {written(value)}\n" for name, value in config.items())


def configuration(issuer: Issuer, path: Path) -> dict[str, Any]:
    """The tables that `rules` adds to; the fixture of the same shape lives for one test alone."""
    return {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
        "tools": {
            "run_query": {"scopes": ["warehouse:query:read"], "log_arguments": ["sql"]},
            "add": {"open": True},
            "secret": {"scopes": ["secret:use"]},
            "never": {"tier": "block"},
            "ask": {"open": True, "tier": "approve"},
        },
        "audit": {"path": str(path)},
    }


def rules(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which every room can refuse, and every member of a record has a value."""
    day = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    issuer = {**config["issuers"][0], "roles_claim": "roles", "organisation_claim": "org"}
    return {
        **config,
        "issuers": [issuer],
        "tools": {**config["tools"], "bound": {"open": True, "binding": "dpop"}},
        "prompts": {"hello": {"open": True}},
        "limits": {"rules": [{"per": "tool", "tool": "add", "quota": "2/minute"}]},
        "audit": {**config["audit"], "unverified_bytes_per_minute": 6_000},
        "observe": {"rooms": ["policy"], "until": day},
        "admin": {"issuer": ISSUER},
    }


def broad_run(config: dict[str, Any], issuer: Issuer) -> Path:
    """Has a guard allow, refuse, observe, end, revoke, block, fail and recover. Gives the folder of its logs."""
    tables = rules(config)
    with Guard.from_dict(tables) as guard:
        _decide(guard, issuer)
        asyncio.run(_call(guard, issuer))
        _administer(guard)
        # The end of the app's lifespan closes the guard.
        asyncio.run(_serve(guard, issuer))
    _fail_and_recover(tables, issuer)
    return Path(config["audit"]["path"])


def _direct(tool: str, token: str | None, **arguments: Any) -> ToolRequest:
    return ToolRequest.direct(tool=tool, arguments=arguments, token=token, session="session-1")


def _refused(guard: Guard, request: ToolRequest, room: str) -> None:
    try:
        guard.check(request)
    except Denied as denied:
        assert type(denied).__name__.lower().startswith(room[:5]), (denied, room)
    else:
        raise AssertionError(room)


def _decide(guard: Guard, issuer: Issuer) -> None:
    full = issuer.token(roles=["analyst"], org="acme", act={"sub": "robot"}, sid="s-1")
    long = "x" * 2_000
    for sql in ("select 1", 5, None, True, ["a"], {"text": "b"}, long):
        guard.check(
            _direct("run_query", full, sql=sql, password="hunter2", many=[1], none=None, yes=True, some={"a": 1})
        )
    guard.check(_direct("run_query", full, **{f"a{number}": number for number in range(70)}))
    doubled = [(b"authorization", b"Bearer a.b.c"), (b"authorization", b"Bearer a.b.c")]
    _refused(guard, ToolRequest.http(method="POST", path="/mcp", headers=doubled, peer="192.0.2.7"), "request")
    _refused(guard, _direct("add", issuer.token(exp=int(time.time()) - 3_600)), "token")
    holder = Holder()
    _refused(guard, _direct("add", issuer.token(cnf=holder.confirmation)), "binding")
    for _ in range(2):
        guard.check(_direct("add", issuer.token()))
    _refused(guard, _direct("add", issuer.token()), "limits")
    _refused(guard, _direct("secret", issuer.token()), "policy")
    _refused(guard, _direct("ask", issuer.token()), "approval")
    _refused(guard, _direct("never", issuer.token()), "policy")
    for number in range(50):
        _refused(guard, ToolRequest.direct(tool="add", token=f"a.b.{number}"), "token")


async def _call(guard: Guard, issuer: Issuer) -> None:
    """Endings of every kind."""

    async def rows() -> dict[str, Any]:
        return {"content": [{"type": "text", "text": "a,b"}]}

    async def broken() -> None:
        raise ValueError("the secret of the error")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    state = {"requestState": "the secret of the round"}
    for came_with, result in (({}, {"resultType": "input_required", **state}), (state, {"content": []})):
        async with guard.call(_direct("run_query", issuer.token(), sql="select 1")) as call:
            call.comes_with(came_with)
            call.finish(result)
    for tool, failure in ((rows, None), (broken, ValueError), (cancelled, asyncio.CancelledError)):
        try:
            async with guard.call(_direct("run_query", issuer.token(org="acme"), sql="select 1")) as call:
                result = await call.run(tool)
                call.note(rows=3)
                call.finish(result)
        except (ValueError, asyncio.CancelledError) as error:
            assert failure is not None
            assert isinstance(error, failure)


async def _serve(guard: Guard, issuer: Issuer) -> None:
    """Over HTTP: a trace, a refusal that is only observed, a prompt, another method, and an app that never takes the call."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})

    asked = [
        ("tools/call", {"name": "run_query", "arguments": {"sql": "select 1"}}, "run_query"),
        ("tools/call", {"name": "secret", "arguments": {}}, "secret"),
        ("prompts/get", {"name": "hello"}, "hello"),
        ("ping", {}, None),
    ]
    async with served(guard.asgi(app)) as transport, httpx2.AsyncClient(transport=transport) as http:
        for method, params, name in asked:
            more = {**headers(issuer.token(), method, name), "traceparent": f"00-{TRACE}-{SPAN}-01"}
            await http.post(RESOURCE, json=message(method, params), headers=more)
        named = {"issuer": ISSUER, "subject": "mallory", "client_id": "c"}
        asked = [
            ("revoke", {**named, "token_id": "t", "session": "s", "key_id": "k", "issued_before": 1}),
            ("block", {**named, "tool": "add", "until": time.time() + 60}),
            ("unblock", {**named, "tool": "add"}),
        ]
        token = issuer.token(aud=ADMIN, scope="fastguard:admin", sub="root", client_id="console")
        for act, params in asked:
            body = {"jsonrpc": "2.0", "id": 1, "method": f"fastguard/{act}", "params": params}
            answer = await http.post(ADMIN, json=body, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 200, answer.text


def _administer(guard: Guard) -> None:
    guard.revoke(
        issuer=ISSUER, token_id="t", subject="mallory", client_id="c", session="s", key_id="k", issued_before=1
    )
    named = {"tool": "add", "issuer": ISSUER, "subject": "mallory", "client_id": "c"}
    guard.block(**named, until=time.time() + 60)
    guard.unblock(**named)


def _fail_and_recover(tables: dict[str, Any], issuer: Issuer) -> None:
    """A limit on the size of files stands for a full disk, and goes away again."""
    script = textwrap.dedent("""
        import json, resource, signal, sys, time
        from mcp_fastguard import Guard, GuardFault, ToolRequest
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        config, token = json.load(sys.stdin)
        guard = Guard.from_dict(config)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
        until, failed = time.monotonic() + 30, False
        while time.monotonic() < until:
            try:
                guard.check(ToolRequest.direct(tool="run_query", token=token))
                if failed:
                    break
            except GuardFault:
                failed = True
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            time.sleep(0.01)
        guard.close()
        print("recovered" if failed else "never failed")
    """)
    given = json.dumps([{**tables, "limits": {}}, issuer.token()])
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "recovered", done.stderr
