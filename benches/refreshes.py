"""What fetching keys in the background adds to the p99 of calls, each with a turn of the event loop.

Phases with a fetch and without alternate. A fetch in each half second is far more than there are: a set lives for minutes. Run it
by ``make bench``. ``--smoke`` runs it once and briefly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

from mcp_fastguard import Guard, ToolRequest  # noqa: E402
from servers_support import free_port, serving  # noqa: E402
from support import ISSUER, RESOURCE, Issuer  # noqa: E402

#: A phase lasts so many seconds, and has one fetch or none.
PHASE = 0.5


def fetches(guard):
    return guard.key_status()[ISSUER]["fetches"]


async def phase(guard, token, taken, *, with_fetches):
    before = fetches(guard)
    if with_fetches:
        guard.refresh_keys()
    end = time.perf_counter() + PHASE
    began = time.perf_counter()
    while began < end:
        await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=token))
        await asyncio.sleep(0)
        now = time.perf_counter()
        taken.append(now - began)
        began = now
    while with_fetches and fetches(guard) == before:  # noqa: ASYNC110 - another thread fetches
        await asyncio.sleep(0.01)


async def measured(guard, token, phases):
    await guard.authorize(ToolRequest.direct(tool="add", arguments={}, token=token))
    with_fetches, without = [], []
    for _ in range(phases):
        await phase(guard, token, without, with_fetches=False)
        await phase(guard, token, with_fetches, with_fetches=True)
    return with_fetches, without


def percentile(taken, part):
    return sorted(taken)[int(len(taken) * part)] * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    phases = 1 if parser.parse_args().smoke else 40
    issuer = Issuer()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jwks.json").write_text(json.dumps(issuer.jwks))
        port = free_port()
        # In a process of its own, for what it does is none of the guard's work.
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", folder]
        table = {
            "version": 1,
            "resource": {"url": RESOURCE},
            "issuers": [
                {
                    "issuer": ISSUER,
                    "jwks_uri": f"http://127.0.0.1:{port}/jwks.json",
                    "allow_http_loopback": True,
                    "algorithms": ["ES256"],
                }
            ],
            "tools": {"add": {"open": True}},
            "limits": {"rules": [{"per": "principal", "quota": "4000000000/24h"}]},
            "audit": {"enabled": False},
        }
        with (
            serving(command, port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
            Guard.from_dict(table) as guard,
        ):
            sides = asyncio.run(measured(guard, issuer.token(exp=int(time.time()) + 3_000), phases))
            print(f"{fetches(guard)} fetches; microseconds of a call and a turn of the loop, with fetches and without")
    for part in (0.5, 0.9, 0.99, 0.999):
        ours, others = (percentile(taken, part) for taken in sides)
        print(f"p{part * 100:g}: {ours:10.1f} {others:10.1f} {ours - others:+10.1f}")


if __name__ == "__main__":
    main()
