"""The commands that look at audit logs: ``fastguard audit``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from mcp_fastguard._fastguard import (
    MergedLogs,
    check_proof,
    cosigned_at,
    prove_record,
    repair_logs,
    verify_log,
    verify_logs,
)
from mcp_fastguard.audit import record_schema
from mcp_fastguard.cli.keys import KeyOption as NeededKeyOption
from mcp_fastguard.cli.keys import key_text
from mcp_fastguard.cli.prune import forget as forget_one
from mcp_fastguard.cli.prune import prune
from mcp_fastguard.cli.pseudonyms import erase, pseudonym, resolve
from mcp_fastguard.cli.records import REGISTRY, logs, records_of
from mcp_fastguard.cli.said import console, errors, fail
from mcp_fastguard.cli.shipping import ship
from mcp_fastguard.cli.show import show
from mcp_fastguard.cli.summaries import forget, summarise
from mcp_fastguard.cli.witness import audit_cosign, audit_witness_key
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import GuardError

__all__ = ["audit_app"]

audit_app = typer.Typer(no_args_is_help=True, help="Looks at audit logs.")
audit_app.command("show")(show)
audit_app.command("ship")(ship)
audit_app.command("prune")(prune)
audit_app.command("forget")(forget_one)
audit_app.command("pseudonym")(pseudonym)
audit_app.command("resolve")(resolve)
audit_app.command("erase")(erase)
audit_app.command("cosign")(audit_cosign)
audit_app.command("witness-key")(audit_witness_key)

LogsArgument = Annotated[Path, typer.Argument(help="The folder of the logs, or one log.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        help="The public key that checkpoints are signed with, or the file that holds it; learned from elsewhere."
    ),
]


def _logs(path: Path) -> list[Path]:
    """The logs in a folder, of which there must be one."""
    found = logs(path)
    if not found:
        raise fail(f"{path}: no log there")
    return found


def _key(given: str | None) -> str | None:
    return None if given is None else key_text(given)


@audit_app.command("verify")
def audit_verify(
    path: LogsArgument = Path("audit"),
    key: KeyOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint that you kept: the log must have only grown since.")
    ] = None,
    witness: Annotated[
        str | None,
        typer.Option(help="The public key of a witness, or the file that holds it: it must have signed --checkpoint."),
    ] = None,
) -> None:
    """Checks that logs are whole: every line as it was written, in order, as the signed checkpoints say, up to the seal.

    Of a folder of logs, that its registry is whole, and that no log of it is gone unannounced. Only --key and --checkpoint, kept
    where the log's writer cannot change them, show a log that was written anew, cut back or forked.
    """
    # Of logs that were pruned whole only the registry has lines.
    found = logs(path) if (path / REGISTRY).is_dir() else _logs(path)
    note = checkpoint.read_text(encoding="utf-8") if checkpoint is not None else None
    if witness is not None:
        _demand(witness, note)
    origin = note.partition("\n")[0] if note is not None else ""
    named = [log.name for log in (*found, path / REGISTRY) if origin.endswith(f"/{log.name}")]
    if note is not None and not named:
        raise fail(f"no log in {path} is the one of this checkpoint: {origin}")
    rows = _verified(found[0], _key(key), note) if found == [path] else _all_verified(path, _key(key), note)
    for name, count, root, state, problem in rows:
        told = f"{problem or state}" if count is None else f"{count} records, {problem or state}, root {root}"
        console.print(f"{name}: {told}", markup=False, soft_wrap=True)
    if any(problem is not None for *_, problem in rows):
        raise typer.Exit(1)


def _demand(witness: str, note: str | None) -> None:
    """The witness must have signed the checkpoint."""
    if note is None:
        raise fail("--witness signs checkpoints: name one by --checkpoint")
    try:
        at = datetime.fromtimestamp(cosigned_at(note, key_text(witness)), UTC)
    except (OSError, ValueError, OverflowError) as error:
        raise fail(error) from error
    console.print(f"signed by the witness at {at.isoformat()}", markup=False, highlight=False, soft_wrap=True)


_Row = tuple[str, int | None, str | None, str, str | None]


def _verified(log: Path, key: str | None, note: str | None) -> list[_Row]:
    """One log by itself."""
    try:
        count, root, is_sealed, problem = verify_log(log, key, note)
    except (OSError, ValueError) as error:
        raise fail(f"{log.name}: {error}") from error
    return [(log.name, count, root, "sealed" if is_sealed else "open: its process runs, or was killed", problem)]


def _all_verified(path: Path, key: str | None, note: str | None) -> list[_Row]:
    """All logs of a folder, and its registry."""
    try:
        return verify_logs(path, key, note)
    except (OSError, ValueError) as error:
        raise fail(f"{path}: {error}") from error


@audit_app.command("merge")
def audit_merge(
    path: LogsArgument = Path("audit"),
    key: KeyOption = None,
    *,
    unverified: Annotated[bool, typer.Option("--unverified", help="Also where a log does not verify.")] = False,
) -> None:
    """Prints the records of all logs as one stream, ordered by time, a line of JSON each, with the name of its log in `log`.

    The logs are verified first; where one does not, nothing is printed.
    """
    found = _logs(path)
    for log in found:
        try:
            problem = verify_log(log, _key(key))[3]
        except (OSError, ValueError) as error:
            raise fail(f"{log.name}: {error}") from error
        if problem is not None:
            errors.print(f"{log.name}: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
            if not unverified:
                raise fail("a log is not whole: nothing is merged without --unverified")
    try:
        for line in MergedLogs(found):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.flush()
    except OSError as error:
        raise fail(error) from error


@audit_app.command("repair")
def audit_repair(
    config: Annotated[
        Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")
    ] = Path("fastguard.toml"),
) -> None:
    """Ends the logs of killed processes: a line that was written in part is cut, the rest is sealed and signed.

    Every guard does so when it starts. A log that a living process writes, or that contradicts itself or its checkpoint, is
    not touched; of the latter there is an exit with 1.
    """
    try:
        read = GuardConfig.from_file(config)
        found = repair_logs(read.text, folder=read.folder, file=read.file, is_json=read.is_json)
    except GuardError as error:
        raise fail(error) from error
    for log, _, what in found:
        console.print(f"{log}: {what}", markup=False, soft_wrap=True)
    if not found:
        console.print("every log has its seal, or its process runs")
    if any(is_left for _, is_left, _ in found):
        raise typer.Exit(1)


@audit_app.command("prove")
def audit_prove(
    record: Annotated[str, typer.Argument(help="The id of a decision's record.")],
    path: Annotated[Path, typer.Option("--audit", help="The folder of the logs, or one log.")] = Path("audit"),
) -> None:
    """Prints a proof, as C2SP's tlog-proof has it, that a record is in the log; it holds the record, and needs no other file."""
    for log in logs(path):
        for found in records_of(log):
            if found.get("id") == record:
                try:
                    # Plain, so that it can be written to a file.
                    print(prove_record(log, int(found["seq"])), end="")
                except (OSError, ValueError) as error:
                    raise fail(f"{log.name}: {error}") from error
                return
    raise fail(f"no record `{record}` in {path}")


