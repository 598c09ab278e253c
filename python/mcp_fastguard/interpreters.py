"""Refuses to be imported by any interpreter of a process but the main one: types and locks of the core are the process's.

From Python 3.12 on the compiled module says so itself, and Python refuses it. 3.11 does not know how to ask.
"""

from __future__ import annotations

import importlib
import sys


def _is_another() -> bool:
    try:
        interpreters = importlib.import_module("_xxsubinterpreters")
    except ImportError:
        # A Python that was built without it makes no other interpreters by itself.
        return False
    return bool(interpreters.get_current() != interpreters.get_main())


if sys.version_info < (3, 12) and _is_another():
    # Another interpreter can load no tracer; tests/faults/test_interpreters.py sees it refuse.
    raise ImportError("mcp_fastguard does not support loading in subinterpreters")  # pragma: no cover
