"""The demonstration: an authorization server, a guarded server and the official client, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import uvicorn
from joserfc.jwk import ECKey
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from rich.console import Console
from rich.table import Table

from mcp_fastguard.cli.records import records, table_of
from mcp_fastguard.dev.authorization_server import AuthorizationServer
from mcp_fastguard.guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

__all__ = ["run"]

HOST: Final = "127.0.0.1"
ISSUER_PORT: Final = 8765
SERVER_PORT: Final = 8766
ISSUER: Final = f"http://{HOST}:{ISSUER_PORT}"
RESOURCE: Final = f"http://{HOST}:{SERVER_PORT}/mcp"

#: The two eras of MCP: without a handshake and with one.
ERAS: Final = {"2026-07-28": "2026-07-28", "2025-11-25": "legacy"}

NARROW: Final = "warehouse:schema:read"
SCHEMA_TOOLS: Final = ["describe_table", "list_schemas", "list_tables"]
ALL_SCOPES: Final = [
    "warehouse:schema:read",
    "warehouse:query:read",
    "catalog:metadata:read",
    "pipeline:trigger:write",
]

QUERY: Final = {"sql": "SELECT country, count(*) AS customers FROM sales.customers GROUP BY country", "max_rows": 5}

console = Console(width=max(Console().width, 140))


class Walk:
    """What was tried, expected and seen."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def row(self, tried: str, expected: object, seen: object) -> None:
        """Notes one step."""
        self.rows.append((tried, str(expected), str(seen)))

    @property
    def differing(self) -> int:
        """How many steps went otherwise than expected."""
        return sum(expected != seen for _, expected, seen in self.rows)

    def table(self) -> Table:
        """The steps, for people."""
        table = Table("", "tried", "expected", "seen", title="What was tried")
        for tried, expected, seen in self.rows:
            mark = "[green]✓[/]" if expected == seen else "[red]✗[/]"
            table.add_row(mark, tried, expected, seen)
        return table


class Memory:
    """Keeps a client's token for the time of one walk."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Stage:
    """Both servers and the keys to them."""

    def __init__(self, issuer: AuthorizationServer, guard: Guard, secrets: dict[str, str]) -> None:
        self.issuer = issuer
        self.guard = guard
        self.secrets = secrets

    def provider(self, client_id: str) -> ClientCredentialsOAuthProvider:
        """The official client's own OAuth: it finds the authorization server and fetches its tokens by itself."""
        return ClientCredentialsOAuthProvider(
            server_url=RESOURCE,
            storage=Memory(),
            client_id=client_id,
            client_secret=self.secrets[client_id],
            token_endpoint_auth_method="client_secret_post",
            issuer=ISSUER,
        )

    @contextlib.asynccontextmanager
    async def client(self, era: str, auth: httpx2.Auth) -> AsyncIterator[Client]:
        """The official client in one era."""
        async with (
            httpx2.AsyncClient(auth=auth, timeout=10, trust_env=False) as http,
            Client(streamable_http_client(RESOURCE, http_client=http), mode=ERAS[era]) as client,
        ):
            yield client


class Bearer(httpx2.Auth):
    """A fixed token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers["authorization"] = f"Bearer {self._token}"
        yield request


# --- servers --------------------------------------------------------------------------------------


def example_folder() -> Path:
    """The folder of the example server.

    Raises:
        FileNotFoundError: this is no checkout of the project.
    """
    folder = Path(__file__).parents[3] / "examples" / "warehouse"
    if not (folder / "fastguard.toml").is_file():
        message = "the demonstration needs a checkout of the project: its server is examples/warehouse"
        raise FileNotFoundError(message)
    return folder


@contextlib.asynccontextmanager
async def serving(app: Any, port: int) -> AsyncIterator[None]:
    """Serves an application on loopback, and ends it."""
    config = uvicorn.Config(app, host=HOST, port=port, log_level="error", proxy_headers=False, lifespan="on")
    server = uvicorn.Server(config)
    # Signals are for the demonstration, not for one of its servers.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            message = f"port {port} of {HOST} cannot be had: is another demonstration running?"
            raise RuntimeError(message)
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Both servers, running."""
    folder = example_folder()
    sys.path.insert(0, str(folder))
    from server import build_app  # noqa: PLC0415 - found in the example's folder

    issuer = AuthorizationServer(ISSUER, RESOURCE)
    secrets = {
        "analyst": issuer.add_client("analyst", ["warehouse:schema:read", "warehouse:query:read"]),
        "engineer": issuer.add_client("engineer", ALL_SCOPES),
    }
    guard = Guard.from_file(folder / "fastguard.toml")
    async with serving(issuer.app(), ISSUER_PORT), serving(build_app(guard), SERVER_PORT):
        yield Stage(issuer, guard, secrets)


# --- the walk -------------------------------------------------------------------------------------


