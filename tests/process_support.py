"""A script in a process of its own, which a test may treat badly: its clock, its limits, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

#: What every script begins with: a configuration, and whatever else the test gives it.
PRELUDE = """
import asyncio, contextlib, json, os, sys, threading, time
from mcp_fastguard import Denied, Guard, GuardFault, ToolRequest
from process_support import stop

config, given = json.load(sys.stdin)

def request(token, tool="add"):
    return ToolRequest.direct(tool=tool, arguments={}, token=token)

def code(work, *arguments):
    try:
        work(*arguments)
    except (Denied, GuardFault) as refusal:
        return refusal.code
    return "allowed"

def authorize(guard, request):
    return asyncio.run(guard.authorize(request))

def tell(**found):
    print(json.dumps(found), flush=True)
"""

#: For a process that the tracing of `make coverage` would disturb, or that may not write what was traced.
UNTRACED = {"COVERAGE_PROCESS_CONFIG": ""}


def stop(pid):
    """Stops a process where it stands, and has seen it stop: until then it may still answer."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until, "the process does not stop"
        time.sleep(0.0005)


def environment(**changes):
    """What this process has, with the tests' own modules in reach."""
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}


def start(script, config, given=None, *, before="", wrapper=(), options=(), **changes):
    """Starts it; whoever does ends it. `before`: what it does before it imports the package."""
    command = [*wrapper, sys.executable, *options, "-c", before + PRELUDE + textwrap.dedent(script)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
    )
    process.stdin.write(json.dumps([config, given]))
    process.stdin.close()
    process.stdin = None
    return process


def run(script, config, given=None, *, timeout=60, **options):
    """Runs it to its end, which must come by itself and without a word of complaint; gives what it told."""
    process = start(script, config, given, **options)
    try:
        output, complaints = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints, complaints
    found = {}
    for line in output.splitlines():
        found |= json.loads(line)
    return found
