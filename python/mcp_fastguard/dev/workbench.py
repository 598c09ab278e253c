"""`fastguard dev`: a person's own server, guarded, with an authorization server beside it. On loopback only."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2

from mcp_fastguard.cli.inventory import load_server
from mcp_fastguard.cli.scaffold import proposed_scope
from mcp_fastguard.config import GuardConfig, scopes_of_rules
from mcp_fastguard.dev.authorization_server import LIFETIME, AuthorizationServer
from mcp_fastguard.dev.loopback import require_loopback
from mcp_fastguard.dev.serving import bound, interrupted, serving
from mcp_fastguard.dev.serving import run as run_on_loop
from mcp_fastguard.guard import Guard
from mcp_fastguard.transport.offers import inventory_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["PRIVATE", "Workbench", "issue", "opened", "run"]

#: Where the running authorization server is found by `fastguard token issue`. It holds a secret.
PRIVATE: Final = Path(".fastguard") / "dev.json"

#: Keys of `[[issuers]]` that speak of a provider's tokens, which ours are not.
_RULES: Final = ("tools", "prompts", "resources", "methods", "limits", "scopes", "observe", "tokens")


class Workbench:
    """What runs: the server's URL, the authorization server, and the guard between them."""

    def __init__(self, url: str, issuer: AuthorizationServer, guard: Guard, scopes: list[str]) -> None:
        self.url = url
        self.issuer = issuer
        self.guard = guard
        self.scopes = scopes


@contextlib.asynccontextmanager
async def opened(
    place: str, *, port: int = 8000, config: Path | None = None, private: Path = PRIVATE
) -> AsyncIterator[Workbench]:
    """Runs the server at ``module:attribute``, guarded.

    Args:
        place: an ``MCPServer`` or a ``FastMCP``.
        port: the server's; the authorization server takes the next one.
        config: whose rules and limits hold; its issuers, its URL and its log are left aside. None proposes a scope for each tool.
        private: where `fastguard token issue` finds the authorization server.

    Raises:
        ValueError: there is no such server.
        GuardConfigError: the configuration cannot be used.
        RuntimeError: an address is taken.
    """
    server = load_server(place)
    if not hasattr(server, "list_tools"):
        message = f"`{place}` is no MCPServer or FastMCP: {type(server).__name__}"
        raise ValueError(message)
    url, issuer_url = f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{port + 1}"
    rules = await _rules(server, config)
    # People who log in by browser may allow every scope that the rules name.
    scopes = sorted(scopes_of_rules(rules))
    issuer = AuthorizationServer(issuer_url, url, scopes=scopes)
    settings = {
        "version": 1,
        "resource": {"url": url},
        "issuers": [{"issuer": issuer_url, "jwks_uri": f"{issuer_url}/jwks", "allow_http_loopback": True}],
        "audit": {"path": str(private.parent.resolve() / "audit")},
        **rules,
    }
    with (
        bound("127.0.0.1", port + 1) as issuing,
        bound("127.0.0.1", port) as listening,
        Guard.from_dict(settings) as guard,
    ):
        app = _guarded(server, guard)
        # A code or refresh token that came twice was stolen: the login's access tokens die with it.
        issuer.on_revoked(lambda session: guard.revoke(issuer=issuer_url, session=session))
        async with serving(issuer.app(), issuing), serving(app, listening):
            with _found(private, issuer):
                yield Workbench(url, issuer, guard, scopes)


async def _rules(server: Any, config: Path | None) -> dict[str, Any]:
    if config is not None:
        parsed = GuardConfig.from_file(config).tables
        return {name: parsed[name] for name in _RULES if name in parsed}
    inventory = await inventory_of(server)
    opened_to_all = {
        "prompts": {offer.name: {"open": True} for offer in inventory.prompts},
        "resources": {offer.name: {"open": True} for offer in inventory.resources},
    }
    tools = {tool.name: {"scopes": [proposed_scope(tool)]} for tool in inventory.tools}
    return {"tools": tools, **opened_to_all}


def _guarded(server: Any, guard: Guard) -> Any:
    """The server's own ASGI application, with both layers in front.

    They stand in the place of those of a guard that the server has already, which knows no issuer of tokens that runs here.
    """
    if hasattr(server, "http_app"):
        from mcp_fastguard.transport.fastmcp import GuardAuthProvider, GuardFastMCPMiddleware  # noqa: PLC0415 - `fastmcp`

        others = [layer for layer in server.middleware if not isinstance(layer, GuardFastMCPMiddleware)]
        # Before all others, so that nothing runs before the decision.
        server.middleware[:] = [guard.fastmcp_middleware(), *others]
        if isinstance(server.auth, GuardAuthProvider):
            server.auth = None
        return guard.asgi(server.http_app(path="/mcp"))
    from mcp_fastguard.transport.mcp_sdk import without_guard  # noqa: PLC0415 - needs the `mcp` package

    without_guard(server)
    guard.mcp_server(server)
    return guard.asgi(server.streamable_http_app())


@contextlib.contextmanager
def _found(private: Path, issuer: AuthorizationServer) -> Any:
    """Lets commands of the same person find the authorization server while it runs."""
    private.parent.mkdir(mode=0o700, exist_ok=True)
    private.unlink(missing_ok=True)
    # For its owner alone from the first byte on: whoever reads it can issue tokens.
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"issuer": issuer.issuer, "secret": issuer.admin_secret}, file)
    try:
        yield
    finally:
        private.unlink(missing_ok=True)


def run(place: str, *, port: int, config: Path | None) -> None:
    """Runs until it is interrupted, and says how to go on."""

    async def forever() -> int:
        async with opened(place, port=port, config=config) as bench:
            scopes = " ".join(f"--scope {scope}" for scope in bench.scopes) or "--scope any"
            print(f"guarded server        {bench.url}")
            print(f"authorization server  {bench.issuer.issuer}")
            print(f"a token               fastguard token issue --as alice {scopes}")
            print(
                f"MCP Inspector         npx @modelcontextprotocol/inspector --cli --server-url {bench.url} --transport http \\"
            )
            print('                        --header "Authorization: Bearer $TOKEN" --method tools/list')
            print("records               fastguard audit show .fastguard/audit")
            # The private file goes with the server that is told to end.
            await interrupted()
        return 0

    with contextlib.suppress(KeyboardInterrupt):
        run_on_loop(forever())


def issue(scopes: Sequence[str], *, subject: str, lifetime: int = LIFETIME, private: Path = PRIVATE) -> str:
    """A token of the authorization server that `fastguard dev` runs.

    Raises:
        ValueError: none runs here, or it refused.
    """
    try:
        found = json.loads(private.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"no `fastguard dev` runs in this folder ({private} is not there)"
        raise ValueError(message) from error
    require_loopback(httpx2.URL(found["issuer"]).host)
    try:
        answer = httpx2.post(
            f"{found['issuer']}/dev/token",
            headers={"authorization": f"Bearer {found['secret']}"},
            data={"subject": subject, "scope": " ".join(scopes), "lifetime": str(lifetime)},
            trust_env=False,
            timeout=10,
        )
    except httpx2.TransportError as error:
        message = f"`fastguard dev` does not answer at {found['issuer']}"
        raise ValueError(message) from error
    if not answer.is_success:
        message = f"the authorization server refused: {answer.text}"
        raise ValueError(message)
    token: str = answer.json()["access_token"]
    return token
