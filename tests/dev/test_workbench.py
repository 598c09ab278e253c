"""`fastguard dev` and `fastguard token issue`: a server of one's own, guarded, with tokens, on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_fastguard.dev.workbench import issue
from support import Issuer
from test_init import SERVERS, TOOLS

#: What a server's module says once its own guard is in place, by what it said before.
GUARDS = {
    "fastmcp": ("mcp = FastMCP(", "middleware=[guard.fastmcp_middleware()], auth=guard.fastmcp_auth()"),
    "sdk": ("mcp = MCPServer(", "middleware=[guard.mcp_middleware()]"),
}
OWN = """\
from mcp_fastguard import Guard
guard = Guard.from_dict({"version": 1, "resource": {"url": "https://mcp.example.com/mcp"}, "audit": {"enabled": False},
    "tools": {"*": {"scopes": ["of:production"]}},
    "issuers": [{"issuer": "https://auth.example.com", "jwks": KEYS, "algorithms": ["ES256"]}]})
"""


def with_guard(name, text):
    """The server with a guard of its own, as it is after the first afternoon."""
    made, arguments = GUARDS[name]
    assert f'{made}"shop")' in text
    own = OWN.replace("KEYS", repr(Issuer().jwks))
    return own + text.replace(f'{made}"shop")', f'{made}"shop", {arguments})')


@pytest.fixture(params=[*sorted(SERVERS), *(f"{name} with a guard" for name in sorted(GUARDS))])
def bench(request, tmp_path, free_ports):
    """`fastguard dev` as a person runs it."""
    name, _, is_guarded = request.param.partition(" ")
    bare = SERVERS[name] + TOOLS.replace("odd name\\n[tools.evil]", "odd")
    (tmp_path / "server.py").write_text(with_guard(name, bare) if is_guarded else bare)
    port = free_ports
    command = [sys.executable, "-m", "mcp_fastguard.cli", "dev", "server:mcp", "--port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("records"):
            break
    assert lines[-1].startswith("records"), "".join(lines)
    yield tmp_path, f"http://127.0.0.1:{port}/mcp", "".join(lines)
    process.terminate()
    process.wait(20)
    process.stdout.close()
    assert not (tmp_path / ".fastguard" / "dev.json").exists()


def token(folder, *arguments):
    command = [sys.executable, "-m", "mcp_fastguard.cli", "token", "issue", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_server_is_guarded_and_tokens_are_issued(bench):
    folder, url, told = bench
    assert f"guarded server        {url}" in told
    assert oct((folder / ".fastguard" / "dev.json").stat().st_mode & 0o777) == "0o600"
    assert httpx2.post(url, json={}).status_code == 401
    printed = token(folder, "--scope", "order:read", "--as", "carol")
    assert printed.returncode == 0, printed.stderr

    async def walk():
        headers = {"authorization": f"Bearer {printed.stdout.strip()}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["list_orders"]
            assert not (await client.call_tool("list_orders", {})).is_error

    asyncio.run(asyncio.wait_for(walk(), 30))


def test_secret_is_needed_to_issue(bench):
    _, url, _ = bench
    port = httpx2.URL(url).port
    refused = httpx2.post(
        f"http://127.0.0.1:{port + 1}/dev/token",
        data={"subject": "mallory", "scope": "order:read", "lifetime": "60"},
        headers={"authorization": "Bearer guess"},
    )
    assert refused.status_code == 403


def test_no_server_no_token(tmp_path):
    done = token(tmp_path, "--scope", "a")

    assert (done.returncode, done.stdout) == (1, "")
    assert "no `fastguard dev` runs" in done.stderr


def test_secret_is_sent_to_loopback_only(tmp_path):
    file = tmp_path / "dev.json"
    file.write_text('{"issuer": "https://evil.example", "secret": "s"}')

    with pytest.raises(ValueError, match="loopback only"):
        issue(["a"], subject="alice", private=file)


@pytest.mark.parametrize(("place", "message"), [("nothing:mcp", "cannot be imported"), ("json:dumps", "no MCPServer")])
def test_dev_says_what_it_cannot_run(tmp_path, place, message):
    command = [sys.executable, "-m", "mcp_fastguard.cli", "dev", place]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert message in done.stderr
