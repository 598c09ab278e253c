"""A refusal as the error of the MCP SDK that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_fastguard.transport.challenge import rpc_error

if TYPE_CHECKING:
    from mcp_fastguard.errors import GuardError

__all__ = ["sdk_error"]


def sdk_error(error: GuardError) -> Exception:
    """What a message layer raises, so that the SDK answers with code, message and data of the refusal."""
    code, message, data = rpc_error(error)
    try:
        from mcp.shared.exceptions import MCPError  # noqa: PLC0415 - `mcp` 2.x
    except ImportError:
        return _error_of_1x(code, message, data)
    return MCPError(code, message, data)


def _error_of_1x(code: int, message: str, data: dict[str, object]) -> Exception:
    from mcp import types  # noqa: PLC0415 - `mcp` 1.x
    from mcp.shared import exceptions  # noqa: PLC0415

    names = vars(exceptions)
    found: Exception = names["McpError"](vars(types)["ErrorData"](code=code, message=message, data=data))
    return found
