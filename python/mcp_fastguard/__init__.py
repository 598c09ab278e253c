"""The guard in front of an MCP server's tools.

>>> from mcp_fastguard import Guard
>>> guard = Guard.from_file("fastguard.toml")  # doctest: +SKIP
"""

from __future__ import annotations

from mcp_fastguard import interpreters  # noqa: F401 - before the core is loaded

# isort: split

from mcp_fastguard._fastguard import __version__
from mcp_fastguard.call import AllowedCall, Call, ToolRequest
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.context import current_call
from mcp_fastguard.errors import Denied, GuardConfigError, GuardError, GuardFault
from mcp_fastguard.guard import Guard

__all__ = [
    "AllowedCall",
    "Call",
    "Denied",
    "Guard",
    "GuardConfig",
    "GuardConfigError",
    "GuardError",
    "GuardFault",
    "ToolRequest",
    "__version__",
    "current_call",
]
