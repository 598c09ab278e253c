"""One small server under every supported version of the MCP SDK and of FastMCP, each in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

import mcp_fastguard
from support import ISSUER, RESOURCE, records, skip_aloud
from transport_support import client, headers, message, run

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("FASTGUARD_CONTRACT", HERE.parents[1] / ".cache" / "contract"))


class Pair(NamedTuple):
    """An environment (None: the one that runs the tests), the kind of server, the first era that it speaks."""

    environment: str | None
    kind: str
    eras: tuple[str, ...] = ("legacy", "modern")


PAIRS = {
    "mcp 1.30": Pair("contract-oldest-1", "sdk", ("legacy",)),
    "FastMCP 3.4": Pair("contract-oldest-1", "fastmcp", ("legacy",)),
    "mcp 2.0": Pair("contract-oldest-2", "sdk"),
    "mcp 2.0, middleware": Pair("contract-oldest-2", "middleware"),
    "FastMCP 4.0": Pair("contract-oldest-2", "fastmcp"),
    "mcp, installed": Pair(None, "sdk"),
    "mcp, installed, middleware": Pair(None, "middleware"),
    "FastMCP, installed": Pair(None, "fastmcp"),
}
ERAS = [(name, era) for name, pair in PAIRS.items() for era in pair.eras]


def python_of(pair):
    if pair.environment is None:
        return sys.executable
    if platform.system() != "Linux" or platform.machine() != "x86_64" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("environments of other versions are made on Linux on x86-64 with the lock alone")
    found = ENVIRONMENTS / pair.environment / "bin" / "python"
    if not found.exists():
        skip_aloud("the environments that `make interop-tools` makes")
    return str(found)


@pytest.fixture
def spawn(tmp_path, issuer):
    """Starts the server of a pair; the package is on its path alone, without what stands beside it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "mcp_fastguard").symlink_to(Path(mcp_fastguard.__file__).parent)
    (tmp_path / "token").write_text(issuer.token())
    (tmp_path / "fastguard.toml").write_text(
        f"""
        version = 1
        [resource]
        url = "{RESOURCE}"
        [[issuers]]
        issuer = "{ISSUER}"
        algorithms = ["ES256"]
        jwks = '{json.dumps(issuer.jwks)}'
        [limits]
        rules = [{{ per = "principal", quota = "3/minute", method = "tools/call" }}]
        [tools]
        add = {{ open = true }}
        whoami = {{ open = true }}
        secret = {{ scopes = ["secret:use"] }}
        [resources]
        "file:///open.txt" = {{ open = true }}
        [prompts]
        hello = {{ open = true }}
        [stdio]
        token_file = "token"
        """
    )
    processes = []

    def start(pair, transport):
        command = [
            python_of(pair),
            HERE / "server_under_contract.py",
            pair.kind,
            transport,
            tmp_path / "fastguard.toml",
        ]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path"), "FASTMCP_LOG_LEVEL": "ERROR"}
        # A file and not a pipe, which nobody would empty.
        with (tmp_path / "errors").open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=tmp_path,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def serve(spawn, tmp_path):
    def start(pair, transport="http"):
        line = spawn(pair, transport).stdout.readline()
        assert line, (tmp_path / "errors").read_text()[-3000:]
        return f"http://127.0.0.1:{int(line)}/mcp"

    return start


class Log:
    """The log of a server in another process, for :func:`support.records`."""

    def __init__(self, folder):
        self._folder = folder
        logs = [found for found in (folder / "audit").iterdir() if found.name != "registry"]
        (self.audit_folder,) = [found for found in logs if any(found.glob("*.jsonl"))] or [None]

    def flush(self):
        pass


def connected(url, token, era):
    return client(httpx2.AsyncHTTPTransport(), token, era, url=url)


@pytest.mark.parametrize(("name", "era"), ERAS)
def test_client_lists_and_calls_what_it_may_and_no_more(serve, issuer, name, era):
    url = serve(PAIRS[name])

    async def walk():
        async with connected(url, issuer.token(), era) as found:
            assert sorted(tool.name for tool in (await found.list_tools()).tools) == ["add", "whoami"]
            assert [str(entry.uri) for entry in (await found.list_resources()).resources] == ["file:///open.txt"]
            assert [prompt.name for prompt in (await found.list_prompts()).prompts] == ["hello"]
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
            assert json.loads((await found.call_tool("whoami", {})).content[0].text) == ["alice", "alice"]
            assert (await found.read_resource("file:///open.txt")).contents[0].text == "open"
            with pytest.raises(MCPError):
                await found.call_tool("secret", {})
            with pytest.raises(MCPError):
                await found.read_resource("file:///hidden.txt")
            with pytest.raises(MCPError):
                await found.get_prompt("unseen", {})

    run(walk())


class Legacy:
    """A client of raw requests in a session of 2025-11-25."""

    def __init__(self, url, token):
        self._url, self._token, self._session = url, token, None
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, version=None)
        assert answer.status_code == 200, answer.text
        assert "serverInfo" in answer.text, answer.text
        self._session = answer.headers["mcp-session-id"]
        assert self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202

    def post(self, body, *, token=None, version="2025-11-25"):
        sent = headers(token or self._token, version=version)
        if self._session:
            sent["mcp-session-id"] = self._session
        return httpx2.post(self._url, json=body, headers=sent)

    def call(self, tool, arguments, **options):
        params = {"name": tool, "arguments": arguments}
        return self.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, **options)


