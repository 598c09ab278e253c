"""What a tool can learn about the call that runs it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_fastguard.call import Call

__all__ = ["CurrentCall", "current_call"]

#: The call whose tool runs in this context. Tasks and threads that the tool starts inherit it.
running: ContextVar[Call | None] = ContextVar("fastguard_running", default=None)


class CurrentCall:
    """The caller, as its verified token names it, and a place for what the tool wants recorded."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def subject(self) -> str | None:
        """``sub`` of the token."""
        return self._call.proof.subject

    @property
    def client_id(self) -> str | None:
        """The OAuth client."""
        return self._call.proof.client_id

    @property
    def issuer(self) -> str | None:
        """``iss`` of the token."""
        return self._call.proof.issuer

    @property
    def organisation(self) -> str | None:
        """The organisation, by the issuer's ``organisation_claim``."""
        return self._call.proof.organisation

    @property
    def actor(self) -> str | None:
        """Who acts for the subject: ``act.sub`` (RFC 8693 section 4.1)."""
        return self._call.proof.actor

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of the token."""
        return self._call.proof.scopes

    @property
    def claims(self) -> dict[str, Any]:
        """All claims of the token, parsed anew at each access; none for a call that is nobody's."""
        token = self._call.proof.token
        return {} if token is None else token.claims

    def record(self, *, rows: int | None = None, bytes_scanned: int | None = None) -> None:
        """Adds counts to the record of this call's ending; several calls add up.

        Raises:
            ValueError: a count is negative.
            RuntimeError: the call has ended.
        """
        self._call.note(rows=rows, bytes_scanned=bytes_scanned)


def current_call() -> CurrentCall:
    """The call that runs the present tool.

    Raises:
        LookupError: no guarded call is running here, or the one that started this task has ended.
    """
    call = running.get()
    if call is None or call.is_closed:
        message = "no guarded call is running here"
        raise LookupError(message)
    return CurrentCall(call)