async def post(token: str | None, method: str, params: dict[str, Any] | None = None) -> httpx2.Response:
    """One message of 2026-07-28, by hand."""
    params = dict(params or {})
    params["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "demo", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method,
    }
    if "name" in params:
        headers["mcp-name"] = params["name"]
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await client.post(RESOURCE, json=message, headers=headers)


def seen(response: httpx2.Response) -> str:
    """Status and code of an answer."""
    if response.is_success:
        return str(response.status_code)
    return f"{response.status_code} {response.json()['error']['data']['code']}"


async def called(call: Callable[[], Awaitable[Any]]) -> str:
    """What a client's call came to."""
    try:
        result = await call()
    except MCPError as error:
        return f"error {error.code}"
    return "an error of the tool" if result.is_error else "a result"


async def discovery(walk: Walk) -> None:
    """From a refusal to the authorization server."""
    refused = await post(None, "tools/list")
    challenge = refused.headers.get("www-authenticate", "")
    walk.row("no token", "401 token_missing", seen(refused))
    metadata_url = f"http://{HOST}:{SERVER_PORT}/.well-known/oauth-protected-resource/mcp"
    walk.row("the challenge names the metadata", "yes", "yes" if metadata_url in challenge else challenge)
    async with httpx2.AsyncClient(trust_env=False) as client:
        metadata = (await client.get(metadata_url)).json()
        walk.row("the metadata name the issuer", [ISSUER], metadata["authorization_servers"])
        found = (await client.get(f"{ISSUER}/.well-known/oauth-authorization-server")).json()
        walk.row("the issuer's own metadata agree", ISSUER, found["issuer"])


async def clients(walk: Walk, stage: Stage, era: str) -> None:
    """The official client, with a narrow token, a step-up and a broad one."""
    async with stage.client(era, stage.provider("analyst")) as client:
        names = sorted(tool.name for tool in (await client.list_tools()).tools)
        walk.row(f"{era}: tools that a narrow token sees", SCHEMA_TOOLS, names)
        walk.row(f"{era}: list_schemas", "a result", await called(lambda: client.call_tool("list_schemas", {})))
        walk.row(
            f"{era}: run_query, after the client stepped up",
            "a result",
            await called(lambda: client.call_tool("run_query", QUERY)),
        )
        names = sorted(tool.name for tool in (await client.list_tools()).tools)
        walk.row(f"{era}: tools after the step-up", sorted([*SCHEMA_TOOLS, "run_query"]), names)
    broad = Bearer(stage.issuer.issue("engineer", " ".join(ALL_SCOPES)))
    async with stage.client(era, broad) as client:
        names = sorted(tool.name for tool in (await client.list_tools()).tools)
        expected = sorted([*SCHEMA_TOOLS, "run_query", "get_lineage", "trigger_pipeline"])
        walk.row(f"{era}: tools that a broad token sees", expected, names)
        walk.row(
            f"{era}: trigger_pipeline",
            "a result",
            await called(lambda: client.call_tool("trigger_pipeline", {"name": "load_crm"})),
        )


async def refusals(walk: Walk, stage: Stage) -> None:
    """Tokens that must not pass."""
    issue = stage.issuer.issue
    call = {"name": "list_schemas", "arguments": {}}
    good = issue("analyst", NARROW)
    walk.row("a good token", "200", seen(await post(good, "tools/call", call)))
    weak = await post(good, "tools/call", {"name": "run_query", "arguments": QUERY})
    walk.row("a token without the scope", "403 scope_insufficient", seen(weak))
    named = 'scope="warehouse:query:read"' in weak.headers.get("www-authenticate", "")
    walk.row("the challenge names the scope", "yes", "yes" if named else "no")
    walk.row(
        "a tool that no rule names", "403 target_unknown", seen(await post(good, "tools/call", {"name": "drop_all"}))
    )
    header, payload, signature = good.split(".")
    tampered = f"{header}.{payload[:-4]}{'AAAA' if payload[-4:] != 'AAAA' else 'BBBB'}.{signature}"
    stranger = ECKey.generate_key("P-256", {"kid": "stranger", "use": "sig", "alg": "ES256"})
    # A kid that is not known is asked for once; the answer then is that no such key exists.
    cases = {
        "an expired token": (issue("analyst", NARROW, lifetime=-60), "401 token_expired"),
        "a token for another audience": (
            issue("analyst", NARROW, aud="https://elsewhere.example/mcp"),
            "401 audience_mismatch",
        ),
        "a token of another type": (issue("analyst", NARROW, header={"typ": "JWT"}), "401 type_refused"),
        "a token for 24 hours": (issue("analyst", NARROW, lifetime=86_400), "401 lifetime_too_long"),
        "a tampered token": (tampered, "401 signature_invalid"),
        "a token signed by an unknown key": (issue("analyst", NARROW, key=stranger), "401 key_unknown"),
        "a token of another issuer": (issue("analyst", NARROW, iss="https://evil.example"), "401 issuer_unknown"),
        "a bound token without its proof": (issue("analyst", NARROW, cnf={"jkt": "x" * 43}), "401 proof_missing"),
    }
    for tried, (token, expected) in cases.items():
        walk.row(tried, expected, seen(await post(token, "tools/call", call)))


