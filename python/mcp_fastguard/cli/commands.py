"""The commands. Each prints for people, and exits with 1 where it found something wrong."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mcp_fastguard._fastguard import config_warnings
from mcp_fastguard.cli import explain as explaining
from mcp_fastguard.cli.audit import audit_app
from mcp_fastguard.cli.limits import limits_app
from mcp_fastguard.cli.revocations import block, revocations_app, revoke, unblock
from mcp_fastguard.cli.said import console, errors, fail
from mcp_fastguard.cli.toml import printable
from mcp_fastguard.config import json_schema
from mcp_fastguard.errors import GuardConfigError, GuardError

__all__ = ["app"]

app = typer.Typer(
    name="fastguard",
    no_args_is_help=True,
    add_completion=False,
    # Values of variables could be secrets.
    pretty_exceptions_show_locals=False,
    help="The guard of an MCP server.",
)
token_app = typer.Typer(no_args_is_help=True, help="Looks at access tokens.")
app.add_typer(token_app, name="token")
app.add_typer(audit_app, name="audit")
report_app = typer.Typer(no_args_is_help=True, help="Reports of the audit log.")
app.add_typer(limits_app, name="limits")
app.add_typer(report_app, name="report")
app.add_typer(revocations_app, name="revocations")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", envvar="FASTGUARD_CONFIG", help="The configuration.")]
TokenArgument = Annotated[str, typer.Argument(help="The token's text, or - for standard input.")]
DEFAULT_CONFIG = Path("fastguard.toml")


def _token(text: str) -> str:
    return (sys.stdin.read() if text == "-" else text).strip()


@app.command("check-config")
def check_config(
    config: Annotated[Path, typer.Argument()] = DEFAULT_CONFIG,
    app: Annotated[
        str | None, typer.Option(help="The server, as module:attribute; its tools are held against the rules.")
    ] = None,
) -> None:
    """Checks a configuration: all errors at once, and what is probably not meant.

    With --app: exits with 1 where a tool has no rule, or a rule speaks of no tool.
    """
    try:
        found = explaining.read(config)
    except GuardConfigError as error:
        raise fail(error) from error
    for key, message in found.warnings:
        errors.print(f"warning: {key}: {message}", style="yellow", markup=False, highlight=False)
    if app is not None:
        from mcp_fastguard.cli.gaps import gaps_of  # noqa: PLC0415 - imports the user's server

        try:
            gaps = gaps_of(found.config, app)
        except ValueError as error:
            raise fail(error) from error
        for gap in gaps:
            errors.print(gap, style="red", markup=False, highlight=False)
        if gaps:
            raise typer.Exit(1)
    console.print(f"{config}: ok")


@app.command()
def init(
    idp: Annotated[
        str, typer.Option(help="The identity provider: `fastguard init --idp help` lists them.")
    ] = "rfc9068",
    app: Annotated[
        str | None, typer.Option(help="The server, as module:attribute; each of its tools gets a rule.")
    ] = None,
    resource_url: Annotated[
        str, typer.Option(help="The public URL of the MCP endpoint.")
    ] = "https://mcp.example.com/mcp",
    issuer: Annotated[str, typer.Option(help="For rfc9068.")] = "",
    tenant: Annotated[str, typer.Option(help="For entra, entra-v1.")] = "",
    domain: Annotated[str, typer.Option(help="For okta, auth0, ping.")] = "",
    server: Annotated[str, typer.Option(help="For okta: the authorization server.")] = "default",
    url: Annotated[str, typer.Option(help="For keycloak: its base URL.")] = "",
    realm: Annotated[str, typer.Option(help="For keycloak.")] = "",
    region: Annotated[str, typer.Option(help="For cognito.")] = "",
    pool: Annotated[str, typer.Option(help="For cognito: the user pool's id.")] = "",
    client: Annotated[str, typer.Option(help="For cognito: the app client's id.")] = "",
    repository: Annotated[str, typer.Option(help="For github: owner/name.")] = "",
    environment: Annotated[str, typer.Option(help="For ping: the environment's id.")] = "",
    audience: Annotated[
        str, typer.Option(help="What the provider writes into `aud`. Default: the resource's URL.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The file; - for standard output.")] = DEFAULT_CONFIG,
    *,
    force: Annotated[bool, typer.Option("--force", help="Writes over a file that is there.")] = False,
) -> None:
    """Writes a whole, commented fastguard.toml: the issuer by its provider's recipe, a rule for each tool of a server."""
    from mcp_fastguard.cli.recipes import RECIPES  # noqa: PLC0415 - long texts
    from mcp_fastguard.cli.scaffold import scaffold  # noqa: PLC0415

    recipe = RECIPES.get(idp)
    if recipe is None:
        for name, known in RECIPES.items():
            console.print(
                f"{name}: {known.title}; needs {', '.join(f'--{need}' for need in known.needs)}", markup=False
            )
        raise typer.Exit(0 if idp == "help" else 1)
    given = {
        "issuer": issuer,
        "tenant": tenant,
        "domain": domain,
        "server": server,
        "url": url.rstrip("/"),
        "realm": realm,
        "region": region,
        "pool": pool,
        "client": client,
        "environment": environment,
        "repository": repository,
        "audience": audience or resource_url,
    }
    try:
        table = recipe.toml(given)
        inventory = None
        if app is not None:
            from mcp_fastguard.cli.inventory import load_inventory  # noqa: PLC0415 - imports the user's server

            inventory = load_inventory(app)
        text = scaffold(resource_url, table, inventory)
        config_warnings(text, str(output))
    except ValueError as error:
        raise fail(error) from error
    if str(output) == "-":
        print(text, end="")
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise fail(f"{output} is there already: --force writes over it") from error
    console.print(f"wrote {output}; next: fastguard check-config {output}", markup=False, highlight=False)


