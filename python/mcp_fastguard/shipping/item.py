"""What is shipped: a record of the log, or a checkpoint."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from mcp_fastguard.shipping.follow import Checkpoint, Line

__all__ = ["Item"]

#: Names of files and headers of messages are made of it, so another form does not pass.
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


class Item(NamedTuple):
    """A record or a checkpoint on its way."""

    log: str
    #: The record's number in its log; None for a checkpoint.
    seq: int | None
    #: The line as it is in the log, without its newline: the leaf that checkpoints speak of.
    line: str
    record: dict[str, Any]

    @classmethod
    def of_line(cls, line: Line) -> Self:
        """A line of a log. One that is no JSON is shipped as it is, and says nothing of itself."""
        text = line.text.decode("utf-8", errors="replace")
        try:
            record = json.loads(text)
        except ValueError:
            record = {}
        return cls(line.log, line.seq, text, record if isinstance(record, dict) else {})

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, now: float) -> Self:
        """A checkpoint, in the form that the schema of the records gives it."""
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {
            "event_type": "checkpoint",
            "timestamp": at,
            "log": checkpoint.log,
            "records": checkpoint.records,
            "note": checkpoint.note,
        }
        return cls(checkpoint.log, None, json.dumps(record, ensure_ascii=False, separators=(",", ":")), record)

    @property
    def event_type(self) -> str:
        """What it is about."""
        return str(self.record.get("event_type", "unknown"))

    @property
    def timestamp(self) -> str:
        """When it happened, as the record has it (RFC 3339, UTC); the epoch where it does not say."""
        text = str(self.record.get("timestamp"))
        return text if _TIMESTAMP.fullmatch(text) else "1970-01-01T00:00:00.000Z"

    @property
    def milliseconds(self) -> int:
        """The same, since the epoch."""
        try:
            at = datetime.fromisoformat(self.timestamp)
        except ValueError:
            return 0
        # By whole numbers: a float has too few digits for some milliseconds.
        return int(at.replace(microsecond=0).timestamp()) * 1_000 + at.microsecond // 1_000

    @property
    def outcome(self) -> str:
        """``allowed``, ``denied``, ``faulted`` for decisions, the status for endings, else the event's name."""
        return str(self.record.get("result") or self.record.get("status") or self.event_type)

    @property
    def weight(self) -> str:
        """How bad it is: ``info``, ``warning`` or ``error``."""
        if self.outcome == "faulted":
            return "error"
        if self.outcome in {"denied", "error", "recovered", "refusals_counted", "unknown"}:
            return "warning"
        return "info"

    @property
    def subject(self) -> str | None:
        """The verified subject, where there is one."""
        identity = self.record.get("authenticated_identity")
        subject = identity.get("subject") if isinstance(identity, dict) else None
        return None if subject is None else str(subject)

    @property
    def target(self) -> str | None:
        """What was called."""
        target = self.record.get("tool_name") or self.record.get("target")
        return None if target is None else str(target)
