"""Fixtures of faults."""

from __future__ import annotations

import pytest

from keys_support import Loopback
from shared_limits_support import Server


@pytest.fixture
def own_server(tmp_path):
    """A store that the test may break. Of one kind: what is tested here is this side of it, and one is as silent as the other."""
    server = Server("valkey", tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def shared(config, own_server, tmp_path):
    """A configuration whose windows other processes share."""
    (tmp_path / "state.secret").write_text("thirty-two bytes that all of them know")
    state = {"processes": 4, "secret_file": str(tmp_path / "state.secret"), "budget": "1s"}
    return {
        **config,
        "limits": {"mode": "exact", "rules": [{"per": "principal", "quota": "1000000/minute"}]},
        "state": {"url": f"redis://127.0.0.1:{own_server.port}", **state},
    }


@pytest.fixture
def loopback():
    with Loopback() as server:
        yield server