@app.command()
def schema() -> None:
    """Prints the JSON Schema of fastguard.toml, for editors."""
    console.print_json(json.dumps(json_schema()))


@token_app.command("inspect")
def inspect(token: TokenArgument) -> None:
    """Shows a token's header and claims. Nothing is verified."""
    try:
        header, claims = explaining.decode(_token(token))
    except ValueError as error:
        raise fail(error) from error
    errors.print("not verified", style="yellow")
    console.print_json(json.dumps({"header": header, "claims": claims}))


@token_app.command("verify")
def verify(token: TokenArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Verifies a token as the configuration's guard would, and names the key that decides."""
    try:
        verdict = explaining.explain_token(config, _token(token))
    except GuardConfigError as error:
        raise fail(error) from error
    _print_verdict(verdict)


@token_app.command("issue")
def issue(
    scope: Annotated[list[str], typer.Option(help="A scope; once for each.")] = [],  # noqa: B006 - typer's way
    subject: Annotated[str, typer.Option("--as", help="Whose token.")] = "alice",
    expires: Annotated[int, typer.Option(help="Seconds until it expires, at most 3600.")] = 900,
) -> None:
    """Prints a token of the authorization server that `fastguard dev` runs in this folder."""
    from mcp_fastguard.dev import workbench  # noqa: PLC0415 - needs the extra `dev`

    try:
        print(workbench.issue(scope, subject=subject, lifetime=expires))
    except ValueError as error:
        raise fail(error) from error


@app.command()
def dev(
    server: Annotated[str, typer.Argument(help="The server, as module:attribute.")],
    port: Annotated[int, typer.Option(help="The server's; the authorization server takes the next one.")] = 8000,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Whose rules and limits hold.")] = None,
) -> None:
    """Runs a server guarded, with an authorization server beside it, on loopback: no identity provider is needed."""
    from mcp_fastguard.dev import workbench  # noqa: PLC0415 - needs the extra `dev`

    try:
        workbench.run(server, port=port, config=config)
    except (ValueError, RuntimeError, GuardError) as error:
        raise fail(error) from error


@app.command()
def explain(
    tool: Annotated[str, typer.Argument(help="The tool's name, or the id of a record of the audit log.")],
    token: Annotated[str, typer.Option(help="The token's text, or - for standard input.")] = "",
    arguments: Annotated[str, typer.Option(help="The arguments, as a JSON object.")] = "{}",
    session: Annotated[str | None, typer.Option(help="The session, if there is one.")] = None,
    audit: Annotated[Path, typer.Option(help="Where records are looked up.")] = Path("audit"),
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Decides a call without charging or recording it: each room's word, and the line that decided.

    With the id of a record: why that call was decided as it was.
    """
    if explaining.is_record_id(tool):
        from mcp_fastguard.cli.records import records  # noqa: PLC0415

        record = next((record for record in records(audit) if record.get("id") == tool), None)
        if record is None:
            raise fail(f"no record `{tool}` in {audit}")
        _print_verdict(explaining.explain_record(config if config.is_file() else None, record))
        return
    try:
        parsed: Any = json.loads(arguments)
        if not isinstance(parsed, dict):
            raise fail("--arguments is not a JSON object")
        verdict = explaining.explain_call(config, tool, parsed, _token(token) or None, session)
    except (GuardConfigError, json.JSONDecodeError) as error:
        raise fail(error) from error
    _print_verdict(verdict)


def _print_verdict(verdict: explaining.Verdict) -> None:
    table = Table("room", "says", "why")
    for room, says, why in verdict.rooms:
        table.add_row(room, says, why)
    console.print(table)
    if verdict.limits:
        limits = Table("limit", "for", "left", "room", "")
        for limit in verdict.limits:
            # As text: names may look like markup.
            names = (Text(printable(name)) for name in (limit.rule, limit.of, limit.left, limit.room))
            said = "refuses" if not limit.has_room else "the least"
            limits.add_row(*names, said if limit.decides else "", style="" if limit.has_room else "red")
        console.print(limits)
    if verdict.decided_by:
        console.print(f"decided by {verdict.decided_by}", markup=False)
    if not verdict.is_allowed:
        raise typer.Exit(1)


@report_app.command("observed")
def report_observed(
    path: Annotated[Path, typer.Argument(help="The folder of the logs, or one log.")] = Path("audit"),
) -> None:
    """Groups what observed rooms would have refused, and prints the TOML that would allow it."""
    from mcp_fastguard.cli.observed import groups, table_of_groups, toml_for  # noqa: PLC0415 - reads files only when asked
    from mcp_fastguard.cli.records import records  # noqa: PLC0415

    if not path.is_dir():
        raise fail(f"{path}: no such folder; `fastguard dev` keeps its records in .fastguard/audit")
    found = groups(records(path))
    if not found:
        console.print("nothing would have been refused")
        return
    console.print(table_of_groups(found))
    # Plain, so that it can be pasted.
    print(toml_for(found, options="" if path == Path("audit") else f" --audit {shlex.quote(str(path))}"))


@app.command()
def demo(
    *,
    serve: Annotated[
        bool, typer.Option("--serve", help="Leave the servers running, for a client of your own.")
    ] = False,
) -> None:
    """Runs the whole thing on loopback: authorization server, guarded server, official client, attacks."""
    from mcp_fastguard.dev import demo as demonstration  # noqa: PLC0415 - needs the extra `dev`

    try:
        raise typer.Exit(demonstration.run(serve=serve))
    except GuardError as error:
        raise fail(error) from error


for command in (revoke, block, unblock):
    app.command()(command)
