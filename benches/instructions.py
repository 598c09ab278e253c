"""Instructions that the hot path takes, Python's own included, counted by Valgrind: the same on a busy machine as on a quiet one.

Each figure is that of one call: what the thread of the caller took for many calls, less what it took for few, so that neither the
start of the interpreter nor the writer of the log is in it. The hash seed is fixed and the garbage collector is off; what remains
differs by less than a hundredth from run to run. Run it by ``make instructions``, which builds with the release profile first.

An instruction is not a time: memory that is not in a cache costs more than many of them. It says what a change has added.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: The checkout that is measured; another commit's by `--root`, with the calls of this file.
ROOT = Path(os.environ.get("MEASURED_ROOT") or Path(__file__).parents[1])
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

from mcp_fastguard import Denied, Guard, ToolRequest  # noqa: E402
from mcp_fastguard._fastguard import empty_call  # noqa: E402
from mcp_fastguard.limits import SlidingWindow  # noqa: E402
from support import ISSUER, RESOURCE, Issuer  # noqa: E402

#: A growth beyond this of one figure needs a reason in its commit.
ALLOWED = 0.05


class Setting:
    """A guard with one scope rule, one limit and a token that it has seen before."""

    def __init__(self, folder: Path) -> None:
        issuer = Issuer()
        self.token = issuer.token()
        table = {
            "version": 1,
            "resource": {"url": RESOURCE},
            "issuers": [{"issuer": ISSUER, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
            "limits": {"rules": [{"per": "principal", "quota": "4000000000/minute"}]},
            "tools": {"run_query": {"scopes": ["warehouse:query:read"], "read_only": True}},
        }
        self.guard = Guard.from_dict({**table, "audit": {"path": str(folder / "audit")}})
        self.silent = Guard.from_dict({**table, "audit": {"enabled": False}})
        arguments = {"sql": "select 1"}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        self.body = json.dumps({**message, "params": {"name": "run_query", "arguments": arguments}}).encode()
        self.headers = [
            (b"host", b"mcp.example.com"),
            (b"accept", b"application/json, text/event-stream"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            (b"mcp-protocol-version", b"2026-07-28"),
            (b"mcp-method", b"tools/call"),
            (b"mcp-name", b"run_query"),
            (b"authorization", b"Bearer " + self.token.encode()),
        ]
        self.window = SlidingWindow(quota=4_000_000_000, window=60.0)
        self.arguments = arguments

    def empty(self) -> None:
        empty_call("alice")

    def admit(self) -> None:
        self.window.admit("alice")

    def check(self) -> None:
        self.guard.check(ToolRequest.direct(tool="run_query", arguments=self.arguments, token=self.token))

    def silent_check(self) -> None:
        self.silent.check(ToolRequest.direct(tool="run_query", arguments=self.arguments, token=self.token))

    def http_check(self) -> None:
        self.guard.check(
            ToolRequest.http(method="POST", path="/mcp", headers=self.headers, body=self.body, peer="192.0.2.7")
        )

    def refusal(self) -> None:
        try:
            self.silent.check(ToolRequest.direct(tool="run_query", arguments=self.arguments, token="a.b.c"))
        except Denied:
            return
        raise AssertionError("garbage was let through")

    async def served(self, count: int) -> None:
        """The layer in front of an app that does nothing but answer."""

        async def app(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        statuses = []

        async def receive():
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        layer = self.guard.asgi(app)
        self.guard.start()
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "root_path": ""}
        for _ in range(count):
            await layer({**scope, "headers": list(self.headers), "client": ("192.0.2.7", 1234)}, receive, send)
        assert statuses == [200] * count, set(statuses)


#: Name -> method of :class:`Setting`, and how many calls are few enough to be counted in seconds.
FIGURES = {
    "an empty call": ("empty", 20_000),
    "SlidingWindow.admit": ("admit", 20_000),
    "guard.check, token seen before": ("check", 2_000),
    "  the same without audit": ("silent_check", 2_000),
    "ToolRequest.http and guard.check": ("http_check", 1_000),
    "a refusal of garbage": ("refusal", 2_000),
    "the ASGI layer, a call through it": ("served", 500),
}


def work(method: str, count: int) -> None:
    """What is counted, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder))
        found = getattr(setting, method)
        gc.collect()
        gc.freeze()
        gc.disable()
        if asyncio.iscoroutinefunction(found):
            asyncio.run(found(count))
        else:
            for number in range(count):
                if number % 4_096 == 4_095:
                    # The queue of the log holds less than Valgrind's one thread at a time would let pile up.
                    setting.guard.flush(600)
                found()
        # Closing waits for two seconds, which is less than the writer needs here.
        setting.guard.flush(600)
        setting.guard.close()


def counted(root: Path, method: str, count: int) -> int:
    """Instructions of the caller's thread for so many calls and all that goes before."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts"
        subprocess.run(
            [
                *("valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes"),
                f"--callgrind-out-file={output}",
                *(sys.executable, __file__, "--work", method, str(count)),
            ],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "MEASURED_ROOT": str(root.absolute())},
        )
        first = output.with_name("counts-01") if output.with_name("counts-01").exists() else output
        totals = next(line for line in first.read_text().splitlines() if line.startswith("totals:"))
        return int(totals.split()[1])


def measured(root: Path, method: str, calls: int) -> float:
    return (counted(root, method, 3 * calls) - counted(root, method, calls)) / (2 * calls)


def grown(found: dict[str, float], base: dict[str, float]) -> list[str]:
    """The figures that have grown beyond what is allowed."""
    return [name for name, figure in found.items() if name in base and figure > base[name] * (1 + ALLOWED)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--base", type=Path, help="figures of another commit: exits with 1 where one has grown by a twentieth"
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="another checkout, with its extension built, to measure"
    )
    parser.add_argument("--work", nargs=2, metavar=("METHOD", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], int(options.work[1]))
        return 0
    if shutil.which("valgrind") is None:
        print("Valgrind is needed; nothing was counted", file=sys.stderr)
        return 1
    base = json.loads(options.base.read_text()) if options.base else {}
    found = {}
    began = time.monotonic()
    for name, (method, calls) in FIGURES.items():
        found[name] = measured(options.root, method, calls)
        against = f"  {found[name] / base[name] - 1:+.1%}" if name in base else ""
        print(f"{name:40} {found[name]:10,.0f}{against}", flush=True)
    print(f"instructions a call, counted in {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    worse = grown(found, base)
    for name in worse:
        print(
            f"{name} takes over {ALLOWED:.0%} more instructions than before: its commit needs a reason", file=sys.stderr
        )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
