"""The figures of the README: each a ratio, both sides measured in alternating blocks of one run.

Run it by ``make bench``, which builds with the release profile first. ``--smoke`` runs every part once and briefly.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import logging
import logging.handlers
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from peers import leaky_bucket, moving_window, rust_peer, throttled
from proofs import Bare, Prover, gain_against_bare, proofs

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "python"))

from mcp_fastguard import Guard, ToolRequest  # noqa: E402
from mcp_fastguard._fastguard import empty_call  # noqa: E402
from mcp_fastguard.limits import SlidingWindow  # noqa: E402
from mcp_fastguard.token import KeySet as OurKeySet  # noqa: E402
from mcp_fastguard.token import TokenVerifier  # noqa: E402

ISSUER = "https://auth.example.com"
RESOURCE = "https://mcp.example.com/mcp"


def claims():
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "alice",
        "client_id": "agent-7",
        "iat": now,
        "exp": now + 3000,
        "jti": "0123456789abcdef",
        "scope": "warehouse:schema:read warehouse:query:read",
    }


class Bench:
    def __init__(self, *, smoke):
        self.blocks = 3 if smoke else 25
        self.scale = 0.02 if smoke else 1.0
        self.rows = []

    def calls(self, count):
        return max(5, int(count * self.scale))

    def block(self, work, count, clock=time.perf_counter):
        start = clock()
        for _ in range(count):
            work()
        return (clock() - start) / count * 1e9

    def pair(self, name, bar, ours, theirs, count_ours, count_theirs, before=lambda: None, over=False):
        """Alternates blocks of both sides; the ratio is the median of the pairs."""
        ours_ns, theirs_ns, ratios = [], [], []
        for _ in range(self.blocks):
            before()
            one = self.block(ours, self.calls(count_ours))
            other = self.block(theirs, self.calls(count_theirs))
            ours_ns.append(one)
            theirs_ns.append(other)
            ratios.append(one / other if over else other / one)
        self.row(
            name,
            bar,
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            f"{statistics.median(ours_ns):,.0f} ns against {statistics.median(theirs_ns):,.0f} ns",
        )

    def difference(self, name, bar, ours, theirs, *, count=200, pairs=2_000, before=lambda: None):
        """How many nanoseconds more the one side takes: the median of pairs of blocks, and their quartiles. Time of the thread
        alone, since a difference of two works of which each is ten times as long says nothing on a machine that does other things.
        """

        def block(work):
            before()
            return self.block(work, count, time.thread_time)

        found = []
        for number in range(self.calls(pairs)):
            # Either side goes first as often.
            sides = (ours, theirs) if number % 2 else (theirs, ours)
            taken = {side: block(side) for side in sides}
            found.append((taken[ours], taken[theirs]))
        low, median, high = statistics.quantiles([one - other for one, other in found], n=4)
        one, other = (statistics.median(side) for side in zip(*found, strict=True))
        self.row(name, bar, median, low, high, f"{one:,.0f} ns against {other:,.0f} ns")
        return median

    def row(self, name, bar, ratio, low, high, note):
        self.rows.append((name, bar, ratio, low, high, note))
        print(f"{name:58} {ratio:8.2f}  ({low:.2f} to {high:.2f})  bar {bar:14}  {note}", flush=True)


def logged(bench):
    """What Python's own logging costs a caller, in nanoseconds: a line of JSON with the members of a record, by `QueueHandler` to a
    thread that formats and writes it. No hash, no tree, no sync.
    """
    members = {
        "id": "20261121T000000-4711-9f3a-1",
        "event_type": "decision",
        "kind": "tool",
        "tool_name": "run_query",
        "method": "tools/call",
        "issuer": ISSUER,
        "subject": "alice",
        "client_id": "agent",
        "scopes": ["warehouse:query:read"],
        "result": "allowed",
        "rule": "tools.run_query",
        "tier": "auto",
    }

    class Lines(logging.Formatter):
        def format(self, record):
            told = {"timestamp": record.created, **{name: getattr(record, name) for name in members}}
            return json.dumps(told)

    waiting = queue.SimpleQueue()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        writer = logging.StreamHandler(file)
        writer.setFormatter(Lines())
        listener = logging.handlers.QueueListener(waiting, writer)
        log = logging.getLogger("benches.logged")
        log.propagate = False
        log.setLevel(logging.INFO)
        log.handlers = [logging.handlers.QueueHandler(waiting)]
        listener.start()
        found = []
        for _ in range(bench.blocks):
            while not waiting.empty():
                time.sleep(0.01)
            work = functools.partial(log.info, "decision", extra=members)
            found.append(bench.block(work, bench.calls(5000), time.thread_time))
        listener.stop()
    return statistics.median(found)


def guards(bench, folder):
    key = RSAKey.generate_key(2048, {"kid": "key-1", "use": "sig", "alg": "RS256"})
    jwks = KeySet([key]).as_dict(private=False)
    token = jwt.encode({"alg": "RS256", "kid": "key-1", "typ": "at+jwt"}, claims(), key)
    table = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": jwks, "algorithms": ["RS256"]}],
        "limits": {"rules": [{"per": "principal", "quota": "4000000000/minute"}]},
        "tools": {"run_query": {"scopes": ["warehouse:query:read"]}},
        "audit": {"path": str(folder / "audit")},
    }
    guard = Guard.from_dict(table)
    silent = Guard.from_dict({**table, "audit": {"enabled": False}})
    arguments = {"sql": "select 1"}

    def direct():
        guard.check(ToolRequest.direct(tool="run_query", arguments=arguments, token=token))

    def without_audit():
        silent.check(ToolRequest.direct(tool="run_query", arguments=arguments, token=token))

    sql = "SELECT country, count(*) AS customers FROM sales.customers WHERE placed_on > '2026-01-01' GROUP BY country LIMIT 5"
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "run_query", "arguments": {"sql": sql, "max_rows": 100}, "_meta": {"progressToken": 1}},
    }
    content = json.dumps(body).encode().ljust(300)
    headers = [
        (b"host", b"mcp.example.com"),
        (b"user-agent", b"python-httpx2/2.16.2"),
        (b"accept", b"application/json, text/event-stream"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/json"),
        (b"content-length", b"300"),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", b"run_query"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-request-id", b"7f3c1d9a"),
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-forwarded-proto", b"https"),
        (b"authorization", b"Bearer " + token.encode()),
    ]

    def http():
        guard.check(ToolRequest.http(method="POST", path="/mcp", headers=headers, body=content, peer="192.0.2.7"))

    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": RESOURCE}, exp={"essential": True}
    )

    def joserfc_decode():
        registry.validate(jwt.decode(token, key, algorithms=["RS256"]).claims)

    def drain():
        guard.flush(10)

    bench.pair("guard.check, seen before, faster than joserfc by", ">= 60", direct, joserfc_decode, 5000, 300, drain)
    bench.pair("  the same without audit", "", without_audit, joserfc_decode, 5000, 300)
    name = "the record of a call, ns, bursts of 5000"
    ours = bench.difference(name, "<= 500", direct, without_audit, count=bench.calls(5_000), pairs=100, before=drain)
    theirs = logged(bench)
    bench.row(
        "a record, cheaper than one of logging by",
        "",
        theirs / ours,
        theirs / ours,
        theirs / ours,
        f"{theirs:,.0f} ns there",
    )
    bench.pair("ToolRequest.http + check over direct + check", "<= 4", http, direct, 5000, 5000, drain, over=True)
    drain()
    count = bench.calls(200_000)
    start = time.perf_counter()
    done = 0
    while done < count:
        try:
            direct()
            done += 1
        except Exception:
            time.sleep(0.002)
    drain()
    rate = count / (time.perf_counter() - start)
    bench.row(
        "sustained, every record on disk, 1000 calls/s",
        "",
        rate / 1000,
        rate / 1000,
        rate / 1000,
        "bound by the writer",
    )
    guard.close()
    revocations(bench, silent, Guard.from_dict({**table, "audit": {"enabled": False}}), arguments, token)


def revocations(bench, none, many, arguments, token):
    """What a full table of revocations adds to a call whose token was seen before."""
    for number in range(bench.calls(1_000_000) - 1):
        many.revoke(token_id=f"revoked-{number}")

    def check(guard):
        guard.check(ToolRequest.direct(tool="run_query", arguments=arguments, token=token))

    name = "guard.check with 1,000,000 revocations, ns more than none"
    bench.difference(name, "<= 50", lambda: check(many), lambda: check(none))
    none.close()
    many.close()


def first_sight(bench):
    import jwt as pyjwt

    for name, key in (
        ("RS256", RSAKey.generate_key(2048, {"kid": "key-1", "use": "sig", "alg": "RS256"})),
        ("ES256", ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})),
    ):
        token = jwt.encode({"alg": name, "kid": "key-1", "typ": "at+jwt"}, claims(), key)
        jwks = KeySet([key]).as_dict(private=False)
        verifier = TokenVerifier(
            issuer=ISSUER, audience=RESOURCE, keys=OurKeySet.from_jwks(jwks), algorithms=[name], cache_size=0
        )
        public = pyjwt.PyJWK(key.as_dict(private=False)).key

        def ours(verifier=verifier, token=token):
            verifier.verify(token)

        def theirs(token=token, public=public, name=name):
            pyjwt.decode(token, public, algorithms=[name], audience=RESOURCE, issuer=ISSUER)

        def jose(token=token, key=key, name=name):
            jwt.decode(token, key, algorithms=[name])

        bench.pair(f"TokenVerifier.verify {name}, first sight, over PyJWT", "", ours, theirs, 300, 200)
        bench.pair(f"TokenVerifier.verify {name}, first sight, over joserfc", "", ours, jose, 300, 200)
        fastmcp_verifier(bench, name, key, token, ours)
        if name == "ES256":
            threads(bench, ours)


def fastmcp_verifier(bench, name, key, token, ours):
    from fastmcp.server.auth.providers.jwt import JWTVerifier

    verifier = JWTVerifier(
        public_key=key.as_pem(private=False).decode(), issuer=ISSUER, audience=RESOURCE, algorithm=name
    )

    def theirs():
        try:
            verifier.verify_token(token).send(None)
        except StopIteration as stop:
            if stop.value is None:
                raise RuntimeError("refused") from None

    bench.pair(f"TokenVerifier.verify {name}, first sight, over FastMCP", "", ours, theirs, 300, 100)


def threads(bench, work):
    """What a second thread of Python gains, as a share of what it gains for bare verification."""
    count = bench.calls(2000)
    bare = Bare(smoke=bench.scale < 1)

    def timed(number):
        workers = [threading.Thread(target=lambda: [work() for _ in range(count)]) for _ in range(number)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return number * count / (time.perf_counter() - start)

    gain_against_bare(bench, "of TokenVerifier.verify ES256", timed, bare, "ES256", count)
    bare.close()


def in_rust(bench, example, *arguments):
    """What an example of `benches/rust` tells: an object a line."""
    profile = ["--profile", "quick"] if bench.scale < 1 else ["--release"]
    run = ["cargo", "run", "--quiet", *profile, "-p", "fastguard-benches", "--example", example, "--", *arguments]
    done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def bare(bench):
    """In Rust, without Python: first sight of a token, and a whole DPoP check, over the bare verification with a parsed key."""
    bars = {("verify", "RS256"): "<= 1.10", ("verify", "ES256"): "<= 1.05"}
    for example in ("verify", "proofs"):
        for found in in_rust(bench, example):
            name, ratio = found["algorithm"], found["ratio"]
            work = "verify" if example == "verify" else "a whole DPoP check,"
            note = f"{found['verify_ns']:,} ns against {found['bare_ns']:,} ns"
            bar = bars.get((example, name), "<= 1.12")
            bench.row(f"Rust: {work} {name} over bare aws-lc-rs", bar, ratio, ratio, ratio, note)
            if "threads" in found:
                gain = found["threads"]
                bench.row(f"Rust: two threads' gain with proofs {name} over bare", ">= 0.9", gain, gain, gain, "")


def rules(bench):
    """In Rust, without Python: what two threads gain on windows, and what each further rule of a call costs."""
    (found,) = in_rust(bench, "limits")
    for name, member, bar, note in (
        ("Rust: two threads, each on a window of its own, over one", "own_keys", ">= 1.7", "quartiles"),
        ("Rust: two threads, each on 64 windows, over one", "many_keys", ">= 1.7", "quartiles"),
        ("Rust: two threads on one window over one thread", "same_key", "", "quartiles; they wait for one lock"),
        ("Rust: each further rule of a call, ns", "further_rule_ns", "<= 60", "quartiles"),
    ):
        low, median, high = found[member]
        bench.row(name, bar, median, low, high, note)


def logs(bench):
    """In Rust, without Python: what one writer writes, with tree and signatures, and how long reading it again takes."""
    (found,) = in_rust(bench, "verify_log", str(bench.calls(1_000_000)))
    for name, member, bar, scale in (
        ("audit: records written and synced, 1000 a second", "written_per_second", ">= 200", 1000),
        ("audit: seconds to verify 1,000,000 records", "verify_seconds", "<= 10", 1),
        ("audit: seconds to repair 1,000,000 records", "repair_seconds", "", 1),
    ):
        figure = found[member] / scale
        bench.row(name, bar, figure, figure, figure, f"{found['records']:,} records, {found['bytes']:,} bytes")


def windows(bench):
    window = SlidingWindow(quota=4_000_000_000, window=60.0)
    narrow = SlidingWindow(quota=60_000, window=60.0, max_keys=1_000_000)
    bench.pair(
        "SlidingWindow.admit over an empty call",
        "<= 4",
        lambda: window.admit("alice"),
        lambda: empty_call("alice"),
        20_000,
        20_000,
        over=True,
    )
    for peer in (moving_window, throttled, leaky_bucket, rust_peer):
        peer(bench, lambda: window.admit("alice"))
    count = bench.calls(1_000_000)
    before = resident()
    for number in range(count):
        narrow.admit(f"key-{number}")
    grown = (resident() - before) / count
    bench.row(f"bytes a key, {len(narrow):,} keys", "<= 200", grown, grown, grown, "resident memory")


def resident():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


async def end_to_end(bench, folder, prover=None):
    """The SDK's server with the guard and without any, in one process over ASGI, in alternating blocks; with a prover, each request
    has a proof that was made before.
    """
    from mcp.server.mcpserver import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings

    key = ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})
    jwks = prover.jwks if prover else KeySet([key]).as_dict(private=False)
    table = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": jwks, "algorithms": ["ES256"]}],
        "dpop": {"mode": "required", "replay_entries": 100_000_000} if prover else {},
        "limits": {
            "rules": [
                {"per": "principal", "quota": "4000000000/minute"},
                {"per": "session", "quota": "4000000000/minute", "name": "s"},
            ]
        },
        "tools": {"add": {"scopes": ["warehouse:query:read"], "read_only": True}},
        "audit": {"path": str(folder / ("audit-proofs" if prover else "audit-e2e"))},
    }
    guard = Guard.from_dict(table)
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)

    def server(middleware):
        mcp = MCPServer("bench", middleware=middleware)

        @mcp.tool()
        def add(a: int, b: int) -> int:
            return a + b

        return mcp.streamable_http_app(transport_security=security, json_response=True)

    token = prover.token if prover else jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, claims(), key)
    plain, guarded = server([]), guard.asgi(server([guard.mcp_middleware()]))
    alone = DecisionAlone(server([]), guard)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "b", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "add", "arguments": {"a": 1, "b": 2}, "_meta": meta},
        }
    ).encode()
    headers = [
        (b"host", b"mcp.example.com"),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", b"add"),
        (b"authorization", (b"DPoP " if prover else b"Bearer ") + token.encode()),
    ]

    async def call(app, more):
        """One request straight into the application, so that no client is measured."""
        given = False
        status = 0

        async def receive():
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()

        async def send(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https",
            "path": "/mcp",
            "raw_path": b"/mcp",
            "query_string": b"",
            "root_path": "",
            "headers": headers + more,
            "client": ("192.0.2.7", 1234),
            "server": ("mcp.example.com", 443),
            "state": {},
        }
        await app(scope, receive, send)
        assert status == 200, status

    async def block(app, count):
        more = [[(b"dpop", proof.encode())] for proof in prover.proofs(count)] if prover else [[]] * count
        start = time.perf_counter()
        for lines in more:
            await call(app, lines)
        return count / (time.perf_counter() - start)

    async with lifespan(plain), lifespan(guarded), lifespan(alone):
        apps = [plain, guarded] if prover else [plain, guarded, alone]
        for app in apps:
            await block(app, 20)
        count = bench.calls(150)
        blocks = [[await block(app, count) for app in apps] for _ in range(bench.blocks * 2)]
    ratios = [[rate / plain_rate for rate in rates] for plain_rate, *rates in blocks]
    rates = statistics.median(guarded_rate for _, guarded_rate, *_ in blocks)
    found = [ratio for ratio, *_ in ratios]
    bench.row(
        f"calls/s of the SDK's server: guarded{', with a proof each,' if prover else ''} over unguarded",
        ">= 0.85" if prover else ">= 0.96",
        statistics.median(found),
        min(found),
        max(found),
        f"{rates:,.0f} calls/s with the guard",
    )
    if not prover:
        found = [ratio for _, ratio in ratios]
        bench.row(
            "calls/s of the SDK's server: decided and recorded in five lines, without a layer, over unguarded",
            "",
            statistics.median(found),
            min(found),
            max(found),
            "the least that any layer around the decision can take",
        )


class DecisionAlone:
    """No layer: what is left of a guarded call where nothing is done but the decision, the last look and both records."""

    def __init__(self, app, guard):
        self.app = app
        self.guard = guard

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        message = await receive()

        async def again():
            return message

        proof = self.guard.check(ToolRequest.of_scope(scope["path"], scope, message["body"]))
        self.guard.gate.recheck(proof)
        await self.app(scope, again, send)
        self.guard.gate.finish(proof, "ok", 0.001)


class lifespan:  # noqa: N801 - used as a function
    def __init__(self, app):
        self.app = app

    async def __aenter__(self):
        self.stop = asyncio.Event()
        started = asyncio.Event()

        async def receive():
            if not started.is_set():
                return {"type": "lifespan.startup"}
            await self.stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(_):
            started.set()

        self.task = asyncio.create_task(
            self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        )
        await started.wait()

    async def __aexit__(self, *_):
        self.stop.set()
        await self.task


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="every part once and briefly, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    bench = Bench(smoke=options.smoke)
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        guards(bench, Path(folder))
        first_sight(bench)
        windows(bench)
        try:
            from uvloop import run
        except ImportError:
            from asyncio import run
        run(end_to_end(bench, Path(folder)))
        run(end_to_end(bench, Path(folder), Prover(claims())))
        bare(bench)
        proofs(bench, Path(folder), claims())
        rules(bench)
        logs(bench)
    if options.json:
        names = ("name", "bar", "ratio", "low", "high", "note")
        options.json.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in bench.rows], indent=2))


if __name__ == "__main__":
    main()
