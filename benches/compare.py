"""The figures of the README: each a ratio, both sides measured in alternating blocks of one run.

Run it by ``make bench``, which builds with the release profile first. ``--smoke`` runs every part once and briefly.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from peers import leaky_bucket, moving_window, rust_peer, throttled

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "python"))

from mcp_fastguard import Guard, ToolRequest  # noqa: E402
from mcp_fastguard._fastguard import empty_call  # noqa: E402
from mcp_fastguard.binding import DPoPVerifier  # noqa: E402
from mcp_fastguard.errors import Denied  # noqa: E402
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

    def block(self, work, count):
        start = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - start) / count * 1e9

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

    def row(self, name, bar, ratio, low, high, note):
        self.rows.append((name, bar, ratio, low, high, note))
        print(f"{name:58} {ratio:8.2f}  ({low:.2f} to {high:.2f})  bar {bar:14}  {note}", flush=True)


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

    bench.pair(
        "guard.check with 1,000,000 revocations over none",
        "at most 50 ns more",
        lambda: check(many),
        lambda: check(none),
        5000,
        5000,
        over=True,
    )
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
        if name == "RS256":
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
    """What a second thread of Python gains."""
    count = bench.calls(2000)

    def timed(number):
        workers = [threading.Thread(target=lambda: [work() for _ in range(count)]) for _ in range(number)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return number * count / (time.perf_counter() - start)

    gains = [timed(2) / timed(1) for _ in range(max(3, bench.blocks // 3))]
    bench.row(
        "two threads of TokenVerifier.verify over one",
        "",
        statistics.median(gains),
        min(gains),
        max(gains),
        "the signature check releases the GIL",
    )


class Prover:
    """A client that makes proofs in advance, each for one call."""

    def __init__(self):
        self.key = ECKey.generate_key("P-256")
        self.issuer = ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})
        self.jwks = KeySet([self.issuer]).as_dict(private=False)
        found = {**claims(), "cnf": {"jkt": self.key.thumbprint()}}
        self.token = jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, found, self.issuer)
        digest = hashlib.sha256(self.token.encode()).digest()
        self.hash = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def proofs(self, count, **more):
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.as_dict(private=False)}
        now = int(time.time())
        for _ in range(count):
            found = {"jti": os.urandom(9).hex(), "htm": "POST", "htu": RESOURCE, "iat": now, "ath": self.hash, **more}
            yield jws.serialize_compact(header, json.dumps(found).encode(), self.key)


def proofs(bench, folder, bare_ns):
    """A whole DPoP check from Python: cached token, fresh ES256 proof, store of used proofs. And the same with a nonce, in a guard."""
    prover, count = Prover(), 500
    keys = OurKeySet.from_jwks(prover.jwks)
    token = TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=keys, algorithms=["ES256"]).verify(prover.token)
    # One principal may hold 1/64 of the store.
    verifier, fresh = DPoPVerifier(replay_entries=100_000_000), []

    def ours():
        verifier.confirm(token, fresh.pop(), method="POST", url=RESOURCE, access_token=prover.token)

    def refill():
        fresh[:] = prover.proofs(bench.calls(count))

    try:
        from auth0_api_python import ApiClient, ApiClientOptions
    except ImportError:
        print("SKIPPED: auth0-api-python is not installed (requirements/peers.txt)")
    else:
        client = ApiClient(ApiClientOptions(domain="auth.example.com", audience=RESOURCE))
        (again,) = prover.proofs(1)

        def theirs():
            try:
                # It remembers no proofs, so one is as good as many.
                client.verify_dpop_proof(prover.token, again, "POST", RESOURCE).send(None)
            except StopIteration:
                return
            raise RuntimeError("it waits for something")

        bench.pair("DPoPVerifier.confirm, faster than auth0-api-python by", ">= 2", ours, theirs, count, 100, refill)
    against_bare(bench, "DPoPVerifier.confirm over bare aws-lc-rs", ours, refill, bare_ns)
    guard, request, refill = guarded_proofs(prover, folder, fresh, bench.calls(count))
    against_bare(
        bench, "guard.check with proof and nonce over bare aws-lc-rs", lambda: guard.check(request()), refill, bare_ns
    )
    guard.close()
    proving_threads(bench, prover, token)


def guarded_proofs(prover, folder, fresh, count):
    """A guard that wants nonces, what makes a request of the next proof, and what makes proofs."""
    secret = folder / "nonce-secret"
    secret.write_bytes(os.urandom(32))
    guard = Guard.from_dict(
        {
            "version": 1,
            "resource": {"url": RESOURCE},
            "issuers": [{"issuer": ISSUER, "jwks": prover.jwks, "algorithms": ["ES256"]}],
            "dpop": {
                "mode": "required",
                "nonce": "required",
                "nonce_secret_file": str(secret),
                "replay_entries": 100_000_000,
            },
            "limits": {"rules": [{"per": "principal", "quota": "4000000000/minute"}]},
            "tools": {"run_query": {"open": True}},
            "audit": {"enabled": False},
        }
    )
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_query","arguments":{}}}'

    def request():
        headers = [(b"authorization", b"DPoP " + prover.token.encode()), (b"dpop", fresh.pop().encode())]
        return ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body)

    def refill():
        fresh[:] = prover.proofs(1)
        try:
            guard.check(request())
        except Denied as denied:
            fresh[:] = prover.proofs(count, nonce=denied.nonce)

    return guard, request, refill


def against_bare(bench, name, work, refill, bare_ns):
    count = bench.calls(500)
    found = []
    for _ in range(bench.blocks):
        refill()
        found.append(bench.block(work, count))
    middle = statistics.median(found)
    note = f"{middle:,.0f} ns against {bare_ns:,} ns, measured in Rust before"
    bench.row(name, "<= 1.12", middle / bare_ns, min(found) / bare_ns, max(found) / bare_ns, note)


def proving_threads(bench, prover, token):
    """What a second thread of Python gains for proofs."""
    count = bench.calls(1000)
    verifier = DPoPVerifier(replay_entries=100_000_000)

    def timed(number):
        pools = [list(prover.proofs(count)) for _ in range(number)]

        def work(pool):
            for proof in pool:
                verifier.confirm(token, proof, method="POST", url=RESOURCE, access_token=prover.token)

        workers = [threading.Thread(target=work, args=(pool,)) for pool in pools]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return number * count / (time.perf_counter() - start)

    gains = [timed(2) / timed(1) for _ in range(max(3, bench.blocks // 3))]
    note = "the signature check releases the GIL"
    bench.row(
        "two threads of DPoPVerifier.confirm over one", "", statistics.median(gains), min(gains), max(gains), note
    )


def bare(bench):
    """In Rust, without Python: first sight of a token, and a whole DPoP check, over the bare verification with a parsed key.

    Gives how many nanoseconds a bare ES256 takes.
    """
    bars = {("verify", "RS256"): "<= 1.10", ("verify", "ES256"): "<= 1.05"}
    for example in ("verify", "proofs"):
        run = ["cargo", "run", "--quiet", "--release", "-p", "fastguard-benches", "--example", example]
        if bench.scale < 1:
            run[3:4] = ["--profile", "quick"]
        done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
        for line in done.stdout.splitlines():
            found = json.loads(line)
            name, ratio = found["algorithm"], found["ratio"]
            work = "verify" if example == "verify" else "a whole DPoP check,"
            note = f"{found['verify_ns']:,} ns against {found['bare_ns']:,} ns"
            bar = bars.get((example, name), "<= 1.12")
            bench.row(f"Rust: {work} {name} over bare aws-lc-rs", bar, ratio, ratio, ratio, note)
            if (example, name) == ("proofs", "ES256"):
                bare_ns = found["bare_ns"]
    return bare_ns


def logs(bench):
    """In Rust, without Python: what one writer writes, with tree and signatures, and how long reading it again takes."""
    count = bench.calls(1_000_000)
    profile = ["--profile", "quick"] if bench.scale < 1 else ["--release"]
    run = ["cargo", "run", "--quiet", *profile, "-p", "fastguard-benches", "--example", "verify_log", "--", str(count)]
    found = json.loads(subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
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


async def end_to_end(bench, folder):
    """The SDK's server with the guard and without any, in one process over ASGI, in alternating blocks."""
    import httpx2
    from mcp.server.mcpserver import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings

    key = ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})
    table = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": KeySet([key]).as_dict(private=False), "algorithms": ["ES256"]}],
        "limits": {
            "rules": [
                {"per": "principal", "quota": "4000000000/minute"},
                {"per": "session", "quota": "4000000000/minute", "name": "s"},
            ]
        },
        "tools": {"add": {"scopes": ["warehouse:query:read"], "read_only": True}},
        "audit": {"path": str(folder / "audit-e2e")},
    }
    guard = Guard.from_dict(table)
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)

    def server(middleware):
        mcp = MCPServer("bench", middleware=middleware)

        @mcp.tool()
        def add(a: int, b: int) -> int:
            return a + b

        return mcp.streamable_http_app(transport_security=security, json_response=True)

    token = jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, claims(), key)
    plain, guarded = server([]), guard.asgi(server([guard.mcp_middleware()]))
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
        (b"authorization", b"Bearer " + token.encode()),
    ]

    async def call(app):
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
            "headers": list(headers),
            "client": ("192.0.2.7", 1234),
            "server": ("mcp.example.com", 443),
            "state": {},
        }
        await app(scope, receive, send)
        assert status == 200, status

    async def block(app, count):
        start = time.perf_counter()
        for _ in range(count):
            await call(app)
        return count / (time.perf_counter() - start)

    async with lifespan(plain), lifespan(guarded):
        await block(plain, 20)
        await block(guarded, 20)
        count = bench.calls(150)
        ratios, rates = [], []
        for _ in range(bench.blocks * 2):
            one, other = await block(plain, count), await block(guarded, count)
            ratios.append(other / one)
            rates.append(other)
    note = f"{statistics.median(rates):,.0f} calls/s with the guard"
    bench.row(
        "calls/s of the SDK's server: guarded over unguarded",
        ">= 0.96",
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        note,
    )
    _ = httpx2


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
            import uvloop

            uvloop.run(end_to_end(bench, Path(folder)))
        except ImportError:
            asyncio.run(end_to_end(bench, Path(folder)))
        proofs(bench, Path(folder), bare(bench))
        logs(bench)
    if options.json:
        names = ("name", "bar", "ratio", "low", "high", "note")
        options.json.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in bench.rows], indent=2))


if __name__ == "__main__":
    main()
