"""A guard to look at rules with: it decides as the configuration says, and records nothing."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mcp_fastguard.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_fastguard.config import GuardConfig

__all__ = ["unlogged"]

logger = logging.getLogger("mcp_fastguard")


@contextmanager
def unlogged(config: GuardConfig, *, shares: bool = False) -> Iterator[Guard]:
    """The configuration's guard without its log, and with windows of its own. ``shares``: with those that processes share."""
    # A guard warns where nothing is recorded. Here that is the command's doing, not the file's.
    logger.addFilter(_is_of_the_file)
    try:
        tables = config.unrecorded() if shares else config.by_itself()
        guard = Guard.from_dict(tables, folder=config.folder)
    finally:
        logger.removeFilter(_is_of_the_file)
    with guard:
        yield guard


def _is_of_the_file(record: logging.LogRecord) -> bool:
    return not (isinstance(record.args, tuple) and record.args[:1] == ("audit.enabled",))
