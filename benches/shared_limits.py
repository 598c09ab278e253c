"""Shared limits: exact against one bare EVALSHA round trip, leased against a local window. Ratios of one run.

PYTHONPATH=python:tests python benches/shared_limits.py [redis|valkey]
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Charge, SharedLimits
from shared_limits_support import PlainStore, Server, digest

ROUNDS, CALLS = 15, 300
#: Calls of one event loop at the same time; the figures are for all of them.
TOGETHER = 16


async def micros_of(call, calls):
    answer = await call()
    assert getattr(answer, "mode", "exact") in {"exact", "leased"}, (
        "the store failed: this would measure something else"
    )
    began = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - began) / calls * 1e6


async def together(call):
    return (await asyncio.gather(*(call() for _ in range(TOGETHER))))[0]


async def measure(port):
    store = PlainStore(port)
    one = [Charge("a", digest("a"), 1_000_000_000, 60.0)]
    three = [Charge(name, digest(name), 1_000_000_000, 60.0) for name in "abc"]
    narrow = [Charge("n", digest("n"), 65_535, 1.0)]
    exact = SharedLimits(store, processes=4)
    breaking = SharedLimits(BreakingStore(store), processes=4)
    leased = SharedLimits(BreakingStore(store), processes=4, mode="leased")
    bare = "return 1"
    bare_digest = hashlib.sha1(bare.encode(), usedforsecurity=False).hexdigest()
    await store.redis.script_load(bare)
    window = SlidingWindow(1_000_000_000, 60.0)

    async def local():
        window.admit(one[0].key)

    subjects = {
        "bare EVALSHA": (lambda: store.redis.evalsha(bare_digest, 1, b"{d}k"), CALLS),
        "exact, one rule": (lambda: exact.admit(one), CALLS),
        "exact, one rule, quota under 65536": (lambda: exact.admit(narrow), CALLS),
        "exact, three rules": (lambda: exact.admit(three), CALLS),
        "exact behind the breaker": (lambda: breaking.admit(one), CALLS),
        f"bare EVALSHA, {TOGETHER} together": (
            lambda: together(lambda: store.redis.evalsha(bare_digest, 1, b"{d}k")),
            CALLS // TOGETHER,
        ),
        f"exact behind the breaker, {TOGETHER} together": (
            lambda: together(lambda: breaking.admit(one)),
            CALLS // TOGETHER,
        ),
        "leased, one rule": (lambda: leased.admit(one), CALLS * 30),
        "local window": (local, CALLS * 30),
    }
    times = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, (call, calls) in subjects.items():
            times[name].append(await micros_of(call, calls))
    await store.close()
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    server = Server(sys.argv[1] if len(sys.argv) > 1 else "redis", Path(tempfile.mkdtemp()))
    server.start()
    try:
        medians = asyncio.run(measure(server.port))
    finally:
        server.kill()
    for name, micros in medians.items():
        base = "local window" if name.startswith(("leased", "local")) else "bare EVALSHA"
        if name.endswith("together"):
            base = f"bare EVALSHA, {TOGETHER} together"
        print(f"{name:38} {micros:9.2f} µs   {micros / medians[base]:6.2f} x {base}")


if __name__ == "__main__":
    main()
