"""One of the processes that hammer a shared limit: arguments PORT NUMBER MODE QUOTA WINDOW SECONDS, and when to begin on stdin."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from mcp_fastguard.state.limits import Admitted, Charge, SharedLimits
from shared_limits_support import PlainStore, digest


async def main(port, number, mode, *, quota, window, seconds):
    store = PlainStore(port)
    limits = SharedLimits(store, processes=8, **({} if mode == "exact" else {"mode": mode}))
    one = Charge("shared", digest("shared"), quota, window)
    admitted, modes = [], set()
    # The first half of the processes asks without a rest, the others now and then.
    rest = 0.0005 if number < 4 else 0.05
    await store.redis.ping()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begin = float(sys.stdin.readline())
    await asyncio.sleep(begin - time.monotonic())
    while time.monotonic() < begin + seconds:
        sent = time.monotonic()
        answer = await limits.admit([one])
        modes.add(answer.mode)
        if isinstance(answer, Admitted):
            admitted.append((sent, time.monotonic()))
        await asyncio.sleep(rest)
    await store.close()
    json.dump({"admitted": admitted, "modes": sorted(modes)}, sys.stdout)


if __name__ == "__main__":
    port, number, mode, quota, window, seconds = sys.argv[1:]
    asyncio.run(main(int(port), int(number), mode, quota=int(quota), window=float(window), seconds=float(seconds)))
