"""What refusing costs, as ratios of one run: each kind of bad token to a good one, names that meet in hashes to random ones.

Run it by ``make bench``. ``--smoke`` runs every part once. The bounds are asserted by tests/faults/test_cost.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

from attack_support import checked, colliding, scattered, tokens  # noqa: E402
from mcp_fastguard import Guard  # noqa: E402
from mcp_fastguard.limits import SlidingWindow  # noqa: E402
from support import ISSUER, RESOURCE, Issuer  # noqa: E402


def least(works, rounds):
    """The least time of this thread that each takes, in nanoseconds, in turns."""
    found = [float("inf")] * len(works)
    for _ in range(rounds):
        for at, work in enumerate(works):
            began = time.thread_time_ns()
            work()
            found[at] = min(found[at], time.thread_time_ns() - began)
    return found


def refusals(rounds):
    issuer = Issuer()
    guard = Guard.from_dict(
        {
            "version": 1,
            "resource": {"url": RESOURCE},
            "issuers": [{"issuer": ISSUER, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
            "tools": {"add": {"open": True}},
            "limits": {"rules": [{"per": "principal", "quota": "4000000000/24h"}]},
            "audit": {"enabled": False},
        }
    )
    good, bad = iter([issuer.token() for _ in range(rounds)]), tokens(issuer)
    works = [lambda: checked(guard, next(good)), *(lambda token=token: checked(guard, token) for token in bad.values())]
    first, *costs = least(works, rounds)
    print(f"a good ES256 token that was not seen before: {first / 1e3:.1f} us of this thread")
    for name, cost in sorted(zip(bad, costs, strict=True), key=lambda row: -row[1]):
        print(f"{cost / first:6.2f} of it: {name} ({checked(guard, bad[name])})")


def meetings(count, rounds):
    def admitted(names):
        window = SlidingWindow(quota=1, window=60.0)
        for name in names:
            window.admit(name)

    for kind, names in colliding(count).items():
        others = scattered(count, max(8, len(names[-1])))
        met, random = least([lambda names=names: admitted(names), lambda others=others: admitted(others)], rounds)
        print(f"{met / random:6.2f} of random ones: {count:,} names that meet {kind}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    refusals(2 if smoke else 300)
    meetings(1_000 if smoke else 1_000_000, 1 if smoke else 3)


if __name__ == "__main__":
    main()
