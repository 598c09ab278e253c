"""Our checkpoints and proofs, read by Go's `golang.org/x/mod/sumdb`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from mcp_fastguard import ToolRequest
from mcp_fastguard._fastguard import cosign, prove_growth, prove_record, witness_key
from support import skip_aloud

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent / "go"


@pytest.fixture(scope="module")
def sumdb(tmp_path_factory):
    """Checks an input; gives what it says."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        skip_aloud("go is not installed")
    binary = tmp_path_factory.mktemp("go") / "check"
    built = subprocess.run([go, "build", "-o", binary, "."], cwd=HERE, capture_output=True, text=True, timeout=300)
    if built.returncode != 0:
        skip_aloud(f"the Go modules could not be fetched or built: {built.stderr[-300:]}")

    def check(given):
        return subprocess.run([binary], input=json.dumps(given), capture_output=True, text=True, timeout=30).stdout

    return check


def checkpoint_of(log, size):
    """The checkpoint of a log, once it covers so many records."""
    until = time.monotonic() + 10
    while True:
        file = log / "checkpoint"
        if file.is_file() and int((text := file.read_text()).split("\n")[1]) >= size:
            return text
        assert time.monotonic() < until
        time.sleep(0.01)


def test_go_accepts_our_notes_and_proofs_and_no_others(sumdb, make_guard, config, issuer):
    guard = make_guard(audit={"path": config["audit"]["path"], "checkpoint_records": 1})

    def calls(count):
        for _ in range(count):
            guard.check(ToolRequest.direct(tool="run_query", arguments={"sql": "select 1"}, token=issuer.token()))
        guard.flush()

    calls(3)
    log = guard.audit_folder
    earlier = checkpoint_of(log, 4)
    calls(600)
    guard.close()
    checkpoint, key = (log / "checkpoint").read_text(), (log / "vkey").read_text().strip()
    size = int(checkpoint.split("\n")[1])
    assert size > 600
    before, now, growth = prove_growth(log, earlier)
    assert (before, now) == (int(earlier.split("\n")[1]), size)
    path = [base64.b64encode(part).decode() for part in growth]
    for index in (0, 1, 255, 256, 511, size - 1):
        head, _, _ = prove_record(log, index).partition("\n\n")
        _, extra, _, *siblings = head.split("\n")
        given = {
            "Key": key,
            "Checkpoint": checkpoint,
            "Earlier": earlier,
            "Growth": path,
            "Index": index,
            "Record": extra.removeprefix("extra "),
            "Path": siblings,
        }
        assert sumdb(given) == "ok\n"
        assert sumdb({**given, "Index": index ^ 1}) != "ok\n"
        assert sumdb({**given, "Record": base64.b64encode(b"{}").decode()}) != "ok\n"
        assert sumdb({**given, "Growth": path[::-1]}) != "ok\n"
        assert sumdb({**given, "Checkpoint": checkpoint.replace(f"\n{size}\n", f"\n{size - 1}\n")}) != "ok\n"


def test_go_accepts_a_note_with_the_signatures_of_log_and_witness(sumdb, make_guard, issuer, tmp_path):
    guard = make_guard()
    guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    guard.close()
    log, memory = guard.audit_folder, tmp_path / "witness"
    key = (log / "vkey").read_text().strip()
    note, size, _ = cosign(log, key, "witness.example", memory)
    head, _, _ = prove_record(log, 1).partition("\n\n")
    _, extra, _, *siblings = head.split("\n")
    given = {"Key": key, "Checkpoint": note, "Index": 1, "Record": extra.removeprefix("extra "), "Path": siblings}

    # A reader that knows the log's key alone passes over the other signature.
    assert sumdb(given) == "ok\n"
    witness = witness_key("witness.example", memory)
    assert sumdb({**given, "Witness": witness}) == "ok\n"
    assert sumdb({**given, "Witness": witness, "Checkpoint": (log / "checkpoint").read_text()}) != "ok\n"
    assert sumdb({**given, "Witness": witness_key("witness.example", tmp_path / "another")}) != "ok\n"
    edited = note.replace(f"\n{size}\n", f"\n{size - 1}\n")
    assert sumdb({**given, "Witness": witness, "Checkpoint": edited}) != "ok\n"
