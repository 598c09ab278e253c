"""One structured line a decision, through standard logging."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mcp_fastguard.observe.decision import described, record_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_fastguard._fastguard import AllowedCall, ObservedCall
    from mcp_fastguard.errors import GuardError
    from mcp_fastguard.guard import Guard
    from mcp_fastguard.observe.decision import Decision

__all__ = ["FIELDS", "JSONFormatter", "log_decisions"]

#: Attributes of each line's ``LogRecord``, in the order of the JSON.
FIELDS: Final = (
    "outcome",
    "room",
    "code",
    "method",
    "tool",
    "subject",
    "client_id",
    "issuer",
    "record",
    "record_id",
    "retry_after",
)

#: What callers wrote is cut to so many characters: a line must not grow as they like.
MAX_VALUE: Final = 256

_CALLERS: Final = frozenset({"subject", "client_id", "issuer"})


def log_decisions(  # noqa: PLR0913 - all are options, given by name
    *,
    logger: logging.Logger | None = None,
    allowed: int = logging.INFO,
    denied: int = logging.WARNING,
    fault: int = logging.ERROR,
    callers: bool = True,
    guard: Guard | None = None,
) -> Callable[[AllowedCall | ObservedCall | GuardError], None]:
    """A listener that writes a line about each decision: ``guard.on_decision(log_decisions())``.

    The line's text names outcome, code, method and tool. All of :data:`FIELDS` are attributes of its ``LogRecord``. Tokens,
    arguments and the details of refusals are in neither: details are for the audit log.

    Args:
        logger: default: the logger ``mcp_fastguard.decisions``.
        allowed: level of allowed calls.
        denied: level of refusals, those too that are only observed.
        fault: level of calls that could not be decided.
        callers: whether subject, client and issuer are told. They are personal data where a subject is a person.
        guard: whose decisions these are; lines then have ``record_id``, as the audit log has it. Default: None.
    """
    log = logger or logging.getLogger("mcp_fastguard.decisions")
    levels = {"allowed": allowed, "denied": denied, "fault": fault, "observed": denied}

    def listen(decided: AllowedCall | ObservedCall | GuardError) -> None:
        decision = described(decided)
        level = levels[decision.outcome]
        if log.isEnabledFor(level):
            told = {**decision._asdict(), "tool": decision.tool, "record_id": guard and record_id(guard, decision)}
            fields = {name: _cut(told[name]) for name in FIELDS if callers or name not in _CALLERS}
            log.log(level, "%s", _line(decision), extra=fields)

    return listen


def _line(decision: Decision) -> str:
    """The line's text. What a caller wrote is quoted, so that it cannot begin a line of its own."""
    words = [decision.outcome]
    if decision.code:
        words.append(decision.code)
    if decision.method:
        words.append(ascii(_cut(decision.method))[1:-1])
    if decision.tool is not None:
        words.append(ascii(_cut(decision.tool)))
    return " ".join(words)


def _cut(value: object) -> object:
    return value[: MAX_VALUE - 1] + "…" if isinstance(value, str) and len(value) > MAX_VALUE else value


class JSONFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, those of :data:`FIELDS` that are
    set, and ``exception`` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; ASCII alone, so that no terminal and no parser of lines is led astray."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, object] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None and value != "":
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
