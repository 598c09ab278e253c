"""The verdict on counts of instructions; the counting itself is Valgrind's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benches" / "instructions.py"


@pytest.fixture(scope="module")
def instructions():
    known = list(sys.path)
    spec = importlib.util.spec_from_file_location("instructions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = known
    return module


def test_growth_of_a_twentieth_is_allowed_and_more_is_told(instructions):
    base = {"a": 1000.0, "b": 1000.0, "gone": 1.0}

    assert instructions.grown({"a": 1050.0, "b": 1050.1, "new": 9.0}, base) == ["b"]


@pytest.mark.parametrize("method", ["empty", "admit", "check", "silent_check", "http_check", "refusal", "served"])
def test_each_counted_work_runs(instructions, method):
    assert method in {method for method, _ in instructions.FIGURES.values()}
    # In a process of its own: it turns the garbage collector off.
    subprocess.run([sys.executable, str(SCRIPT), "--work", method, "3"], check=True, timeout=60)
