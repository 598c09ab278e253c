"""Fixtures of the embedded authorization server, by hand and by clock."""

from __future__ import annotations

import pytest

from login_support import ISSUER, READ, RESOURCE, WRITE, Browser, FakeClock
from mcp_fastguard.dev import AuthorizationServer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return AuthorizationServer(ISSUER, RESOURCE, scopes=[READ, WRITE], clock=clock)


@pytest.fixture
def revoked(server):
    found = []
    server.on_revoked(found.append)
    return found


@pytest.fixture
def browser(server):
    found = Browser(server)
    assert found.register().status_code == 201
    return found
