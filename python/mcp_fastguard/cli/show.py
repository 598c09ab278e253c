"""``fastguard audit show``: the records of logs, once or as they come."""

from __future__ import annotations

import heapq
import json
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mcp_fastguard.cli.records import REGISTRY, Filter, instant, line_of, logs, records_of, table_of
from mcp_fastguard.cli.said import console, fail
from mcp_fastguard.shipping.follow import Place, log_folders, read_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Tail", "show"]

#: Seconds between two looks at the folder.
PAUSE: Final = 0.25
#: So many records are shown before the new ones,
LAST: Final = 10
#: looked for in the last file of so many logs.
RECENT: Final = 16


def show(
    path: Annotated[Path, typer.Argument(help="The folder of the logs, or one log.")] = Path("audit"),
    who: Annotated[str | None, typer.Option(help="Only this subject or client.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only this tool.")] = None,
    result: Annotated[
        str | None, typer.Option(help="Only allowed, denied or faulted; or endings of the status ok, error, …")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on: 15m, 24h, or 2026-11-28T08:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="The last records, then new ones as they come, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are in the log.")] = False,
) -> None:
    """Shows the records of decisions and endings."""
    now = datetime.now(UTC)
    try:
        wanted = Filter(who, tool, result, _instant(since, now), _instant(until, now))
    except ValueError as error:
        raise fail(error) from error
    if follow:
        _follow(path, wanted, as_json=as_json)
        return
    found = logs(path)
    if not found:
        raise fail(f"{path}: no log there")
    if as_json:
        for text in Tail(path).new(wanted):
            print(text)
        return
    console.print(table_of([record for log in found for record in records_of(log) if wanted.fits(record)]))


def _instant(text: str | None, now: datetime) -> datetime | None:
    return None if text is None else instant(text, now)


class Tail:
    """What is new in the logs of a folder since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, Place] = {}

    def skip(self) -> None:
        """Passes over what is old: all but the last file of the newest logs."""
        found = self._logs()
        for number, log in enumerate(reversed(found)):
            files = sorted(log.glob("*.jsonl"))
            if files:
                offset = 0 if number < RECENT else files[-1].stat().st_size
                self._places[log.name] = Place(file=int(files[-1].stem), offset=offset)

    def new(self, wanted: Filter) -> Iterator[str]:
        """The lines that fit, of each log in its order."""
        for log in self._logs():
            while True:
                lines, place = read_on(log, self._places.get(log.name, Place()), 1_000, 1024 * 1024)
                self._places[log.name] = place
                if not lines:
                    break
                for line in lines:
                    text = line.text.decode("utf-8", errors="replace")
                    if _fits(text, wanted):
                        yield text

    def _logs(self) -> list[Path]:
        return [self._path] if any(self._path.glob("*.jsonl")) else log_folders(self._path, {REGISTRY})


def _fits(text: str, wanted: Filter) -> bool:
    try:
        record = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and wanted.fits(record)


def _follow(path: Path, wanted: Filter, *, as_json: bool) -> None:
    """Until somebody says stop. A folder that is not there yet is waited for: servers make it."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    tail = Tail(path)
    if not as_json:
        console.print(line_of(None, console.width), soft_wrap=True)
    if wanted.since is None:
        tail.skip()
        _print(heapq.nlargest(LAST, tail.new(wanted), key=_time_of)[::-1], as_json=as_json)
    else:
        # All of it, log by log: nobody knows how much that is.
        _print(tail.new(wanted), as_json=as_json)
    while not stop.wait(PAUSE):
        _print(sorted(tail.new(wanted), key=_time_of), as_json=as_json)


def _print(lines: Iterable[str], *, as_json: bool) -> None:
    for text in lines:
        if as_json:
            print(text)
        else:
            console.print(line_of(json.loads(text), console.width), soft_wrap=True)
    # Whoever reads by a pipe waits for it.
    sys.stdout.flush()


def _time_of(text: str) -> str:
    return str(json.loads(text).get("timestamp"))
