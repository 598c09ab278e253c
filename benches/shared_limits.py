"""Shared limits: exact against one bare EVALSHA round trip, leased against local windows, by themselves and in a guard. Ratios of one run.

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

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import GuardFault
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Charge, ProcessWindows, SharedLimits
from own_store_support import OwnStore
from shared_limits_support import Server, digest, state_of
from support import Issuer

#: Many and short, so that what else the machine does falls on all alike.
ROUNDS, CALLS = 60, 64
#: Calls of one event loop at the same time; the figures are for all of them.
TOGETHER = 16
#: Calls of a loop without a coroutine for each.
AT_ONCE = 300


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


RULES = [
    {"per": "principal", "quota": "1000000000/minute"},
    {"per": "tool", "quota": "1000000000/minute"},
    {"per": "everyone", "quota": "1000000000/minute"},
]


class Guards:
    """Guards with as many rules, with windows of their own and with leases, and a call for each. No audit log: its work is the same
    for both.
    """

    def __init__(self, folder, port):
        issuer = Issuer()
        state = state_of(folder, f"redis://127.0.0.1:{port}/0", processes=4)
        self.all = {}
        for count in (1, 3):
            for mode in ("local", "leased"):
                table = {
                    "version": 1,
                    "resource": {"url": "https://mcp.example.com/mcp"},
                    "issuers": [{"issuer": issuer.issuer, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
                    "tools": {"add": {"open": True}},
                    "limits": {"mode": mode, "rules": RULES[:count]},
                    "audit": {"enabled": False},
                    "state": state,
                }
                self.all[mode, count] = Guard.from_dict(table)
        self.request = ToolRequest.direct(tool="add", arguments={}, token=issuer.token())

    def checks(self, mode, count):
        """Many calls of `check`; where it lacks permits, `authorize` brings some, as a server's layer does."""
        guard, request = self.all[mode, count], self.request

        async def checks():
            check, left = guard.check, AT_ONCE
            while left:
                try:
                    while left:
                        check(request)
                        left -= 1
                except GuardFault as fault:
                    if fault.code != "needs_authorize":
                        raise
                    await guard.authorize(request)

        return checks

    async def close(self):
        for guard in self.all.values():
            await guard.aclose()


async def measure(port, folder):
    # What guards ask; redis-py's own client beside it is the measure.
    store = OwnStore(port)
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

    guards = Guards(folder, port)
    own = ProcessWindows(4)
    by_hand = SharedLimits(BreakingStore(store), processes=4, mode="leased", windows=own)

    async def windows():
        admit, key = window.admit, one[0].key
        for _ in range(AT_ONCE):
            admit(key)

    async def permits():
        take, left = own.permits.take, AT_ONCE
        while left:
            while left and take(one):
                left -= 1
            if left:
                await by_hand.admit(one)

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
        "permits, one window": (permits, CALLS // 10),
        "SlidingWindow.admit": (windows, CALLS // 10),
        **{
            f"guard.check, {mode}, {count} of {count} rules": (guards.checks(mode, count), CALLS // 10)
            for mode, count in guards.all
        },
    }
    times = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        for name, (call, calls) in subjects.items():
            times[name].append(await micros_of(call, calls))
    await store.close()
    await guards.close()
    for name, values in times.items():
        if name.startswith(("permits", "Sliding", "guard")):
            values[:] = [value / AT_ONCE for value in values]
    return times


def base_of(name):
    """What a subject is divided by."""
    if name.startswith("guard"):
        return name.replace("leased", "local")
    if name.startswith(("permits", "Sliding")):
        return "SlidingWindow.admit"
    if name.startswith(("leased", "local")):
        return "local window"
    return f"bare EVALSHA, {TOGETHER} together" if name.endswith("together") else "bare EVALSHA"


def main():
    folder = Path(tempfile.mkdtemp())
    server = Server(sys.argv[1] if len(sys.argv) > 1 else "redis", folder)
    server.start()
    try:
        times = asyncio.run(measure(server.port, folder))
    finally:
        server.kill()
    for name, values in times.items():
        base = base_of(name)
        ratios = [one / other for one, other in zip(values, times[base], strict=True)]
        micros, spread = statistics.median(values), f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:38} {micros:9.2f} µs   {statistics.median(ratios):6.2f} x {base} ({spread})")


if __name__ == "__main__":
    main()
