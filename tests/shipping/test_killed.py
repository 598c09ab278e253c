"""The shipper is killed while a guard writes: every record arrives, some of them twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard._fastguard import verify_log


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1_800)])])
def test_shipper_that_is_killed_again_and_again_loses_nothing(config, issuer, tmp_path, kills):
    path = tmp_path / "fastguard.toml"
    out = tmp_path / "out"
    base = tmp_path / "audit"
    place = {"sink": "file", "path": str(out)}
    audit = {"path": str(base), "max_file_bytes": 65_536, "checkpoint_interval": "1s"}
    limits = {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}
    with Guard.from_dict({**config, "audit": audit, "limits": limits}) as guard:
        path.write_text(toml_of(config, base, place))
        stop = threading.Event()
        writer = threading.Thread(target=write, args=(guard, issuer.token(), stop))
        writer.start()
        for _ in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-m", "mcp_fastguard.cli", "audit", "ship", "--config", str(path)],
                stderr=subprocess.DEVNULL,
            )
            time.sleep(random.uniform(0.4, 1.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
        stop.set()
        writer.join()
    done = subprocess.run(
        [sys.executable, "-m", "mcp_fastguard.cli", "audit", "ship", "--once", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr

    log = guard.audit_folder
    lines = [text for file in sorted(log.glob("*.jsonl")) for text in file.read_text().splitlines()]
    assert len(lines) == verify_log(log)[0]
    shipped = [text for file in sorted((out / log.name).glob("*.jsonl")) for text in file.read_text().splitlines()]
    records = [text for text in shipped if json.loads(text)["event_type"] != "checkpoint"]
    # All of them, byte for byte; and in order, but for what came again.
    assert set(records) == set(lines)
    first = list(dict.fromkeys(records))
    assert first == lines
    notes = [json.loads(text) for text in shipped if json.loads(text)["event_type"] == "checkpoint"]
    assert verify_log(log, (log / "vkey").read_text().strip(), notes[-1]["note"])[3] is None


def write(guard, token, stop):
    while not stop.is_set():
        guard.check(ToolRequest.direct(tool="add", arguments={"a": 1}, token=token))
        time.sleep(0.001)


def toml_of(config, base, place):
    from mcp_fastguard.cli.toml import toml_text

    lines = [
        "version = 1",
        "[resource]",
        f"url = {toml_text(config['resource']['url'])}",
        "[audit]",
        f"path = {toml_text(str(base))}",
        "[[audit.ship]]",
    ]
    return "\n".join([*lines, *(f"{key} = {toml_text(value)}" for key, value in place.items())])
