"""For tests of servers that a guard stands in front of: their own rules, with keys, clock and log of the test.

>>> from mcp_fastguard.testing import as_caller, denied, guard, make_token
>>> guard("fastguard.toml")  # doctest: +SKIP

It needs the extra ``testing``. Fixtures for pytest are in :mod:`mcp_fastguard.testing.plugin`.
"""

from __future__ import annotations

from mcp_fastguard.testing.clock import FakeClock
from mcp_fastguard.testing.issuer import Caller, Issuer
from mcp_fastguard.testing.refusal import denied
from mcp_fastguard.testing.under_test import GuardUnderTest, as_caller, guard, make_token

__all__ = ["Caller", "FakeClock", "GuardUnderTest", "Issuer", "as_caller", "denied", "guard", "make_token"]
