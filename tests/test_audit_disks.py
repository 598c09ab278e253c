"""Room `audit` on disks that fail: full, read-only, and with errors of syncs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap

import pytest

#: Calls until one is refused, mends the disk, calls until one passes, and says what the log holds then.
SCRIPT = textwrap.dedent("""
    import json, os, subprocess, sys, time
    from pathlib import Path
    from mcp_fastguard import Guard, GuardFault, ToolRequest
    from mcp_fastguard._fastguard import verify_log

    config, token, spoil, mend = json.load(sys.stdin)
    guard = Guard.from_dict(config)
    request = ToolRequest.direct(tool="run_query", token=token, arguments={"sql": "x" * 500})
    until = time.monotonic() + 60

    def call():
        try:
            guard.check(request)
        except GuardFault as fault:
            return fault.code, fault.detail
        return None, None

    guard.check(request)
    guard.flush()
    subprocess.run(spoil, shell=True, check=True)
    code = None
    while code is None and time.monotonic() < until:
        code, detail = call()
        time.sleep(0.0005)
    subprocess.run(mend, shell=True, check=True)
    again = code
    while again is not None and time.monotonic() < until:
        again, _ = call()
        time.sleep(0.01)
    statistics = dict(guard.gate.statistics())
    guard.close()
    log = guard.audit_folder
    lines = [json.loads(line) for file in sorted(log.glob("*.jsonl")) for line in file.read_text().splitlines()]
    print(json.dumps({
        "code": code, "detail": detail, "again": again, "verified": verify_log(log)[2:],
        "unrecorded": statistics["audit_unrecorded"],
        "recovered": [line for line in lines if line["event_type"] == "recovered"],
    }))
""")


def run(config, issuer, *command, spoil="true", mend="true"):
    config["limits"] = {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}
    given = json.dumps([config, issuer.token(), spoil, mend])
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT], input=given, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def mounted(config, tmp_path):
    """The command that runs another one where the folder of the logs is a file system of 1 MiB."""
    folder = tmp_path / "audit"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=1m,mode=700 tmpfs {folder}"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False).returncode:
        pytest.skip("no file system can be mounted in a namespace of its own: it takes root")
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


def test_full_file_system_refuses_and_recovers_without_loss(config, issuer, mounted, tmp_path):
    ballast = tmp_path / "audit" / "ballast"
    found = run(config, issuer, *mounted, spoil=f"head -c 700000 /dev/zero > {ballast}", mend=f"rm {ballast}")

    assert (found["code"], found["again"], found["verified"]) == ("audit_failed", None, [True, None])
    assert "No space left" in found["detail"]
    [recovered] = found["recovered"]
    assert recovered["torn_end_cut"] is True


def test_file_system_that_turns_read_only_refuses_and_recovers(config, issuer, mounted, tmp_path):
    folder = tmp_path / "audit"
    # A file that is open for writing keeps the file system from being remounted; one that the log begins does not.
    config["audit"]["max_file_bytes"] = 65_536
    found = run(
        config,
        issuer,
        *mounted,
        spoil=f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}",
        mend=f"umount {folder}",
    )

    assert (found["code"], found["again"], found["verified"]) == ("audit_failed", None, [True, None])
    assert "Read-only" in found["detail"]


def test_full_file_system_lets_calls_run_and_counts_them_where_it_may(config, issuer, mounted, tmp_path):
    ballast = tmp_path / "audit" / "ballast"
    config["audit"]["on_failure"] = "continue_and_count"
    # Nothing is refused, so that the disk is mended once 200 calls went without a record.
    script = SCRIPT.replace("code is None and", 'dict(guard.gate.statistics())["audit_unrecorded"] < 200 and')
    given = json.dumps(
        [
            {**config, "limits": {"rules": [{"per": "principal", "quota": "1000000000/minute"}]}},
            issuer.token(),
            f"head -c 700000 /dev/zero > {ballast}",
            f"rm {ballast}; sleep 3",
        ]
    )
    done = subprocess.run(
        [*mounted, sys.executable, "-c", script], input=given, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert (found["code"], found["verified"]) == (None, [True, None])
    assert found["unrecorded"] >= 200
    assert sum(recovered["unrecorded"] for recovered in found["recovered"]) == found["unrecorded"]


@pytest.fixture
def failing():
    """The command that runs another one, of whose calls of the system some fail."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: tests/interop/strace installs it")

    def command(call, error, when):
        return [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error={error}:when={when}",
        ]

    if subprocess.run([*command("fdatasync", "EIO", "1"), "true"], check=False).returncode:
        pytest.skip("strace may not trace here")
    return command


@pytest.mark.parametrize(("error", "said"), [("EIO", "Input/output error"), ("ENOSPC", "No space left on device")])
def test_sync_that_fails_is_final_for_its_file_and_refuses(config, issuer, failing, error, said):
    # The fifth sync of the process: those before are the probe's, and those of the log's first line, of its birth in the registry,
    # and of the first record.
    found = run(config, issuer, *failing("fdatasync", error, "5"))

    assert (found["code"], found["again"], found["verified"]) == ("audit_failed", None, [True, None])
    assert said in found["detail"]
    [recovered] = found["recovered"]
    assert said in recovered["reason"]
