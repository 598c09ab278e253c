"""``fastguard audit prune`` and ``forget``: what is removed from the folder of the logs, and entered in their registry first."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mcp_fastguard._fastguard import forget_log, prune_log, registered_logs
from mcp_fastguard.cli.records import instant
from mcp_fastguard.cli.said import console, errors, fail
from mcp_fastguard.cli.summaries import summarise
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import GuardError
from mcp_fastguard.shipping import ShipError, ShipSettings
from mcp_fastguard.shipping.cursor import Cursor, cursor_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_fastguard.shipping.follow import Place

__all__ = ["forget", "last_to_go", "prune"]

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")]

#: The last line of a log has some 200 bytes.
MAX_SEAL_BYTES: Final = 4_096


def prune(
    config: ConfigOption = Path("fastguard.toml"),
    keep: Annotated[str, typer.Option(help="How long records are kept: 90d, 24h.")] = "90d",
) -> None:
    """Removes records that are older, by whole files of sealed logs; hashes, checkpoints and summaries of each day stay.

    Never what a place of [[audit.ship]] has not taken. The registry says what was removed, so that `audit verify` finds no gap.
    For a timer, once a day.
    """
    read, base, places = _read(config)
    now = datetime.now(UTC)
    try:
        before = instant(keep, now)
        if before >= now:
            raise fail(f"`{keep}` is not how long something is kept: write 90d or 24h")
        summarise(base, now)
        cursors = [Cursor.read(cursor_file(base, place.name)) for place in places]
        found = [log for log, is_over in registered_logs(base) if is_over]
    except (OSError, ValueError, ShipError) as error:
        raise fail(error) from error
    is_whole = True
    for log in found:
        last = last_to_go(base / log, before, [cursor.places.get(log) for cursor in cursors])
        if last == 0:
            continue
        try:
            gone = prune_log(
                read.text,
                folder=read.folder,
                file=read.file,
                is_json=read.is_json,
                log=log,
                last=last,
                rule=f"--keep {keep}",
            )
        except GuardError as error:
            is_whole = False
            errors.print(f"{log}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(f"{log}: {gone} records pruned", markup=False, highlight=False, soft_wrap=True)
    if not is_whole:
        raise typer.Exit(1)


def forget(
    log: Annotated[str, typer.Argument(help="The name of the log.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the registry.")],
    config: ConfigOption = Path("fastguard.toml"),
) -> None:
    """Removes a whole log, hashes and all; or says of one that is gone already that it need not be looked for."""
    read, _, _ = _read(config)
    try:
        forget_log(read.text, folder=read.folder, file=read.file, is_json=read.is_json, log=log, reason=reason)
    except GuardError as error:
        raise fail(error) from error
    console.print(f"{log}: removed, and the registry says so", markup=False, highlight=False, soft_wrap=True)


def _read(config: Path) -> tuple[GuardConfig, Path, list[ShipSettings]]:
    try:
        read = GuardConfig.from_file(config)
        found = ShipSettings.of(read)
    except GuardError as error:
        raise fail(error) from error
    if found is None:
        raise fail(f"{config}: [audit] enabled = false: there is no log")
    base, places = found
    if not base.is_dir():
        raise fail(f"{base}: no log there")
    return read, base, places


def last_to_go(log: Path, before: datetime, taken: Sequence[Place | None]) -> int:
    """The number of the last file whose records are all older and that every place has taken; 0 where there is none.

    A file is over when the next one begins, the last one with the seal.
    """
    files = sorted(log.glob("*.jsonl"))
    last = 0
    for file, following in zip(files, [*files[1:], None], strict=True):
        over = _time_of(_first_line(following) if following is not None else _last_line(file))
        number = int(file.stem)
        is_taken = all(place is not None and (place.is_done or place.file > number) for place in taken)
        if over is None or over >= before or not is_taken:
            break
        last = number
    return last


def _first_line(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.readline(MAX_SEAL_BYTES)


def _last_line(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - MAX_SEAL_BYTES))
        return (opened.read().splitlines() or [b""])[-1]


def _time_of(line: bytes) -> datetime | None:
    """When a line was written; None where it does not say, and then nothing is removed."""
    try:
        return datetime.fromisoformat(json.loads(line)["timestamp"])
    except (ValueError, KeyError, TypeError):
        return None
