"""The commands about pseudonyms: ``fastguard audit pseudonym``, ``resolve`` and ``erase``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcp_fastguard._fastguard import Pseudonyms
from mcp_fastguard.cli.said import console, fail
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import GuardError

__all__ = ["erase", "pseudonym", "resolve"]

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")]
SubjectArgument = Annotated[str, typer.Argument(help="The subject, as tokens name it in `sub`.")]
IssuerOption = Annotated[str, typer.Option("--issuer", help="The issuer of its tokens, as they name it in `iss`.")]


def pseudonym(subject: SubjectArgument, issuer: IssuerOption, config: ConfigOption = Path("fastguard.toml")) -> None:
    """Prints the pseudonym under which a subject stands in the records: for `show --who`, or to answer the person.

    Exits with 1 where it has none, or its key was destroyed.
    """
    try:
        found = _store(config).of(issuer, subject)
    except GuardError as error:
        raise fail(error) from error
    if found is None:
        raise fail(f"{subject} of {issuer} has no pseudonym, or its key was destroyed")
    print(found)


def resolve(
    text: Annotated[str, typer.Argument(metavar="PSEUDONYM", help="What stands in `authenticated_identity.subject`.")],
    config: ConfigOption = Path("fastguard.toml"),
) -> None:
    """Prints whom a pseudonym stands for: the issuer, a tab, and the subject.

    Exits with 1 where nobody can tell: its key was destroyed, or it is none of this place.
    """
    try:
        found = _store(config).resolve(text)
    except GuardError as error:
        raise fail(error) from error
    if found is None:
        raise fail(f"{text}: nobody can tell whose it is")
    print("\t".join(found))


def erase(
    subject: SubjectArgument,
    issuer: IssuerOption,
    config: ConfigOption = Path("fastguard.toml"),
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Does not ask first.")] = False,
) -> None:
    """Destroys the key of a subject's pseudonyms: nobody can tell any more which records are of it. There is no way back.

    The log is not touched, and verifies as before. Guards that run follow with their next write; a later call of the same
    subject gets another pseudonym. Copies of the key in backups are yours to destroy.
    """
    try:
        store = _store(config)
        if store.of(issuer, subject) is None:
            raise fail(f"{subject} of {issuer} has no pseudonym, or its key was destroyed")
        if not yes:
            typer.confirm(f"Destroy the key of {subject} of {issuer}?", abort=True)
        store.erase(issuer, subject)
    except GuardError as error:
        raise fail(error) from error
    console.print(f"{subject} of {issuer}: the key is destroyed", markup=False, highlight=False, soft_wrap=True)


def _store(config: Path) -> Pseudonyms:
    read = GuardConfig.from_file(config)
    return Pseudonyms(read.text, folder=read.folder, file=read.file, is_json=read.is_json)
