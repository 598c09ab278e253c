"""Real servers on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shared_limits_support import EXECUTABLES, Server


@pytest.fixture(scope="session", params=EXECUTABLES)
def shared_server(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests share and empty."""
    server = Server(request.param, tmp_path_factory.mktemp(request.param))
    server.start()
    yield server
    server.kill()
