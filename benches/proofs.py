"""What a proof of possession costs: a part of ``compare.py``."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OKPKey

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "python"))

from mcp_fastguard import Guard, ToolRequest  # noqa: E402
from mcp_fastguard.binding import DPoPVerifier  # noqa: E402
from mcp_fastguard.errors import Denied  # noqa: E402
from mcp_fastguard.token import KeySet as OurKeySet  # noqa: E402
from mcp_fastguard.token import TokenVerifier  # noqa: E402

#: One principal may hold 1/64 of the store.
ENTRIES = 100_000_000
#: Proofs in a block.
COUNT = 400


class Prover:
    """A client that makes proofs in advance, each for one call."""

    def __init__(self, claims, algorithm="ES256"):
        self.algorithm, self.issuer, self.url = algorithm, claims["iss"], claims["aud"]
        self.key = ECKey.generate_key("P-256") if algorithm == "ES256" else OKPKey.generate_key("Ed25519")
        signer = ECKey.generate_key("P-256", {"kid": "key-1", "use": "sig", "alg": "ES256"})
        self.jwks = KeySet([signer]).as_dict(private=False)
        found = {**claims, "cnf": {"jkt": self.key.thumbprint()}}
        self.token = jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, found, signer)
        digest = hashlib.sha256(self.token.encode()).digest()
        self.hash = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def proofs(self, count, **more):
        header = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.key.as_dict(private=False)}
        registry, now = jws.JWSRegistry(algorithms=[self.algorithm]), int(time.time())
        for _ in range(count):
            found = {"jti": os.urandom(9).hex(), "htm": "POST", "htu": self.url, "iat": now, "ath": self.hash, **more}
            yield jws.serialize_compact(header, json.dumps(found).encode(), self.key, registry=registry)

    def verified(self):
        keys = OurKeySet.from_jwks(self.jwks)
        verifier = TokenVerifier(issuer=self.issuer, audience=self.url, keys=keys, algorithms=["ES256"])
        return verifier.verify(self.token)


class Bare:
    """A process that verifies bare, by aws-lc-rs with a parsed key, when it is asked to."""

    def __init__(self, *, smoke):
        profile = "quick" if smoke else "release"
        build = ["cargo", "build", "--quiet", "--profile", profile, "-p", "fastguard-benches", "--example", "bare"]
        subprocess.run(build, cwd=ROOT, check=True)
        binary = ROOT / "target" / profile / "examples" / "bare"
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def took(self, algorithm, count, threads=1):
        """Nanoseconds for so many signatures by each of the threads."""
        return self._asked(algorithm, count, threads)[0]

    def worked(self, algorithm, count):
        """Nanoseconds for which it had a processor for so many."""
        took, had = self._asked(algorithm, count, 1)
        return had or took

    def _asked(self, algorithm, count, threads):
        self.process.stdin.write(f"{algorithm} {threads} {count}\n")
        self.process.stdin.flush()
        return [int(word) for word in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def proofs(bench, folder, claims):
    """A whole DPoP check from Python: cached token, fresh proof, nonce, store of used proofs."""
    bare = Bare(smoke=bench.scale < 1)
    for algorithm in ("ES256", "Ed25519"):
        prover = Prover(claims, algorithm)
        against_bare(bench, prover, bare)
        threads_against_bare(bench, prover, bare)
    prover = Prover(claims)
    guard_against_bare(bench, prover, bare, folder)
    bare.close()
    against_auth0(bench, prover)


def checks(prover, fresh, **options):
    """A check of the next proof, and what makes so many of them."""
    token, secret = prover.verified(), os.urandom(32)
    verifier = DPoPVerifier(replay_entries=ENTRIES, nonce_secret=secret, **options)
    text, url = prover.token, prover.url

    def check():
        verifier.confirm(token, fresh.pop(), method="POST", url=url, access_token=text)

    def refill(count):
        fresh[:] = prover.proofs(count, nonce=verifier.nonce())

    return check, refill


def alternating(bench, name, check, refill, bare, algorithm="ES256"):
    """By the time for which each had a processor: others that use the machine meanwhile count on neither side."""
    count = bench.calls(COUNT)
    ours, theirs, ratios = [], [], []
    for _ in range(bench.blocks):
        refill(count)
        start = time.thread_time_ns()
        for _ in range(count):
            check()
        one = (time.thread_time_ns() - start) / count
        other = bare.worked(algorithm, count) / count
        ours.append(one)
        theirs.append(other)
        ratios.append(one / other)
    note = f"{statistics.median(ours):,.0f} ns against {statistics.median(theirs):,.0f} ns"
    bench.row(name, "<= 1.12", statistics.median(ratios), min(ratios), max(ratios), note)


def against_bare(bench, prover, bare):
    check, refill = checks(prover, [])
    name = f"DPoPVerifier.confirm {prover.algorithm}, with nonce, over bare aws-lc-rs"
    alternating(bench, name, check, refill, bare, prover.algorithm)


def guard_against_bare(bench, prover, bare, folder):
    """The whole of rooms 0 to 4 in the place of room 2 alone: headers, body, limits and policy too."""
    guard, fresh = guarded(prover, folder), []
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_query","arguments":{}}}'
    authorization = b"DPoP " + prover.token.encode()

    def check():
        headers = [(b"authorization", authorization), (b"dpop", fresh.pop().encode())]
        guard.check(ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body))

    def refill(count):
        fresh[:] = prover.proofs(1)
        try:
            check()
        except Denied as denied:
            fresh[:] = prover.proofs(count, nonce=denied.nonce)

    alternating(bench, "guard.check of a request with a proof over bare aws-lc-rs", check, refill, bare)
    guard.close()


def guarded(prover, folder):
    """A guard that wants nonces."""
    secret = folder / "nonce-secret"
    secret.write_bytes(os.urandom(32))
    dpop = {
        "mode": "required",
        "nonce": "required",
        "nonce_secret_file": str(secret),
        "replay_entries": ENTRIES,
    }
    return Guard.from_dict(
        {
            "version": 1,
            "resource": {"url": prover.url},
            "issuers": [{"issuer": prover.issuer, "jwks": prover.jwks, "algorithms": ["ES256"]}],
            "dpop": dpop,
            "limits": {"rules": [{"per": "principal", "quota": "4000000000/minute"}]},
            "tools": {"run_query": {"open": True}},
            "audit": {"enabled": False},
        }
    )


def against_auth0(bench, prover):
    """It knows no nonces, remembers no proofs and compares no thumbprint, so one proof is as good as many."""
    try:
        from auth0_api_python import ApiClient, ApiClientOptions
    except ImportError:
        print("SKIPPED: auth0-api-python is not installed (requirements/peers.txt)")
        return
    fresh = []
    check, refill = checks(prover, fresh)
    client = ApiClient(ApiClientOptions(domain="auth.example.com", audience=prover.url))
    (again,) = prover.proofs(1)

    def theirs():
        try:
            client.verify_dpop_proof(prover.token, again, "POST", prover.url).send(None)
        except StopIteration:
            return
        raise RuntimeError("it waits for something")

    def before():
        refill(bench.calls(COUNT))

    bench.pair("DPoPVerifier.confirm, faster than auth0-api-python by", ">= 2", check, theirs, COUNT, 100, before)


def threads_against_bare(bench, prover, bare):
    """What a second thread of Python gains, as a share of what it gains for bare verification."""
    count = bench.calls(1000)
    token, verifier = prover.verified(), DPoPVerifier(replay_entries=ENTRIES)
    text, url = prover.token, prover.url

    def rate(number):
        pools = [list(prover.proofs(count)) for _ in range(number)]

        def work(pool):
            for proof in pool:
                verifier.confirm(token, proof, method="POST", url=url, access_token=text)

        workers = [threading.Thread(target=work, args=(pool,)) for pool in pools]
        start = time.perf_counter_ns()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return number / (time.perf_counter_ns() - start)

    gain_against_bare(bench, f"with proofs {prover.algorithm}", rate, bare, prover.algorithm, count)


def gain_against_bare(bench, what, rate, bare, algorithm, count):
    """A row: what a second thread gains, by the rate of so many threads, as a share of what it gains for bare verification."""
    gains, bare_gains = [], []
    for _ in range(max(3, bench.blocks // 3)):
        gains.append(rate(2) / rate(1))
        bare_gains.append(2 * bare.took(algorithm, count) / bare.took(algorithm, count, threads=2))
    shares = [gain / bare_gain for gain, bare_gain in zip(gains, bare_gains, strict=True)]
    note = f"{statistics.median(gains):.2f} times one thread's, against {statistics.median(bare_gains):.2f}"
    name = f"two threads' gain {what} over that of bare verification"
    bench.row(name, ">= 0.9", statistics.median(shares), min(shares), max(shares), note)
