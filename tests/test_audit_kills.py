"""Room `audit`: processes that are killed under load, and what the next one finds."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from mcp_fastguard import Guard
from mcp_fastguard._fastguard import verify_log

#: Calls without end, and tells of each once it was answered.
SCRIPT = textwrap.dedent("""
    import itertools, json, os, sys, threading
    from mcp_fastguard import Guard, GuardFault, ToolRequest
    config, token = json.load(sys.stdin)
    guard = Guard.from_dict(config)
    def work(worker):
        for number in itertools.count():
            name = f"{worker}.{number}"
            try:
                guard.check(ToolRequest.direct(tool="run_query", token=token, arguments={"sql": name}))
            except GuardFault as fault:
                if fault.code != "audit_queue_full":
                    raise
            else:
                os.write(1, name.encode() + b"\\n")
    for worker in range(3):
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    threading.Event().wait()
""")


def killed(config, token, seconds):
    """The calls that a process has answered when it is killed some time after its first answer."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(json.dumps([config, token]).encode())
        process.stdin.close()
        first = process.stdout.readline()
        killer = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os, time; time.sleep({seconds}); os.kill({process.pid}, {int(signal.SIGKILL)})",
            ]
        )
        answered = [first, *process.stdout]
        killer.wait()
    # A name that was told in part counts for none.
    return [line.decode().strip() for line in answered if line.endswith(b"\n")]


def recorded(log):
    lines = [line for file in sorted(log.glob("*.jsonl")) for line in file.read_bytes().splitlines()]
    records = [json.loads(line) for line in lines]
    return [record["input_params"]["sql"] for record in records if record["event_type"] == "decision"]


def assert_rounds(config, issuer, tmp_path, durability, rounds):
    config["limits"] = {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}
    chance = random.Random(8)
    for number in range(rounds):
        place = tmp_path / f"audit-{number}"
        config["audit"] = {
            "path": str(place),
            "durability": durability,
            "max_file_bytes": 65_536,
            "checkpoint_records": 200,
        }
        answered = killed(config, issuer.token(), chance.uniform(0.0, 0.25))
        [log] = [folder for folder in place.glob("2*") if list(folder.glob("*.jsonl"))]
        assert verify_log(log)[3] is None

        Guard.from_dict(config).close()

        assert verify_log(log)[2:] == (True, None)
        found = recorded(log)
        lost = set(answered) - set(found)
        if durability == "each":
            assert not lost
        else:
            assert len(lost) <= 65_536
            # What is lost is the end: of each worker, nothing after the first lost call is there.
            for worker in "012":
                of_worker = [name for name in found if name.startswith(worker)]
                assert of_worker == [f"{worker}.{number}" for number in range(len(of_worker))]


@pytest.mark.parametrize("durability", ["each", "batched"])
def test_killed_processes_lose_no_more_than_is_promised(config, issuer, tmp_path, durability):
    assert_rounds(config, issuer, tmp_path, durability, 3)


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["each", "batched"])
def test_100_killed_processes_lose_no_more_than_is_promised(config, issuer, tmp_path, durability):
    assert_rounds(config, issuer, tmp_path, durability, 100)
