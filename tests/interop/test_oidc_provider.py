"""npm's oidc-provider as authorization server, and panva's `oauth4webapi` and `dpop` as clients: none of it written here.

MCP's TypeScript SDK makes no proofs of its own: `test_typescript_sdk.py` has it call with those of `dpop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from certificate_support import Holder
from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.client import ClientCredentials, DPoPAuth
from mcp_fastguard.errors import Denied
from node_support import TOOLS, node_binary
from servers_support import free_port, free_socket, running, started
from transport_support import headers, message

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
CALL = message("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})


@pytest.fixture(scope="module")
def node():
    """The pinned Node."""
    return node_binary()


class Provider:
    """The authorization server in a process of its own."""

    def __init__(self, node, **options):
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        command = [node, HERE / "oidc_provider.mjs", TOOLS, str(self.port), json.dumps(options)]
        self.process = started(command, self.port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def token(self, resource, scope="sums:read", certificate=None):
        form = {"grant_type": "client_credentials", "scope": scope}
        if resource is not None:
            form["resource"] = resource
        extra = {"x-test-certificate": certificate} if certificate else {}
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=("agent", "agent-secret"), headers=extra)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def revoke(self, token):
        answer = httpx2.post(f"{self.issuer}/token/revocation", data={"token": token}, auth=("agent", "agent-secret"))
        assert answer.status_code == 200, answer.text

    def rotate(self):
        httpx2.post(f"{self.issuer}/control/rotate").raise_for_status()

    def stop(self):
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def make_provider(node):
    made = []

    def make(**options):
        made.append(Provider(node, **{"algorithm": "ES256", "nonce": False, **options}))
        return made[-1]

    yield make
    for provider in made:
        provider.stop()


@pytest.fixture
def make_guard(tmp_path):
    made = []

    def make(provider, port=80, **tables):
        made.append(
            Guard.from_dict(
                {
                    "version": 1,
                    "resource": {"url": f"http://127.0.0.1:{port}/mcp"},
                    "issuers": [
                        {
                            "issuer": provider.issuer,
                            "allow_http_loopback": True,
                            "algorithms": ["ES256", "RS256", "EdDSA"],
                        }
                    ],
                    "tools": {"add": {"scopes": ["sums:read"]}, "other": {"scopes": ["other:read"]}},
                    "audit": {"path": str(tmp_path / f"audit-{len(made)}")},
                    **tables,
                }
            )
        )
        return made[-1]

    yield make
    for guard in made:
        guard.close()


def request(token, tool="add"):
    return ToolRequest.direct(tool=tool, arguments={}, token=token)


def refusal(guard, token, tool="add"):
    with pytest.raises(Denied) as denied:
        asyncio.run(guard.authorize(request(token, tool)))
    return denied.value


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_tokens_pass_as_audience_and_scopes_say(make_provider, make_guard, algorithm):
    provider = make_provider(algorithm=algorithm)
    guard = make_guard(provider)
    resource = guard.config.resource_url

    allowed = asyncio.run(guard.authorize(request(provider.token(resource))))

    assert (allowed.issuer, allowed.client_id, allowed.scopes) == (provider.issuer, "agent", ("sums:read",))
    assert refusal(guard, provider.token(resource), "other").code == "scope_insufficient"
    assert refusal(guard, provider.token("http://127.0.0.1:81/mcp")).code == "audience_mismatch"
    # Without a resource its tokens are opaque: nothing that a guard without introspection could read.
    assert refusal(guard, provider.token(None)).code == "token_malformed"


def test_rotation_and_end_under_load_give_no_wrong_answer(make_provider, make_guard):
    provider = make_provider()
    guard = make_guard(provider, limits={"rules": [{"per": "principal", "quota": "1000000/minute"}]})
    resource = guard.config.resource_url
    first = provider.token(resource)
    outcomes = []

    async def load(token, until, expected):
        while not until.is_set():
            try:
                await guard.authorize(request(token))
                outcomes.append((expected, "allowed"))
            except Denied as denied:
                outcomes.append((expected, denied.code))
            await asyncio.sleep(0)

    async def walk():
        await guard.authorize(request(first))
        until = asyncio.Event()
        old = asyncio.create_task(load(first, until, "old"))
        await asyncio.to_thread(provider.rotate)
        second = await asyncio.to_thread(provider.token, resource)
        new = asyncio.create_task(load(second, until, "new"))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(provider.rotate)
        third = await asyncio.to_thread(provider.token, resource)
        provider.stop()
        newest = asyncio.create_task(load(third, until, "unknown"))
        await asyncio.sleep(0.5)
        until.set()
        await asyncio.gather(old, new, newest)

    asyncio.run(walk())
    of = {kind: {code for found, code in outcomes if found == kind} for kind in ("old", "new", "unknown")}
    # The old key was withdrawn by the first rotation: its token passes until the guard has seen so, and never again.
    assert of["old"] == {"allowed", "key_unknown"}
    assert [code for kind, code in outcomes if kind == "old"].index("key_unknown") == sum(
        code == "allowed" for kind, code in outcomes if kind == "old"
    )
    # The first call with the new key waits for the fetch; none fails. Its key serves on when the issuer is gone.
    assert of["new"] == {"allowed"}
    # Whether the newest key is the issuer's cannot be known: 503, not 401.
    assert of["unknown"] == {"keys_unavailable"}


# --- tokens that say nothing by themselves -------------------------------------------------------


def test_opaque_token_passes_by_what_the_server_says_of_it_until_it_is_revoked(make_provider, make_guard, tmp_path):
    provider = make_provider(opaque=True)
    secret_file = tmp_path / "secret"
    secret_file.write_text("mcp-secret")
    # The endpoint is found in its metadata.
    table = {
        "issuer": provider.issuer,
        "allow_http_loopback": True,
        "introspection_client_id": "mcp",
        "introspection_client_secret_file": str(secret_file),
        "introspection_cache": 0,
    }
    guard = make_guard(provider, issuers=[table])
    resource = guard.config.resource_url
    token = provider.token(resource)
    assert "." not in token

    allowed = asyncio.run(guard.authorize(request(token)))

    assert (allowed.issuer, allowed.client_id, allowed.scopes) == (provider.issuer, "agent", ("sums:read",))
    assert refusal(guard, token, "other").code == "scope_insufficient"
    assert refusal(guard, provider.token("http://127.0.0.1:81/mcp")).code == "audience_mismatch"
    assert refusal(guard, "made-up").code == "token_inactive"
    provider.revoke(token)
    assert refusal(guard, token).code == "token_inactive"
    secret_file.write_text("wrong")
    assert refusal(guard, provider.token(resource)).code == "introspection_unavailable"


# --- tokens that are bound to a key --------------------------------------------------------------


@contextlib.contextmanager
def serving(provider, make_guard, **tables):
    """A guarded server of the SDK on a port of its own: its URL."""
    bound = free_socket()
    guard = make_guard(provider, bound.getsockname()[1], **tables)
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = guard.asgi(mcp.streamable_http_app(transport_security=security, json_response=True))
    with running("uvicorn", app, socket=bound):
        yield guard


def of_panva(node, provider, resource, **options):
    given = {
        "client": "oauth4webapi",
        "algorithm": "ES256",
        "calls": 2,
        "issuer": provider.issuer,
        "resource": resource,
        "scope": "sums:read",
        "headers": headers(None, "tools/call", "add"),
        "body": json.dumps(CALL),
        **options,
    }
    done = subprocess.run(
        [node, HERE / "dpop_client.mjs", TOOLS, json.dumps(given)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("nonce", [False, True], ids=["no nonce", "nonces"])
@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "RS256"])
@pytest.mark.parametrize("client", ["oauth4webapi", "dpop"])
def test_clients_of_others_get_bound_tokens_and_call_with_proofs(  # noqa: PLR0917
    node, make_provider, make_guard, client, algorithm, nonce
):
    provider = make_provider(nonce=nonce)
    dpop = {
        "mode": "required",
        "algorithms": ["ES256", "EdDSA", "Ed25519", "RS256"],
        "nonce": "required" if nonce else "off",
    }
    with serving(provider, make_guard, dpop=dpop) as guard:
        said = of_panva(node, provider, guard.config.resource_url, client=client, algorithm=algorithm)

    assert said["type"].lower() == "dpop"
    assert [result["status"] for result in said["results"]] == [200, 200], said
    assert json.loads(said["results"][0]["body"])["result"]["content"][0]["text"] == "3"


def test_proof_of_an_algorithm_that_is_not_opted_in_is_refused(node, make_provider, make_guard):
    provider = make_provider()
    with serving(provider, make_guard, dpop={"mode": "required"}) as guard:
        said = of_panva(node, provider, guard.config.resource_url, algorithm="RS256", calls=1)

    [result] = said["results"]
    assert result["status"] == 401
    assert json.loads(result["body"])["error"]["data"]["code"] == "proof_algorithm_refused"


@pytest.mark.parametrize("nonce", [False, True], ids=["no nonce", "nonces"])
def test_our_client_gets_a_bound_token_there(make_provider, make_guard, nonce):
    provider = make_provider(nonce=nonce)
    with serving(provider, make_guard, dpop={"mode": "required"}) as guard:
        resource = guard.config.resource_url
        source = ClientCredentials(
            f"{provider.issuer}/token",
            client_id="agent",
            client_secret="agent-secret",
            resource=resource,
            scopes=["sums:read"],
        )
        with httpx2.Client(auth=DPoPAuth(source)) as http:
            answer = http.post(resource, json=CALL, headers=headers(None, "tools/call", "add"))
            stolen = answer.request.headers["authorization"].split(" ")[1]
            as_bearer = httpx2.post(resource, json=CALL, headers=headers(stolen, "tools/call", "add"))

    assert answer.status_code == 200
    assert (as_bearer.status_code, as_bearer.json()["error"]["data"]["code"]) == (401, "bound_as_bearer")


def test_token_bound_to_a_certificate_passes_with_that_certificate_alone(make_provider, make_guard):
    provider = make_provider(certificates=True)
    one, other = Holder(), Holder()
    tables = {"proxies": {"addresses": ["127.0.0.1"]}, "certificates": {"source": "client-cert"}}
    with serving(provider, make_guard, **tables) as guard:
        resource = guard.config.resource_url
        token = provider.token(resource, certificate=one.base64)
        codes = []
        for certificate in (one, other, None):
            found = headers(token, "tools/call", "add")
            if certificate is not None:
                name, value = certificate.header("client-cert")
                found[name] = value
            answer = httpx2.post(resource, json=CALL, headers=found)
            codes.append(200 if answer.is_success else answer.json()["error"]["data"]["code"])

    assert codes == [200, "certificate_mismatch", "certificate_missing"]
