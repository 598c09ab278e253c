"""One entry: what is revoked, blocked, or blocked no more."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall, Gate

__all__ = ["MAX_ENTRY_BYTES", "Entry", "EntryError"]

logger = logging.getLogger("mcp_fastguard")

#: Longest text of an entry. Names in tokens are shorter.
MAX_ENTRY_BYTES: Final = 8 * 1024

#: What an entry of each act may name, besides `at` and `reason`.
_NAMES: Final = {
    "revoke": {"issuer", "token_id", "subject", "client_id", "session", "key_id", "issued_before"},
    "block": {"issuer", "subject", "client_id", "tool", "until"},
    "unblock": {"issuer", "subject", "client_id", "tool"},
}

#: Seconds since the epoch.
_TIMES: Final = {"at", "issued_before", "until"}

#: Who said so by the endpoint of ``[admin]``.
_ADMINISTRATOR: Final = {"admin_issuer", "admin_subject", "admin_client_id"}


class EntryError(ValueError):
    """A text is no entry. The reason shows nothing of what stands in it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What :meth:`Guard.revoke`, :meth:`Guard.block` or :meth:`Guard.unblock` is called with, and when.

    Args:
        act: ``"revoke"``, ``"block"`` or ``"unblock"``.
        at: seconds since the epoch, when the operator said so. Of blocks and their endings that name the same, the latest holds.
        reason: for people; recorded nowhere but here.
        admin_issuer: of the administrator who said so by the endpoint; see :meth:`said_by`.

    Raises:
        EntryError: the act is not known, or names what it cannot, or nothing; a value is empty or of the wrong type; the whole
            is longer than :data:`MAX_ENTRY_BYTES`.
    """

    act: str
    at: float
    issuer: str | None = None
    token_id: str | None = None
    subject: str | None = None
    client_id: str | None = None
    session: str | None = None
    key_id: str | None = None
    tool: str | None = None
    issued_before: float | None = None
    until: float | None = None
    reason: str | None = None
    admin_issuer: str | None = None
    admin_subject: str | None = None
    admin_client_id: str | None = None

    def __post_init__(self) -> None:
        # What cannot be read back must not be said: one such entry, and a stream is of no use to anybody.
        for name, value in asdict(self).items():
            if value is not None and not (_is_time(value) if name in _TIMES else _is_text(value)):
                raise EntryError("a member of the entry has the wrong type")
        named = set(self.named())
        if not named <= _NAMES.get(self.act, set()):
            raise EntryError("the act is not known, or names what it cannot")
        if not named - _TIMES:
            raise EntryError("the entry names nothing")
        if self.admin_issuer is None and (self.admin_subject or self.admin_client_id):
            raise EntryError("the entry names an administrator of no issuer")
        if len(self.text()) > MAX_ENTRY_BYTES:
            raise EntryError("the entry is too long")

    @classmethod
    def revoke(cls, *, issued_before: float | None = None, reason: str | None = None, **named: Any) -> Self:
        """Revokes the tokens that were issued until this second, or before ``issued_before``."""
        now = time.time()
        # `iat` counts whole seconds, and processes that read the entry later must not take it for theirs.
        before = math.floor(now) + 1.0 if issued_before is None else issued_before
        return cls("revoke", now, issued_before=before, reason=reason, **named)

    @classmethod
    def make(cls, act: str, **named: Any) -> Self:
        """An act that an operator says now. Who that is stands in no parameter: :meth:`said_by` takes it of a proof."""
        if not _ADMINISTRATOR.isdisjoint(named):
            raise EntryError("the entry names an administrator by itself")
        return cls.revoke(**named) if act == "revoke" else cls(act, time.time(), **named)

    def said_by(self, call: AllowedCall) -> Self:
        """The same, with the administrator whose call it is, for the records of other processes.

        An act is told in any case: where the names make it too long, without them.
        """
        subject, client_id = call.subject or None, call.client_id or None
        try:
            return replace(self, admin_issuer=call.issuer, admin_subject=subject, admin_client_id=client_id)
        except EntryError as error:
            logger.warning("other processes are told of an act, and not of the administrator: %s", error)
            return self

    @classmethod
    def of(cls, text: bytes, *, is_proved: bool = False) -> Self:
        """Reads an entry.

        Args:
            text: one line of JSON.
            is_proved: whether only the deployment's processes can have made it, so that it may name an administrator.

        Raises:
            EntryError: it is none.
        """
        if len(text) > MAX_ENTRY_BYTES:
            raise EntryError("the entry is too long")
        try:
            found = json.loads(text, object_pairs_hook=_members)
        except (ValueError, RecursionError) as error:
            raise EntryError("the entry is no JSON object") from error
        known = {field.name for field in fields(cls)} - (set() if is_proved else _ADMINISTRATOR)
        if not isinstance(found, dict) or not {"act", "at"} <= set(found) <= known:
            raise EntryError("the entry lacks a member, or has one that is not known")
        if None in found.values():
            raise EntryError("a member of the entry has the wrong type")
        return cls(**found)

    def text(self) -> bytes:
        """The entry as a line of JSON, without its end."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None}).encode()

    def named(self) -> dict[str, Any]:
        """What it names."""
        others = {"act", "at", "reason", *_ADMINISTRATOR}
        return {name: value for name, value in asdict(self).items() if name not in others and value is not None}

    def apply(self, gate: Gate, by: AllowedCall | None = None) -> bool:
        """Has it hold from the next call on. Whether it changed anything: there may be no such block to lift.

        Args:
            gate: what decides.
            by: the call of the administrator who said so in this process; else it is whom the entry names.

        Raises:
            ValueError: the table is full.
            GuardFault: it holds, and could not be recorded.
        """
        named, who = self.named(), self._administrator() if by is None else by
        if self.act == "unblock":
            return gate.unblock(**named, by=who)
        if self.act == "revoke":
            gate.revoke(**named, by=who)
        else:
            gate.block(**named, by=who)
        return True

    def _administrator(self) -> tuple[str, str | None, str | None] | None:
        if self.admin_issuer is None:
            return None
        return self.admin_issuer, self.admin_subject, self.admin_client_id


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        # Half of a pair of surrogates: bytes of a command line that are no UTF-8.
        return False
    return True


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EntryError("a member of the entry stands there twice")
    return found
