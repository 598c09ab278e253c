"""A plugin of pytest: runs async tests on asyncio, and writes to a file how each test ended, what it said, and our refusals in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

#: Codes of our refusals in the test that runs.
refusals: list[str] = []

_outcomes: dict[str, list] = {}


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


def pytest_runtest_setup():
    refusals.clear()


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        found = _outcomes.setdefault(report.nodeid, ["passed", "", []])
        if report.outcome != "passed":
            found[:] = [report.outcome, str(report.longrepr)[-2000:], list(refusals)]


def pytest_sessionfinish():
    Path(os.environ["FASTGUARD_OUTCOMES"]).write_text(json.dumps(_outcomes), encoding="utf-8")
