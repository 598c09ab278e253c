"""Fixtures for pytest. Installed packages are found by their entry point; otherwise ``-p mcp_fastguard.testing.plugin``.

What a fixture needs is imported when a test asks for it: pytest loads this module in every project that has the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mcp_fastguard import GuardConfig
    from mcp_fastguard.testing import FakeClock, GuardUnderTest, Issuer

__all__ = ["fastguard_clock", "fastguard_guard", "fastguard_issuer", "make_token"]


@pytest.fixture(scope="session")
def fastguard_issuer() -> Issuer:
    """Signs the tokens of the whole run."""
    from mcp_fastguard.testing import Issuer  # noqa: PLC0415

    return Issuer()


@pytest.fixture
def fastguard_clock() -> FakeClock:
    """The time of a test's guards. It stands still until the test advances it."""
    from mcp_fastguard.testing import FakeClock  # noqa: PLC0415

    return FakeClock()


@pytest.fixture
def fastguard_guard(
    fastguard_issuer: Issuer, fastguard_clock: FakeClock, tmp_path: Path
) -> Iterator[Callable[[str | Path | Mapping[str, Any] | GuardConfig], GuardUnderTest]]:
    """Builds guards from a ``fastguard.toml`` or a dict, with the test's issuer and clock, and closes them after the test."""
    from mcp_fastguard import testing  # noqa: PLC0415

    guards: list[GuardUnderTest] = []

    def build(config: str | Path | Mapping[str, Any] | GuardConfig) -> GuardUnderTest:
        folder = tmp_path / f"fastguard-{len(guards)}"
        folder.mkdir()
        guards.append(testing.guard(config, issuer=fastguard_issuer, clock=fastguard_clock, folder=folder))
        return guards[-1]

    yield build
    for guard in guards:
        guard.close()


@pytest.fixture
def make_token() -> Callable[..., str]:
    """``mcp_fastguard.testing.make_token``: a token for the guard that the test has built last."""
    from mcp_fastguard.testing import make_token  # noqa: PLC0415

    return make_token
