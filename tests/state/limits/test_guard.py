"""Guards of several processes that have one quota by a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from certificate_support import Authority
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard._fastguard import ObservedCall
from mcp_fastguard.call import Call
from mcp_fastguard.cli import explain
from mcp_fastguard.errors import GuardConfigError, GuardFault, LimitDenied, PolicyDenied
from proof_support import Holder
from shared_limits_support import Server, prefix_of, run
from support import RESOURCE, records
from transport_support import BASE, headers, message

SECRET = b"thirty-two bytes that all of them know"
QUOTA = {"rules": [{"name": "mine", "per": "principal", "quota": "5/minute"}]}


@pytest.fixture
def secret_file(tmp_path):
    file = tmp_path / "state.secret"
    file.write_bytes(SECRET + b"\n")
    return file


@pytest.fixture
def make_shared(config, secret_file, tmp_path):
    """Guards as in several processes: each with its own connections, windows and log."""
    guards = []

    def make(server, *, limits=QUOTA, state=None, **tables):
        table = {
            "url": f"redis://127.0.0.1:{server.port}/0",
            "processes": 2,
            "secret_file": str(secret_file),
            # Long, so that a loaded machine decides nothing.
            "budget": "1s",
            **(state or {}),
        }
        audit = {"path": str(tmp_path / f"audit-{len(guards)}")}
        guards.append(Guard.from_dict({**config, "state": table, "limits": limits, "audit": audit, **tables}))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


@pytest.fixture
def prefix(request):
    """Keys of this test alone, on a server that tests share."""
    return {"prefix": prefix_of(request)}


def ask(issuer, tool="add", **claims):
    return ToolRequest.direct(tool=tool, arguments={}, token=issuer.token(**claims))


async def admitted(guard, request, times):
    """How many of so many calls pass; the others are refused for the quota."""
    count = 0
    for _ in range(times):
        try:
            await guard.authorize(request)
            count += 1
        except LimitDenied as denied:
            assert denied.code == "quota_spent"
    return count


@pytest.mark.parametrize("mode", ["exact", "leased"])
def test_processes_have_one_quota(make_shared, shared_server, prefix, issuer, mode):
    limits = {"mode": mode, "rules": [{"name": "mine", "per": "principal", "quota": "300/minute"}]}
    one, two = (make_shared(shared_server, limits=limits, state=prefix) for _ in range(2))

    async def both():
        requests = [ask(issuer), ask(issuer)]
        return await asyncio.gather(admitted(one, requests[0], 200), admitted(two, requests[1], 200))

    found = run(both(), one, two)

    # What a process holds in advance of a lease is not another's: at most a sixteenth.
    assert (300 if mode == "exact" else 280) <= sum(found) <= 300
    modes = {record["limits_mode"] for record in records(one, "decision")}
    assert modes == {mode}


def test_refusal_says_what_is_spent_and_when_there_is_room(make_shared, shared_server, prefix, issuer):
    limits = {"rules": [{"name": "mine", "per": "principal", "quota": "2/2s"}]}
    guard = make_shared(shared_server, limits=limits, state=prefix)
    request = ask(issuer)

    async def spend():
        first = await guard.authorize(request)
        await guard.authorize(request)
        with pytest.raises(LimitDenied) as denied:
            await guard.authorize(request)
        await asyncio.sleep(denied.value.retry_after)
        await guard.authorize(request)
        return first, denied.value

    first, denied = run(spend(), guard)

    assert (first.limit, first.remaining) == ("mine", 1)
    assert (denied.code, denied.spent.rule, denied.spent.quota, denied.spent.remaining) == ("quota_spent", "mine", 2, 0)
    assert 0 < denied.retry_after <= 2.1
    refused = [record for record in records(guard, "decision") if record["result"] == "denied"]
    assert [(record["code"], record["limits_mode"]) for record in refused] == [("quota_spent", "exact")]


def test_call_that_costs_more_than_the_quota_gets_no_time_to_come_back(make_shared, shared_server, prefix, issuer):
    guard = make_shared(shared_server, state=prefix, tools={"add": {"open": True, "cost": 6}})

    async def once():
        with pytest.raises(LimitDenied) as denied:
            await guard.authorize(ask(issuer))
        return denied.value

    assert run(once(), guard).retry_after is None


def test_limits_of_a_call_are_those_of_all_processes_and_charge_nothing(make_shared, shared_server, prefix, issuer):
    rules = [
        *QUOTA["rules"],
        {"name": "rows", "per": "principal", "meter": "rows", "quota": "3/minute"},
        {"name": "at once", "per": "everyone", "concurrent": 2},
        {"name": "large", "per": "everyone", "quota": "1000/minute"},
    ]
    limits = {"mode": "leased", "rules": rules}
    one, two = (make_shared(shared_server, limits=limits, state=prefix) for _ in range(2))

    async def look():
        before = await two.limits_of(ask(issuer))
        async with one.call(ask(issuer)) as call:
            call.note(rows=5)
            during = await two.limits_of(ask(issuer))
        after = await two.limits_of(ask(issuer))
        again = await two.limits_of(ask(issuer))
        assert [limit.remaining for limit in again] == [limit.remaining for limit in after]
        return before, during, after

    before, during, after = run(look(), one, two)

    def left(found):
        return {limit.rule: limit.remaining for limit in found}

    assert left(before) == {"mine": 5, "rows": 3, "at once": 2, "large": 1_000}
    assert left(during) | {"large": 0} == {"mine": 4, "rows": 3, "at once": 1, "large": 0}
    assert left(after) | {"large": 0} == {"mine": 4, "rows": 0, "at once": 2, "large": 0}
    # Permits that the other process holds in advance count as used.
    assert 1_000 - 1_000 // 32 <= left(after)["large"] < 1_000
    spent = next(limit for limit in after if limit.rule == "rows")
    assert (spent.per, spent.unit, spent.quota, spent.window) == ((("principal", "alice"),), "rows", 3, 60.0)
    assert 59.0 < spent.retry_after <= 61.0


def test_explain_shows_what_other_processes_have_spent(make_shared, shared_server, prefix, issuer, monkeypatch):
    guard = make_shared(shared_server, state=prefix)
    run(admitted(guard, ask(issuer), 5), guard)
    monkeypatch.setattr(explain, "read", lambda _: explain.Read(guard.config, []))
    verdict = explain.explain_call(guard.config.folder, "add", {}, issuer.token(), None)

    assert not verdict.is_allowed
    assert [(limit.rule, limit.left, limit.decides) for limit in verdict.limits] == [
        ("mine", "0 of 5 calls in 60 s", True)
    ]
    assert verdict.rooms[-1][:2] == ("limits", "refuses")


def test_check_cannot_wait_for_the_server(make_shared, shared_server, prefix, issuer):
    guard = make_shared(shared_server, state=prefix)

    with pytest.raises(GuardFault) as fault:
        guard.check(ask(issuer))

    assert fault.value.code == "needs_authorize"


def test_policy_decides_after_the_server(make_shared, shared_server, prefix, issuer):
    guard = make_shared(shared_server, state=prefix)

    async def refused():
        with pytest.raises(PolicyDenied) as denied:
            await guard.authorize(ask(issuer, "secret"))
        return denied.value.code

    assert run(refused(), guard) == "scope_insufficient"


def test_proof_of_possession_is_used_once_though_the_call_is_decided_twice(make_shared, shared_server, prefix, issuer):
    guard = make_shared(shared_server, state=prefix, dpop={"mode": "required"})
    holder = Holder()
    token = issuer.token(cnf=holder.confirmation)
    proof = holder.proof(token)

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def post():
        transport = httpx2.ASGITransport(guard.asgi(inner), client=("192.0.2.7", 1234))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            body = message("tools/call", {"name": "add", "arguments": {}})
            given = {**headers(token, "tools/call", "add"), "authorization": f"DPoP {token}", "dpop": proof}
            return [(await http.post("/mcp", json=body, headers=given)).status_code for _ in range(2)]

    assert run(post(), guard) == [200, 401]


def test_nested_calls_count_too(make_shared, shared_server, prefix, issuer):
    guard = make_shared(shared_server, state=prefix)

    async def nest():
        async with guard.call(ask(issuer)) as call:
            for _ in range(4):
                await call.nested(ToolRequest.message(method="tools/call", params={"name": "add"}))
            with pytest.raises(LimitDenied) as denied:
                await call.nested(ToolRequest.message(method="tools/call", params={"name": "add"}))
            return denied.value.code

    assert run(nest(), guard) == "quota_spent"


def test_spent_quota_that_is_only_observed_lets_pass(make_shared, shared_server, prefix, issuer):
    observe = {"rooms": ["limits"], "until": "2099-01-01"}
    guard = make_shared(shared_server, state=prefix, observe=observe)

    async def spend():
        found = []
        for _ in range(6):
            call = Call(guard, ask(issuer), observes=True)
            found.append(await call.authorize())
        return found

    found = run(spend(), guard)

    assert [isinstance(one, ObservedCall) for one in found] == [False] * 5 + [True]


def test_reload_changes_rules_and_never_the_server(shared_server, secret_file, tmp_path, issuer, prefix):
    file = tmp_path / "fastguard.toml"
    jwks = json.dumps(issuer.jwks)

    def text(quota, port):
        return f"""
            version = 1
            resource.url = "{RESOURCE}"
            issuers = [{{ issuer = "{issuer.issuer}", jwks = '{jwks}', algorithms = ["ES256"] }}]
            tools.add.open = true
            audit.path = "{tmp_path / "audit"}"
            limits.rules = [{{ per = "principal", quota = "{quota}" }}]
            state = {{ url = "redis://127.0.0.1:{port}", processes = 2, secret_file = "{secret_file}", budget = "1s",
                       prefix = "{prefix["prefix"]}" }}
        """.replace(",\n" + " " * 23, ", ")

    file.write_text(text("2/minute", shared_server.port))
    guard = Guard.from_file(file)

    async def change():
        before = await admitted(guard, ask(issuer), 3)
        file.write_text(text("5/minute", shared_server.port))
        guard.reload()
        after = await admitted(guard, ask(issuer), 9)
        file.write_text(text("5/minute", 1))
        with pytest.raises(GuardConfigError, match="start it anew"):
            guard.reload()
        return before, after

    # The window is another one where the quota is: the store counts by quota and length alone.
    before, after = run(change(), guard)
    assert before == 2
    assert 3 <= after <= 5


# --- when the server is away ---------------------------------------------------------------------


def test_server_that_died_leaves_each_process_its_share_and_is_found_again(make_shared, own_server, issuer, caplog):
    limits = {"rules": [{"name": "mine", "per": "principal", "quota": "10/minute"}]}
    guard = make_shared(own_server, limits=limits, state={"budget": "200ms"})
    request = ask(issuer)

    async def through():
        assert await admitted(guard, request, 2) == 2
        own_server.kill()
        # The share of one process of two is five, and two of it are used.
        away = await admitted(guard, request, 10)
        own_server.start()
        until = time.monotonic() + 10
        back = None
        while time.monotonic() < until and back is None:
            with contextlib.suppress(LimitDenied):
                await guard.authorize(ask(issuer, sub="bob"))
            found = records(guard, "decision")[-1]["limits_mode"]
            back = time.monotonic() if found == "exact" else None
            await asyncio.sleep(0.05)
        return away, back

    away, back = run(through(), guard)

    assert away == 3
    assert back is not None
    assert {record["limits_mode"] for record in records(guard, "decision")} == {"exact", "local"}
    told = [record.getMessage() for record in caplog.records if "store of [state]" in record.getMessage()]
    assert told == ["the store of [state] is away: limits.degrade is local", "the store of [state] is back: limits"]


def test_calls_are_refused_where_the_configuration_says_so(make_shared, own_server, issuer):
    guard = make_shared(own_server, limits={**QUOTA, "degrade": "refuse"}, state={"budget": "200ms"})
    own_server.kill()

    async def refused():
        with pytest.raises(LimitDenied) as denied:
            await guard.authorize(ask(issuer))
        return denied.value

    denied = run(refused(), guard)

    assert (denied.code, denied.retry_after) == ("limits_unavailable", 1.0)
    (record,) = records(guard, "decision")
    assert (record["code"], record["limits_mode"]) == ("limits_unavailable", "refuse")


def test_server_that_forgets_under_pressure_is_not_used(make_shared, own_server, issuer, caplog):
    own_server.kill()
    own_server.start("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    guard = make_shared(own_server)

    assert run(admitted(guard, ask(issuer), 5), guard) == 2

    assert "its maxmemory-policy is allkeys-lru" in caplog.text
    assert {record["limits_mode"] for record in records(guard, "decision")} == {"local"}


# --- who may speak to the server -----------------------------------------------------------------


def test_password_is_read_from_its_file_and_shown_nowhere(make_shared, own_server, issuer, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    own_server.kill()
    own_server.start("--user", "default", "off", "--user", "guard", "on", ">a-very-secret-word", "~*", "+@all")
    file = tmp_path / "password"
    file.write_text("a-very-secret-word\n")
    guard = make_shared(own_server, state={"user": "guard", "password_file": str(file)})
    wrong = tmp_path / "wrong"
    wrong.write_text("another-secret-word")
    other = make_shared(own_server, state={"user": "guard", "password_file": str(wrong)})

    assert run(admitted(guard, ask(issuer), 6), guard) == 5
    assert run(admitted(other, ask(issuer), 6), other) == 2
    assert "secret-word" not in caplog.text + json.dumps(records(guard)) + json.dumps(records(other))
    assert SECRET.decode() not in caplog.text


def test_user_needs_the_commands_of_the_docs_and_the_keys_of_the_prefix_alone(
    make_shared, own_server, issuer, tmp_path
):
    page = (Path(__file__).parents[3] / "docs" / "shared-limits.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("user guard on "))
    own_server.kill()
    own_server.start("--user", "default", "off", "--user", *line.split()[1:], ">a-very-secret-word")
    file = tmp_path / "password"
    file.write_text("a-very-secret-word\n")
    rules = [
        *QUOTA["rules"],
        {"name": "at once", "per": "everyone", "concurrent": 1},
        {"name": "rows", "per": "principal", "meter": "rows", "quota": "3/minute"},
    ]
    state = {"user": "guard", "password_file": str(file)}
    guard = make_shared(own_server, state=state, limits={"rules": rules})

    async def walk():
        for rows in (1, 5):
            async with guard.call(ask(issuer)) as call:
                call.note(rows=rows)
        left = {limit.rule: limit.remaining for limit in await guard.limits_of(ask(issuer))}
        store = next(iter(guard._outside.deployment._loops.values())).store
        return left, await store._redis.info("errorstats")

    left, errors = run(walk(), guard)
    assert left == {"mine": 3, "at once": 1, "rows": 0}
    # The first is this test's, which asks without a password whether the server is there.
    assert set(errors) <= {"errorstat_NOAUTH", "errorstat_NOSCRIPT"}
    assert guard.state_status()["answers"] == {("limits", "exact"): 2}


def test_tls_is_checked_against_the_file_and_the_name(make_shared, issuer, tmp_path):
    # The other build speaks no TLS.
    server = Server("redis", tmp_path)
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate = authority.issue("localhost")
    port = str(server.port)
    tls = ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate), "--tls-auth-clients", "no"]
    with_tls = ["--port", "0", "--tls-port", port, "--tls-ca-cert-file", str(authority.file), *tls]
    server.process = subprocess.Popen(
        [server.executable, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), *with_tls],
        stdout=subprocess.DEVNULL,
    )
    _wait_for(server.port)

    def mode(host, ca_file):
        state = {"url": f"rediss://{host}:{port}/0", "ca_file": str(ca_file)}
        guard = make_shared(server, state=state)
        assert run(admitted(guard, ask(issuer), 1), guard) == 1
        return records(guard, "decision")[-1]["limits_mode"]

    try:
        assert mode("localhost", authority.file) == "exact"
        assert mode("127.0.0.1", authority.file) == "local"
        assert mode("localhost", other.file) == "local"
    finally:
        server.kill()


def _wait_for(port):
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            return


def test_names_of_keys_tell_nobody_who_calls(make_shared, own_server, issuer):
    guard = make_shared(own_server)

    async def names():
        await guard.authorize(ask(issuer))
        store = next(iter(guard._outside.deployment._loops.values())).store
        return await store._redis.keys("*")

    found = run(names(), guard)

    assert len(found) == 2
    assert all(name.startswith(b"{fastguard}:limits-") for name in found)
    assert not any(word in b"".join(found) for word in (b"alice", b"agent", b"auth.example.com"))


# --- the configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "limits", "key"),
    [
        ({"url": "http://127.0.0.1"}, {}, "state.url"),
        ({"url": "redis://user:word@127.0.0.1"}, {}, "state.url"),
        ({"url": "redis://127.0.0.1?ssl_cert_reqs=none"}, {}, "state.url"),
        ({"processes": 0}, {}, "state.processes"),
        ({"prefix": "a{b}"}, {}, "state.prefix"),
        ({"budget": "2s"}, {}, "state.budget"),
        ({"ca_file": "missing.pem", "url": "rediss://127.0.0.1"}, {}, "state.ca_file"),
        ({"password_file": "missing"}, {}, "state.password_file"),
        ({"secret_file": "missing"}, {}, "state.secret_file"),
        ({"secret_file": None}, {}, "state.secret_file"),
        (None, {"mode": "exact"}, "limits.mode"),
        (None, {"degrade": "local"}, "limits.degrade"),
    ],
)
def test_configuration_that_cannot_be_used_names_the_key(config, secret_file, changes, limits, key):
    state = {"url": "redis://127.0.0.1", "processes": 2, "secret_file": str(secret_file), **(changes or {})}
    table = {name: value for name, value in state.items() if value is not None}
    tables = {} if changes is None else {"state": table}
    with pytest.raises(GuardConfigError, match=key):
        Guard.from_dict({**config, **tables, "limits": {**QUOTA, **limits}})


def test_short_secret_is_refused(config, tmp_path):
    file = tmp_path / "short"
    file.write_text("short")
    state = {"url": "redis://127.0.0.1", "processes": 2, "secret_file": str(file)}
    with pytest.raises(GuardConfigError, match="at least 32 bytes"):
        Guard.from_dict({**config, "state": state})


def test_url_without_tls_beyond_this_machine_is_warned_of(config, secret_file, caplog):
    state = {"url": "redis://store.example.com", "processes": 2, "secret_file": str(secret_file)}
    Guard.from_dict({**config, "state": state}).close()
    assert "state.url: without TLS" in caplog.text


def test_figures_tell_how_calls_were_counted(make_shared, own_server, issuer):
    from prometheus_client import CollectorRegistry

    from mcp_fastguard.observe.prometheus import GuardCollector

    guard = make_shared(own_server, state={"budget": "1s"})
    registry = CollectorRegistry()
    registry.register(GuardCollector(guard))

    async def through():
        await admitted(guard, ask(issuer), 7)
        own_server.kill()
        await admitted(guard, ask(issuer, sub="bob"), 1)

    run(through(), guard)

    def value(name, **labels):
        return registry.get_sample_value(name, labels)

    assert value("fastguard_shared_answers_total", asked="limits", answer="exact") == 7
    assert value("fastguard_shared_answers_total", asked="limits", answer="local") == 1
    assert value("fastguard_shared_calls_total") == 8
    assert value("fastguard_shared_wait_seconds_total") > 0
    assert value("fastguard_quota_spent_total", rule="mine") == 2
