"""What ``import mcp_fastguard`` brings with it: no SDK, no web framework, no client of HTTP."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "fastmcp", "mcp", "mcp_types", "starlette", "fastapi", "uvicorn", "pydantic", "pydantic_core", "pydantic_settings", "anyio", "httpx2",
    "httpcore2", "httpx", "cryptography", "jwt", "joserfc", "typer", "rich", "redis", "prometheus_client", "opentelemetry",
}  # fmt: skip


def imported(program):
    """Top-level names of the modules that a program has imported at its end."""
    program += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    # Files of site-packages that run at every start are no part of the import.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


#: Modules of the standard library that cost a third of the import, and that not everyone who imports the package needs.
COSTLY = {"asyncio", "ssl", "socket", "subprocess", "concurrent", "multiprocessing", "http", "email", "unittest"}


def test_import_leaves_out_what_costs_most():
    assert imported("import mcp_fastguard") & COSTLY == set()
    assert imported("from mcp_fastguard.limits import SlidingWindow") & COSTLY == set()


def test_import_of_what_costs_most_would_be_seen():
    assert {"asyncio", "ssl", "socket"} <= imported("import mcp_fastguard.verifier") & COSTLY


@pytest.mark.parametrize(
    "program",
    [
        "import mcp_fastguard",
        "from mcp_fastguard.token import KeySet, TokenVerifier, verify_compact",
        "from mcp_fastguard.limits import SlidingWindow",
        "import mcp_fastguard.transport.asgi",
    ],
)
def test_import_brings_nothing_heavy(program):
    found = imported(program)
    assert "mcp_fastguard" in found
    assert found & HEAVY == set()


def test_import_of_an_sdk_would_be_seen():
    assert {"mcp", "pydantic", "starlette"} <= imported("import mcp_fastguard.transport.mcp_sdk") & HEAVY