@audit_app.command("check-proof")
def audit_check_proof(
    proof: Annotated[Path, typer.Argument(help="The file of a proof.")],
    key: NeededKeyOption,
) -> None:
    """Checks a proof with the public key alone, and prints the record that it proves."""
    try:
        origin, size, number, line = check_proof(proof.read_text(encoding="utf-8"), key_text(key))
    except (OSError, ValueError) as error:
        raise fail(f"{proof}: {error}") from error
    errors.print(f"record {number} of {size} in {origin}:", markup=False, highlight=False, soft_wrap=True)
    print(line.decode())


@audit_app.command("schema")
def audit_schema() -> None:
    """Prints the JSON Schema of the records, draft 2020-12."""
    print(json.dumps(record_schema(), indent=2, ensure_ascii=False))


@audit_app.command("summarise")
def audit_summarise(
    path: Annotated[Path, typer.Argument(help="The folder of the logs.")] = Path("audit"),
    keep: Annotated[int, typer.Option(help="Removes summaries of days that are longer ago, in days.", min=1)] = 365,
) -> None:
    """Sums up each day that is over and has no summary yet: counts by tool, caller and code. For a timer, once a day."""
    _logs(path)
    now = datetime.now(UTC)
    first = now.date() - timedelta(days=keep)
    written, removed = summarise(path, now, first), forget(path, first)
    console.print(f"{len(written)} days summed up, {len(removed)} summaries removed", highlight=False)
