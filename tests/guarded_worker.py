"""What a process of a pool does: it decides by the guard that it was forked with, or by one of its own."""

from __future__ import annotations

import os
import time

from mcp_fastguard import Guard, ToolRequest

guard = None


def begin(config):
    global guard  # noqa: PLW0603 - as the initialisers of pools do
    if guard is None:
        guard = Guard.from_dict(config)


def decide(token, number):
    allowed = guard.check(ToolRequest.direct(tool="add", arguments={"number": number}, token=token))
    guard.flush()
    # So that one process does not take them all.
    time.sleep(0.01)
    return os.getpid(), str(guard.audit_folder), allowed.subject