async def limits(walk: Walk, stage: Stage) -> None:
    """A quota, and the time to come back."""
    token = stage.issuer.issue("hurried", "catalog:metadata:read")
    call = {"name": "get_lineage", "arguments": {"table": "sales.orders"}}
    answers = [seen(await post(token, "tools/call", call)) for _ in range(5)]
    walk.row("five calls of a tool with 5/10s", ["200"] * 5, answers)
    refused = await post(token, "tools/call", call)
    walk.row("the sixth", "429 quota_spent", seen(refused))
    after = refused.headers.get("retry-after", "")
    walk.row("Retry-After is between 1 and 11", "yes", "yes" if after.isdigit() and 1 <= int(after) <= 11 else after)  # noqa: PLR2004
    other = stage.issuer.issue("patient", "catalog:metadata:read")
    walk.row("another principal meanwhile", "200", seen(await post(other, "tools/call", call)))


async def revocation(walk: Walk, stage: Stage) -> None:
    """A token that verified a moment ago."""
    token = stage.issuer.issue("leaver", NARROW, jti="leaver-1")
    call = {"name": "list_schemas", "arguments": {}}
    walk.row("a token before its revocation", "200", seen(await post(token, "tools/call", call)))
    stage.guard.revoke(token_id="leaver-1")
    walk.row("its next call", "401 token_revoked", seen(await post(token, "tools/call", call)))


async def rotation(walk: Walk, stage: Stage) -> None:
    """New keys, while calls go on."""
    call = {"name": "list_schemas", "arguments": {}}
    old = stage.issuer.issue("analyst", NARROW)
    before = stage.guard.key_status()[ISSUER]["fetches"]
    stage.issuer.rotate()
    # An unknown key makes a guard ask once in 30 s, and a stranger has had that turn: so the operator tells it.
    stage.guard.refresh_keys()
    while stage.guard.key_status()[ISSUER]["fetches"] == before:
        walk.row("the old key meanwhile", "200", seen(await post(old, "tools/call", call)))
    new = stage.issuer.issue("analyst", NARROW)
    answers = {seen(await post(token, "tools/call", call)) for token in (old, new, old, new)}
    walk.row("the old and the new key after a rotation", {"200"}, answers)


async def walk_through() -> int:
    """All of it; gives the exit status."""
    walk = Walk()
    async with stage() as found:
        await discovery(walk)
        for era in ERAS:
            await clients(walk, found, era)
        await refusals(walk, found)
        await rotation(walk, found)
        await limits(walk, found)
        await revocation(walk, found)
        found.guard.flush()
        folder = found.guard.audit_folder
    console.print(walk.table())
    if folder is not None:
        noted = list(records(folder))
        shown = table_of(noted)
        shown.title = f"The {shown.row_count} records of those calls, in {folder}"
        console.print(shown)
        walk.row("records", "some", "some" if shown.row_count else "none")
    if walk.differing:
        console.print(f"[red]{walk.differing} of {len(walk.rows)} steps went otherwise than expected[/]")
        return 1
    console.print(f"[green]all {len(walk.rows)} steps went as expected[/]")
    return 0


async def serve_on() -> int:
    """Leaves both servers running, and says how to connect."""
    async with stage() as found:
        token = found.issuer.issue("visitor", " ".join(ALL_SCOPES))
        console.print(f"MCP server            {RESOURCE}")
        console.print(f"authorization server  {ISSUER}")
        for client_id, secret in found.secrets.items():
            console.print(f"client                {client_id} / {secret}", markup=False)
        console.print(
            f"rotate the keys       curl -X POST -H 'Authorization: Bearer {found.issuer.admin_secret}' {ISSUER}/dev/rotate",
            soft_wrap=True,
            markup=False,
        )
        console.print("\nA token for 15 minutes:\n")
        print(token)
        console.print("\nWith MCP Inspector:\n")
        print(
            f"npx @modelcontextprotocol/inspector --cli --server-url {RESOURCE} --transport http "
            f'--header "Authorization: Bearer {token}" --protocol-era modern --stored-auth-only --method tools/list'
        )
        console.print("\nCtrl-C ends it.")
        await asyncio.Event().wait()
    return 0


def run(*, serve: bool = False) -> int:
    """Runs the demonstration; gives the exit status: 0 if every step went as expected."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    try:
        import uvloop  # noqa: PLC0415 - not on Windows

        runner = uvloop.run
    except ImportError:
        runner = asyncio.run  # type: ignore[assignment]
    with contextlib.suppress(KeyboardInterrupt):
        return int(runner(serve_on() if serve else walk_through()))
    return 0
