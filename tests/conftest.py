"""Fixtures. Nothing here talks to anything but loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from mcp_fastguard import Guard
from shared_limits_support import EXECUTABLES, Server
from support import ISSUER, RESOURCE, Issuer

# The package's own plugin. Where the package is installed, pytest has found it by itself, and takes no plugin twice.
pytest_plugins = [] if entry_points(group="pytest11", name="mcp_fastguard") else ["mcp_fastguard.testing.plugin"]


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def config(issuer: Issuer, tmp_path: Path) -> dict[str, Any]:
    """A configuration for tests to change."""
    return {
        "version": 1,
        "resource": {"url": RESOURCE, "public": ["/health"]},
        "issuers": [{"issuer": ISSUER, "jwks": issuer.jwks, "algorithms": ["ES256"]}],
        "tools": {
            "run_query": {"scopes": ["warehouse:query:read"], "log_arguments": ["sql"]},
            "list_*": {"scopes": ["warehouse:schema:read"]},
            "add": {"open": True},
            "secret": {"scopes": ["secret:use"]},
            "never": {"tier": "block"},
            "ask": {"open": True, "tier": "approve"},
        },
        "audit": {"path": str(tmp_path / "audit")},
    }


@pytest.fixture
def make_guard(config: dict[str, Any]) -> Iterator[Callable[..., Guard]]:
    """Builds guards from the configuration with some tables replaced, and closes them."""
    guards: list[Guard] = []

    def make(**tables: Any) -> Guard:
        guard = Guard.from_dict({**config, **tables})
        guards.append(guard)
        return guard

    yield make
    for guard in guards:
        guard.close()


@pytest.fixture
def guard(make_guard: Callable[..., Guard]) -> Guard:
    return make_guard()


@pytest.fixture
def free_ports() -> int:
    """A port that is free now, and so is the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
        try:
            for number in (port, port + 1):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return port


@pytest.fixture(params=EXECUTABLES)
def own_server(request: Any, tmp_path: Path) -> Iterator[Server]:
    """A Redis or Valkey that the test may break."""
    server = Server(request.param, tmp_path)
    server.start()
    yield server
    server.kill()