@pytest.mark.parametrize("name", PAIRS)
def test_refusals_have_status_and_headers_and_the_log_has_each_call_once(serve, issuer, name, tmp_path):
    url = serve(PAIRS[name])
    refused = httpx2.post(url, json=message("tools/list"), headers=headers(None))
    assert (refused.status_code, "resource_metadata=" in refused.headers["www-authenticate"]) == (401, True)
    session = Legacy(url, issuer.token())
    refused = session.call("secret", {})
    assert (refused.status_code, refused.json()["error"]["data"]["code"]) == (403, "scope_insufficient")
    assert session.call("add", {"a": 1, "b": 2}, token=issuer.token(sub="mallory")).status_code == 404
    assert [session.call("whoami", {}).status_code for _ in range(2)] == [200, 200]
    limited = session.call("add", {"a": 1, "b": 2})
    # Refused by its scope, the first call was counted too: limits come before policy.
    assert (limited.status_code, limited.headers["retry-after"].isdigit()) == (429, True)

    def decisions():
        found = [record for record in records(Log(tmp_path)) if record.get("method") == "tools/call"]
        return [
            (record["tool_name"], record["result"])
            for record in found
            if record["event_type"] == "decision" and "mallory" not in json.dumps(record)
        ]

    def rows():
        return [(record.get("output_summary") or {}).get("rows") for record in records(Log(tmp_path))]

    wait_for(lambda: len(decisions()) >= 4 and rows().count(3) >= 2)
    assert decisions() == [("secret", "denied"), ("whoami", "allowed"), ("whoami", "allowed"), ("add", "denied")]
    assert rows().count(3) == 2


def wait_for(condition):
    """Until the log of the other process is on disk."""
    for _ in range(200):
        if condition():
            return
        threading.Event().wait(0.02)
    assert condition()


@pytest.mark.parametrize("name", PAIRS)
def test_message_that_came_round_the_asgi_layer_runs_nothing(serve, issuer, name):
    url = serve(PAIRS[name], "bare")
    if PAIRS[name].kind == "fastmcp":
        # Its auth provider brings the ASGI layer along, so that nothing comes round it.
        assert httpx2.post(url, json=message("tools/list"), headers=headers(None)).status_code == 401
        tampered = issuer.token()[:-4] + "AAAA"
        assert httpx2.post(url, json=message("tools/list"), headers=headers(tampered)).status_code == 401
        return
    session = Legacy(url, issuer.token()) if PAIRS[name].environment == "contract-oldest-1" else None
    post = (
        session.post
        if session
        else lambda body: httpx2.post(url, json=body, headers=headers(issuer.token(), body["method"]))
    )
    for method in ("tools/list", "resources/list", "prompts/list"):
        answer = post(message(method) if session is None else {"jsonrpc": "2.0", "id": 1, "method": method})
        assert "call_unproved" in answer.text, answer.text


def initialized(process):
    """Asks a server on standard input and output, once it has shaken hands."""

    def ask(method, params=None, number=None):
        body = {"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}
        print(json.dumps(body if number is None else {**body, "id": number}), file=process.stdin, flush=True)
        while number is not None:
            with contextlib.suppress(ValueError):
                answer = json.loads(process.stdout.readline())
                if answer.get("id") == number:
                    return answer
        return None

    capabilities = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    assert "result" in ask("initialize", capabilities, 0)
    ask("notifications/initialized")
    return ask


@pytest.mark.parametrize("name", PAIRS)
def test_stdio_takes_its_caller_from_the_configuration(spawn, name):
    ask = initialized(spawn(PAIRS[name], "stdio"))
    assert sorted(tool["name"] for tool in ask("tools/list", None, 1)["result"]["tools"]) == ["add", "whoami"]
    added = ask("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, 2)
    assert added["result"]["content"][0]["text"] == "3"
    refused = json.dumps(ask("tools/call", {"name": "secret", "arguments": {}}, 3))
    assert "this caller may not do this" in refused
    # FastMCP 3 makes every error of a tool call a result, with its message alone.
    assert ("scope_insufficient" in refused) is (name != "FastMCP 3.4")
    assert ask("resources/read", {"uri": "file:///hidden.txt"}, 4).get("error")
    assert ask("resources/read", {"uri": "file:///open.txt"}, 5)["result"]["contents"][0]["text"] == "open"


@pytest.mark.parametrize("name", PAIRS)
def test_r2_spent_limit_is_told_by_a_result_where_that_was_chosen(spawn, name, tmp_path):
    file = tmp_path / "fastguard.toml"
    file.write_text(file.read_text().replace("[limits]\n", '[limits]\nanswer = "result"\n'))
    ask = initialized(spawn(PAIRS[name], "stdio"))

    *answers, last = (ask("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, number) for number in range(4))

    assert [answer["result"]["content"][0]["text"] for answer in answers] == ["3"] * 3
    assert last["result"]["isError"] is True
    assert last["result"]["content"][0]["text"].startswith("too many calls: ")


def test_mcp_1_says_that_it_has_no_middleware(spawn, tmp_path):
    process = spawn(Pair("contract-oldest-1", "direct"), "http")
    process.wait(20)
    assert "guard.mcp_server(server)" in (tmp_path / "errors").read_text()
