"""What the demonstration plays on: both servers in this process, and clients that note what goes over the wire."""

from __future__ import annotations

import contextlib
import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client

from mcp_fastguard.dev.authorization_server import AuthorizationServer
from mcp_fastguard.dev.serving import bound, has_keys, serving
from mcp_fastguard.guard import Guard

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

__all__ = [
    "ALL_SCOPES",
    "ERAS",
    "NARROW",
    "QUERYING",
    "Bearer",
    "Stage",
    "Trail",
    "guarded",
    "issuing",
    "outcome",
]

#: The two eras of MCP, without and with a handshake, and what the official client calls them.
ERAS: Final = {"2026-07-28": "2026-07-28", "2025-11-25": "legacy"}

NARROW: Final = "warehouse:schema:read"
QUERYING: Final = "warehouse:query:read"
ALL_SCOPES: Final = (NARROW, QUERYING, "catalog:metadata:read", "pipeline:trigger:write")


class Stage:
    """The authorization server and its clients' secrets, and the guard of the warehouse."""

    def __init__(self, issuer: AuthorizationServer, secrets: Mapping[str, str], guard: Guard) -> None:
        self.issuer = issuer
        self.secrets = secrets
        self.guard = guard
        self.resource = issuer.resource

    def provider(self, client_id: str) -> ClientCredentialsOAuthProvider:
        """The official client's own OAuth: it finds the authorization server and fetches its tokens by itself."""
        return ClientCredentialsOAuthProvider(
            server_url=self.resource,
            storage=_Memory(),
            client_id=client_id,
            client_secret=self.secrets[client_id],
            issuer=self.issuer.issuer,
        )

    @contextlib.asynccontextmanager
    async def client(self, era: str, auth: httpx2.Auth, trail: Trail | None = None) -> AsyncIterator[Client]:
        """The official client in one era."""
        hooks = {"response": [trail.note]} if trail else {}
        async with (
            httpx2.AsyncClient(auth=auth, timeout=10, trust_env=False, event_hooks=hooks) as http,
            # Lists are asked for anew each time: a step-up changes them.
            Client(streamable_http_client(self.resource, http_client=http), mode=ERAS[era], cache=None) as client,
        ):
            yield client

    async def post(  # noqa: PLR0913 - what a message is made of
        self,
        era: str,
        token: str | None,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        scheme: str = "Bearer",
        proof: str | None = None,
        auth: httpx2.Auth | None = None,
        on_the_way: Callable[[httpx2.Request], None] | None = None,
    ) -> httpx2.Response:
        """One message by hand, for tokens and proofs that no client would send. ``on_the_way`` changes what goes out."""

        async def meddle(request: httpx2.Request) -> None:
            if on_the_way is not None:
                on_the_way(request)

        params = dict(params or {})
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": era}
        if ERAS[era] != "legacy":
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": era,
                "io.modelcontextprotocol/clientInfo": {"name": "demo", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            headers |= {"mcp-method": method} | ({"mcp-name": params["name"]} if "name" in params else {})
        if token is not None:
            headers["authorization"] = f"{scheme} {token}"
        if proof is not None:
            headers["dpop"] = proof
        async with httpx2.AsyncClient(
            auth=auth, trust_env=False, timeout=10, event_hooks={"request": [meddle]}
        ) as client:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return await client.post(self.resource, json=message, headers=headers)


class Trail:
    """What a client exchanged, in order. Notifications and the stream for them come when they like, and are left out."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def note(self, response: httpx2.Response) -> None:
        """Takes note of one answer."""
        request = response.request
        if request.url.path != "/mcp":
            path = "/".join(request.url.path.split("/")[:3])
            self.steps.append(f"{request.method} {path} {response.status_code}")
        elif request.method == "POST" and "id" in (message := json.loads(request.content)):
            await response.aread()
            self.steps.append(f"{message['method']} {outcome(response)}")

    def taken(self) -> str:
        """What was noted since the last time."""
        steps, self.steps = self.steps, []
        return ", ".join(steps)


def outcome(response: httpx2.Response) -> str:
    """Status of an answer, and the guard's code if it is a refusal."""
    if response.is_success:
        return str(response.status_code)
    try:
        code = response.json()["error"]["data"]["code"]
    except (ValueError, LookupError, TypeError):
        code = "without a code"
    return f"{response.status_code} {code}"


class Bearer(httpx2.Auth):
    """A fixed token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        """Sends it once; a refusal is final."""
        request.headers["authorization"] = f"Bearer {self._token}"
        yield request


class _Memory:
    """Keeps a client's token while it runs."""

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


# --- servers --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def issuing() -> AsyncIterator[tuple[AuthorizationServer, dict[str, str]]]:
    """The authorization server on the address that the example's configuration names, and the secrets of its two clients.

    Raises:
        RuntimeError: this is no checkout of the project, or the address is taken.
    """
    with (_example_folder() / "fastguard.toml").open("rb") as file:
        configuration = tomllib.load(file)
    issuer = AuthorizationServer(configuration["issuers"][0]["issuer"], configuration["resource"]["url"])
    secrets = {
        "analyst": issuer.add_client("analyst", [NARROW, QUERYING]),
        "engineer": issuer.add_client("engineer", ALL_SCOPES),
    }
    with _bound(issuer.issuer) as listening:
        async with serving(issuer.app(), listening):
            yield issuer, secrets


@contextlib.asynccontextmanager
async def guarded(issuer: AuthorizationServer, secrets: Mapping[str, str], **tables: Any) -> AsyncIterator[Stage]:
    """The warehouse behind a guard of its own; ``tables`` are put into the example's configuration.

    Raises:
        RuntimeError: the address is taken.
        TimeoutError: the guard could not fetch the keys of the authorization server.
    """
    folder = _example_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from server import build_app  # noqa: PLC0415 - found in the example's folder

    with (folder / "fastguard.toml").open("rb") as file:
        configuration = {**tomllib.load(file), **tables}
    with _bound(issuer.resource) as listening, Guard.from_dict(configuration, folder=folder) as guard:
        async with serving(build_app(guard), listening):
            await has_keys(guard, issuer.issuer)
            yield Stage(issuer, secrets, guard)


def _example_folder() -> Path:
    folder = Path(__file__).parents[3] / "examples" / "warehouse"
    if not (folder / "fastguard.toml").is_file():
        message = "the demonstration needs a checkout of the project: its server is examples/warehouse"
        raise RuntimeError(message)
    return folder


def _bound(url: str) -> socket.socket:
    """A socket on the address of a URL."""
    address = urlsplit(url)
    return bound(address.hostname or "", address.port or 80)
