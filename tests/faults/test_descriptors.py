"""Too few file descriptors, and threads that the system does not give (F33)."""

from __future__ import annotations

import sys

import pytest

import process_support

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes are tested on Linux")


def test_f33_calls_by_one_loop_after_the_other_take_no_more_sockets(shared, issuer):
    """As a script does that ends the loop of each call: nobody closed the connections of the loop before."""
    script = """
guard = Guard.from_dict(config)
def opened():
    authorize(guard, request(given))
    return len(os.listdir("/proc/self/fd"))
first = opened()
most = max(opened() for _ in range(50))
guard.close()
tell(more=most - first)
"""
    assert process_support.run(script, shared, issuer.token())["more"] <= 1
