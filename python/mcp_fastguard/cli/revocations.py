"""Tells running guards what is revoked or blocked: by the file or the server that ``[revocations]`` names, or by the
administrators' endpoint of a guarded server.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_fastguard.cli.admin import CaFileOption, Endpoint, ServerOption, TokenFileOption, ask
from mcp_fastguard.cli.said import console, fail
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.errors import GuardConfigError
from mcp_fastguard.revocations import Entry, EntryError, RevocationSettings
from mcp_fastguard.revocations.file import append

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_fastguard.revocations.stream import EntryStream

__all__ = ["block", "revocations_app", "revoke", "unblock"]

revocations_app = typer.Typer(no_args_is_help=True, help="The server by which guards tell each other.")

#: How long the server may take, in seconds.
PATIENCE = 10.0

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")]
Issuer = Annotated[str | None, typer.Option(help="`iss`.")]
Subject = Annotated[str | None, typer.Option(help="`sub`.")]
Client = Annotated[str | None, typer.Option("--client", help="The OAuth client.")]
Tool = Annotated[str | None, typer.Option(help="The tool's name.")]
Reason = Annotated[str | None, typer.Option(help="For people who read the entries.")]
DEFAULT_CONFIG = Path("fastguard.toml")


def revoke(
    issuer: Issuer = None,
    token_id: Annotated[str | None, typer.Option(help="`jti`.")] = None,
    subject: Subject = None,
    client: Client = None,
    session: Annotated[str | None, typer.Option(help="`sid`.")] = None,
    key: Annotated[str | None, typer.Option(help="`kid`.")] = None,
    issued_before: Annotated[
        datetime | None, typer.Option(help="Only tokens that were issued before, in UTC. Default: now.")
    ] = None,
    reason: Reason = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Revokes, in all guards that listen, the tokens that have all of these values and were issued until now."""
    before = None if issued_before is None else issued_before.replace(tzinfo=UTC).timestamp()
    named: dict[str, Any] = {"issuer": issuer, "token_id": token_id, "subject": subject, "client_id": client}
    _tell(
        config,
        _endpoint(server, token_file, ca_file),
        lambda: Entry.revoke(**named, session=session, key_id=key, issued_before=before, reason=reason),
    )


def block(
    tool: Tool = None,
    issuer: Issuer = None,
    subject: Subject = None,
    client: Client = None,
    until: Annotated[
        datetime | None, typer.Option(help="When it ends by itself, in UTC. Default: with `fastguard unblock`.")
    ] = None,
    reason: Reason = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Refuses, in all guards that listen, the calls that have all of these values, whatever their tokens and the rules say."""
    end = None if until is None else until.replace(tzinfo=UTC).timestamp()
    named: dict[str, Any] = {"tool": tool, "issuer": issuer, "subject": subject, "client_id": client}
    _tell(
        config,
        _endpoint(server, token_file, ca_file),
        lambda: Entry("block", time.time(), **named, until=end, reason=reason),
    )


def unblock(
    tool: Tool = None,
    issuer: Issuer = None,
    subject: Subject = None,
    client: Client = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Lifts the block that names exactly this."""
    named: dict[str, Any] = {"tool": tool, "issuer": issuer, "subject": subject, "client_id": client}
    _tell(config, _endpoint(server, token_file, ca_file), lambda: Entry("unblock", time.time(), **named))


@revocations_app.command("init")
def begin(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Begins to keep revocations in the server of [state], or begins anew with those that still count.

    Guards refuse all calls while the server has no mark of it, since it may have lost what was revoked.
    """
    settings = _settings(config)
    if settings.store is None:
        raise fail("`revocations.shared` is off: there is no server to begin with")
    kept = _by_server(settings, lambda stream: stream.begin())
    console.print(f"begun, with {kept} entries of before", markup=False, highlight=False)


def _settings(config: Path) -> RevocationSettings:
    try:
        settings = RevocationSettings.of(GuardConfig.from_file(config))
    except GuardConfigError as error:
        raise fail(error) from error
    if settings is None:
        raise fail(f"{config} has no [revocations]: no guard would hear of it")
    return settings


def _endpoint(server: str | None, token_file: str | None, ca_file: Path | None) -> Endpoint | None:
    if server is not None:
        return Endpoint(server, token_file, ca_file)
    if token_file is not None or ca_file is not None:
        raise fail("--token-file and --ca-file are for --server")
    return None


def _tell(config: Path, endpoint: Endpoint | None, make: Callable[[], Entry]) -> None:
    # What is asked of a server needs no configuration at hand.
    settings = _settings(config) if endpoint is None else None
    try:
        entry = make()
    except EntryError as error:
        raise fail(f"{error}: see --help") from error
    if endpoint is not None:
        ask(endpoint, entry)
    if settings is not None:
        _told(settings, entry)


def _told(settings: RevocationSettings, entry: Entry) -> None:
    told = []
    if settings.file is not None:
        try:
            append(settings.file, entry)
        except OSError as error:
            raise fail(f"{settings.file}: {error.strerror}") from error
        told.append(str(settings.file))
    if settings.store is not None:
        _by_server(settings, lambda stream: stream.add(entry))
        told.append(settings.store.url)
    console.print(f"told by {' and '.join(told)}", markup=False, highlight=False)


def _by_server(settings: RevocationSettings, work: Callable[[EntryStream], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        from mcp_fastguard.revocations.stream import EntryStream  # noqa: PLC0415 - needs redis-py

        if settings.store is None:
            return None
        stream = EntryStream(settings.store, settings.key)
        try:
            async with asyncio.timeout(PATIENCE):
                return await work(stream)
        finally:
            await stream.aclose()

    try:
        return asyncio.run(whole())
    except ModuleNotFoundError as error:
        raise fail("needs the extra `state`: pip install 'mcp-fastguard[state]'") from error
    except Exception as error:
        # What a server or its client says may show more than it should.
        ours = type(error).__name__ in {"StreamError", "StoreUnavailable"}
        raise fail(str(error) if ours else f"the server of [state]: {type(error).__name__}") from error
