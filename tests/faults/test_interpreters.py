"""Other interpreters of a process (F20): refused by an ImportError, and the main one is none the worse."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import process_support
from mcp_fastguard import interpreters

OTHERS = """
import importlib, json, sys

interpreters = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")

def refused(name):
    other = interpreters.create()
    interpreters.run_string(other, f'''
import json, sys
sys.path[:] = {sys.path!r}
for module in ("mcp_fastguard", "mcp_fastguard._fastguard"):
    try:
        __import__(module)
    except ImportError as error:
        found = str(error)
    else:
        found = "it was imported"
    print(json.dumps({{f"{name} {{module}}": found}}), flush=True)
''')
    interpreters.destroy(other)

"""


@pytest.mark.parametrize("comes_first", [True, False])
def test_f20_other_interpreters_are_refused_and_the_main_one_goes_on(config, issuer, comes_first):
    before = OTHERS + ("refused('first')\n" if comes_first else "")
    script = """
guard = Guard.from_dict(config)
tell(before=code(guard.check, request(given)))
for number in range(3):
    refused(f"other {number}")
tell(after=code(guard.check, request(given)))
guard.close()
"""

    # Coverage's tracer is one of those that other interpreters cannot load.
    found = process_support.run(script, config, issuer.token(), before=before, **process_support.UNTRACED)

    assert (found.pop("before"), found.pop("after")) == ("allowed", "allowed")
    assert len(found) == (8 if comes_first else 6)
    assert all("subinterpreters" in error for error in found.values()), found


@pytest.mark.parametrize(("current", "is_another"), [(0, False), (1, True)])
def test_f20_interpreter_is_another_where_it_is_not_the_main_one(monkeypatch, current, is_another):
    found = SimpleNamespace(get_current=lambda: current, get_main=lambda: 0)
    monkeypatch.setitem(sys.modules, "_xxsubinterpreters", found)

    assert interpreters._is_another() is is_another


def test_f20_python_that_was_built_without_other_interpreters_is_the_main_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "_xxsubinterpreters", None)

    assert interpreters._is_another() is False
