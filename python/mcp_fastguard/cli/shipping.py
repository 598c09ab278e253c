"""``fastguard audit ship``: a process of its own that copies the audit logs to where ``[[audit.ship]]`` says."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mcp_fastguard.cli.said import console, errors, fail
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.shipping import ShipError, Shipper, ShipSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ship"]

#: Seconds that batches on their way get when the process is told to end.
FAREWELL: Final = 20.0

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")]


def ship(
    config: ConfigOption = Path("fastguard.toml"),
    only: Annotated[list[str], typer.Option(help="Only to the place of this name; once for each.")] = [],  # noqa: B006
    *,
    once: Annotated[bool, typer.Option("--once", help="Ships what waits, and ends.")] = False,
) -> None:
    """Copies records and checkpoints to where [[audit.ship]] says, as they come, until it is stopped.

    Run it beside the servers that write into the folder: one process for all of them.
    """
    shippers = _shippers(config, only)
    if once:
        failed = [f"{shipper.settings.name}: {reason}" for shipper in shippers if (reason := _drained(shipper))]
        if failed:
            raise fail("\n".join(failed))
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    names = ", ".join(shipper.settings.name for shipper in shippers)
    errors.print(f"shipping to {names}", markup=False, highlight=False, soft_wrap=True)
    ended = _run(shippers, stop)
    if ended:
        raise fail("\n".join(ended))


def _shippers(config: Path, only: Sequence[str]) -> list[Shipper]:
    try:
        found = ShipSettings.of(GuardConfig.from_file(config))
    except GuardConfigError as error:
        raise fail(error) from error
    if found is None:
        raise fail(f"{config}: [audit] enabled = false: there is nothing to ship")
    base, places = found
    unknown = set(only) - {settings.name for settings in places}
    if unknown:
        raise fail(f"{config}: no [[audit.ship]] is named {', '.join(sorted(unknown))}")
    if not places:
        raise fail(f"{config}: no [[audit.ship]] says where to")
    if not base.is_dir():
        raise fail(f"{base}: no log there")
    try:
        return [Shipper(base, settings) for settings in places if not only or settings.name in only]
    except ShipError as error:
        raise fail(error) from error


def _drained(shipper: Shipper) -> str | None:
    try:
        shipper.drain()
    except ShipError as error:
        return str(error)
    console.print(f"{shipper.settings.name}: nothing waits", markup=False, highlight=False, soft_wrap=True)
    return None


def _run(shippers: Sequence[Shipper], stop: threading.Event) -> list[str]:
    """Runs each on a thread of its own, so that one that is not reached keeps no other waiting; why they ended before time."""
    reasons: list[str] = []

    def run(shipper: Shipper) -> None:
        try:
            shipper.run(stop)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must not go on with one place less
            reasons.append(f"{shipper.settings.name}: {error}")
            stop.set()

    threads = [
        # Daemons, so that a place that answers byte by byte cannot keep the process from ending.
        threading.Thread(target=run, args=(shipper,), name=f"ship-{shipper.settings.name}", daemon=True)
        for shipper in shippers
    ]
    for thread in threads:
        thread.start()
    # In short pieces: on some systems a thread that waits hears no signal.
    while not stop.wait(0.5):
        pass
    until = time.monotonic() + FAREWELL
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return reasons
