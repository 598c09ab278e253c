"""The audit log leaves the machine: ``fastguard audit ship`` reads the logs on disk and copies them to where ``[[audit.ship]]``
says.

A process of its own. What it does, and whether it runs at all, costs no call anything: the log on disk is what waits.
"""

from __future__ import annotations

from mcp_fastguard.shipping.settings import ShipSettings
from mcp_fastguard.shipping.shipper import Shipper
from mcp_fastguard.shipping.sink import ShipError

__all__ = ["ShipError", "ShipSettings", "Shipper"]
