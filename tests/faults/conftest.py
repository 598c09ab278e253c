"""Fixtures of faults."""

from __future__ import annotations

import pytest

from keys_support import Loopback
from shared_limits_support import Server, state_of


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
    return {
        **config,
        "limits": {"mode": "exact", "rules": [{"per": "principal", "quota": "1000000/minute"}]},
        "state": state_of(tmp_path, f"redis://127.0.0.1:{own_server.port}", processes=4),
    }


@pytest.fixture
def loopback():
    with Loopback() as server:
        yield server
