"""The commands of a witness: ``fastguard audit cosign`` and ``fastguard audit witness-key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcp_fastguard._fastguard import cosign, witness_key
from mcp_fastguard.cli.keys import KeyOption, key_text
from mcp_fastguard.cli.said import errors, fail
from mcp_fastguard.errors import GuardError

__all__ = ["audit_cosign", "audit_witness_key"]

NameOption = Annotated[
    str, typer.Option("--name", help="The witness's name: best a URL without its scheme that is yours.")
]
MemoryOption = Annotated[
    Path,
    typer.Option(
        "--witness", help="The folder of the witness: its key, made where there is none, and what it has signed."
    ),
]


def audit_cosign(
    log: Annotated[Path, typer.Argument(help="The folder of one log, or of the registry.")],
    name: NameOption,
    key: KeyOption,
    witness: MemoryOption = Path("witness"),
) -> None:
    """Has a witness sign the last checkpoint of a log, where the log has only grown since the last one that it signed.

    Prints the note with the log's signature and the witness's. Its folder belongs where the log's writer cannot change it. Exits
    with 1 where the log was cut back, written anew or forked.
    """
    try:
        note, records, since = cosign(log, key_text(key), name, witness)
    except (OSError, ValueError, GuardError) as error:
        raise fail(f"{log.name}: {error}") from error
    what = "seen for the first time" if since is None else f"grown from {since}"
    errors.print(f"{log.name}: {records} records, {what}", markup=False, highlight=False, soft_wrap=True)
    # Plain, so that it can be written to a file.
    print(note, end="")


def audit_witness_key(name: NameOption, witness: MemoryOption = Path("witness")) -> None:
    """Prints the public key of a witness, which `verify --witness` takes; makes the witness where there is none."""
    try:
        print(witness_key(name, witness))
    except (OSError, GuardError) as error:
        raise fail(error) from error
