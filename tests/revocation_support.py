"""What tests of revocations share: a call of a guard, and how soon its outcome changes."""

from __future__ import annotations

import time

from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import Denied

#: What is said elsewhere holds by then, in seconds; long, so that a loaded machine decides nothing.
SOON = 20.0


def ask(issuer, tool="add", **claims):
    return ToolRequest.direct(tool=tool, arguments={}, token=issuer.token(**claims))


def code(guard, request):
    try:
        guard.check(request)
    except Denied as denied:
        return denied.code
    return "allowed"


def becomes(expected, guard, request, within=SOON):
    """Whether the outcome is this within the time."""
    until = time.monotonic() + within
    while (found := code(guard, request)) != expected:
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return True
