"""One entry: what is revoked, blocked, or blocked no more."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from mcp_fastguard._fastguard import AllowedCall, Gate

__all__ = ["MAX_ENTRY_BYTES", "Entry", "EntryError"]

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


class EntryError(ValueError):
    """A text is no entry. The reason shows nothing of what stands in it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What :meth:`Guard.revoke`, :meth:`Guard.block` or :meth:`Guard.unblock` is called with, and when.

    Args:
        act: ``"revoke"``, ``"block"`` or ``"unblock"``.
        at: seconds since the epoch, when the operator said so. Of blocks and their endings that name the same, the latest holds.
        reason: for people; recorded nowhere but here.

    Raises:
        EntryError: the act is not known, or names what it cannot, or nothing.
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

    def __post_init__(self) -> None:
        named = set(self.named())
        if not named <= _NAMES.get(self.act, set()):
            raise EntryError("the act is not known, or names what it cannot")
        if not named - _TIMES:
            raise EntryError("the entry names nothing")

    @classmethod
    def revoke(cls, *, issued_before: float | None = None, reason: str | None = None, **named: Any) -> Self:
        """Revokes the tokens that were issued until this second, or before ``issued_before``."""
        now = time.time()
        # `iat` counts whole seconds, and processes that read the entry later must not take it for theirs.
        before = math.floor(now) + 1.0 if issued_before is None else issued_before
        return cls("revoke", now, issued_before=before, reason=reason, **named)

    @classmethod
    def make(cls, act: str, **named: Any) -> Self:
        """An act that an operator says now."""
        return cls.revoke(**named) if act == "revoke" else cls(act, time.time(), **named)

    @classmethod
    def of(cls, text: bytes) -> Self:
        """Reads an entry.

        Raises:
            EntryError: it is none.
        """
        if len(text) > MAX_ENTRY_BYTES:
            raise EntryError("the entry is too long")
        try:
            found = json.loads(text, object_pairs_hook=_members)
        except (ValueError, RecursionError) as error:
            raise EntryError("the entry is no JSON object") from error
        if not isinstance(found, dict) or not {"act", "at"} <= set(found) <= {field.name for field in fields(cls)}:
            raise EntryError("the entry lacks a member, or has one that is not known")
        for name, value in found.items():
            is_time = type(value) in {int, float} and 0 <= value < 2**53
            if not (is_time if name in _TIMES else isinstance(value, str) and value):
                raise EntryError("a member of the entry has the wrong type")
        return cls(**found)

    def text(self) -> bytes:
        """The entry as a line of JSON, without its end."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None}).encode()

    def named(self) -> dict[str, Any]:
        """What it names."""
        others = {"act", "at", "reason"}
        return {name: value for name, value in asdict(self).items() if name not in others and value is not None}

    def apply(self, gate: Gate, by: AllowedCall | None = None) -> bool:
        """Has it hold from the next call on. Whether it changed anything: there may be no such block to lift.

        Args:
            gate: what decides.
            by: the call of the administrator who said so.

        Raises:
            ValueError: the table is full.
            GuardFault: it holds, and could not be recorded.
        """
        named = self.named()
        if self.act == "unblock":
            return gate.unblock(**named, by=by)
        if self.act == "revoke":
            gate.revoke(**named, by=by)
        else:
            gate.block(**named, by=by)
        return True


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EntryError("a member of the entry stands there twice")
    return found
