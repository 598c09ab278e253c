"""Fixtures of the keys."""

from __future__ import annotations

import pytest

from keys_support import FakeClock, Loopback, Sink, ToldIssuer
from mcp_fastguard.keys import KeyService, Pace


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def told():
    return ToldIssuer()


@pytest.fixture
def sink():
    """Held for the whole test: services hold theirs weakly."""
    return Sink()


@pytest.fixture
def make_service():
    """Builds services and ends them, which must take no longer than promised."""
    services = []

    def make(**options):
        services.append(KeyService(**options))
        return services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def service(make_service, told, clock):
    # Retries at once, so that no test waits for a timer; what the times are, test_pace.py says.
    return make_service(fetch=told, clock=clock, pace=Pace(back_off_first=0.0, back_off_most=0.0))


@pytest.fixture
def loopback():
    with Loopback() as server:
        yield server
