"""Asserts that a call is refused, and why."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from mcp_fastguard.errors import Denied

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["denied"]


class denied:  # noqa: N801 - read as a statement: `with denied("scope_insufficient"):`
    """Passes if the block is refused with ``code``, by a guard or by a server that a client asked.

    ``value`` is the :class:`Denied` after the block. From a client it has what the client saw: code, status, challenge and
    ``retry_after``, and its ``detail`` is the message of the answer. Faults and all other errors pass through.

    Args:
        code: one of ``docs/codes.md``.

    Raises:
        AssertionError: nothing was refused, or for another reason.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self._value: Denied | None = None

    @property
    def value(self) -> Denied:
        """The refusal.

        Raises:
            AssertionError: the block has not ended yet.
        """
        if self._value is None:
            message = "nothing is refused before the end of the block"
            raise AssertionError(message)
        return self._value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            message = f"nothing was refused; expected `{self.code}`"
            raise AssertionError(message)
        found = _refusal(error)
        if found is None:
            return False
        if found.code != self.code:
            message = f"refused with `{found.code}` ({found.detail}), not with `{self.code}`"
            raise AssertionError(message) from error
        self._value = found
        return True


def _refusal(error: BaseException) -> Denied | None:
    if isinstance(error, Denied):
        return error
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # A client that is refused while it connects fails inside the task group of its transport.
        return _refusal(error.exceptions[0])
    # The SDK need not be installed: without it, nothing can have raised its error.
    exceptions = sys.modules.get("mcp.shared.exceptions")
    if exceptions is None or not isinstance(error, exceptions.MCPError):
        return None
    return _seen_by_client(error)


def _seen_by_client(error: Any) -> Denied | None:
    data = error.data if isinstance(error.data, dict) else {}
    code = data.get("code")
    # Refusals have JSON-RPC's own codes, which are negative, or the HTTP status; a status of 500 is a fault.
    if not isinstance(code, str) or error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    return Denied(
        code,
        error.message,
        status=error.code if error.code > 0 else HTTPStatus.BAD_REQUEST,
        challenge=data.get("wwwAuthenticate"),
        retry_after=data.get("retryAfter"),
    )
