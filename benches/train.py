"""What a build is tuned to: `maturin --pgo` runs this with an instrumented build, and lays out the next one by what it has counted.

It needs the package alone. Tokens and a proof stand ready in `training.json`, and time stands still at theirs, so that nothing is signed.
What a server does with good calls comes most; what it refuses comes too, so that an attack meets code that was seen to run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from mcp_fastguard import Denied, Guard, ToolRequest
from mcp_fastguard._fastguard import whole_body
from mcp_fastguard.binding import DPoPVerifier
from mcp_fastguard.call import Call
from mcp_fastguard.limits import SlidingWindow
from mcp_fastguard.token import KeySet, TokenVerifier

GIVEN = json.loads(Path(__file__).with_name("training.json").read_text())
NOW = float(GIVEN["now"])
TOKENS = GIVEN["tokens"]
ISSUER, RESOURCE = "https://auth.example.com", "https://mcp.example.com/mcp"
ARGUMENTS = {
    "sql": "SELECT country, count(*) AS customers FROM sales.customers GROUP BY country LIMIT 5",
    "max_rows": 100,
}
RESULT = {
    "content": [{"type": "text", "text": "country,customers\nNO,7"}],
    "structuredContent": {"rows": [1, 2]},
    "isError": False,
}


def guard(folder: Path, **changes) -> Guard:
    table = {
        "version": 1,
        "resource": {"url": RESOURCE},
        "issuers": [{"issuer": ISSUER, "jwks": GIVEN["keys"], "algorithms": ["RS256", "ES256", "EdDSA"]}],
        "limits": {
            "rules": [
                {"per": "principal", "quota": "4000000000/minute"},
                {"per": "session", "quota": "4000000000/minute"},
                {"per": "tool", "quota": "4000000000/minute"},
            ],
        },
        "tools": {
            "run_query": {"scopes": ["warehouse:query:read"], "read_only": True},
            "drop_table": {"scopes": ["warehouse:schema:write"]},
        },
        "audit": {"path": str(folder)},
    }
    return Guard.from_dict({**table, **changes})


def over_http(token: str, tool: str, arguments: dict) -> dict:
    """The scope of a request, with its first message."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 1}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = [
        (b"host", b"mcp.example.com"),
        (b"user-agent", b"python-httpx2/2.16.2"),
        (b"accept", b"application/json, text/event-stream"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"),
        (b"mcp-name", tool.encode()),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"authorization", b"Bearer " + token.encode()),
    ]
    message = {"type": "http.request", "body": body, "more_body": False}
    return {
        "type": "http",
        "method": "POST",
        "path": "/mcp",
        "query_string": b"",
        "root_path": "",
        "extensions": {},
        "headers": headers,
        "client": ("192.0.2.7", 1234),
        "message": message,
    }


def request_of(scope: dict) -> ToolRequest:
    return ToolRequest.of_scope(scope["path"], scope, whole_body(scope["message"]))


def checks(found: Guard, count: int) -> None:
    """As servers that ask by themselves do."""
    for number in range(count):
        found.check(ToolRequest.direct(tool="run_query", arguments=ARGUMENTS, token=TOKENS["ES256"]), now=NOW)
        if number % 1_000 == 0:
            found.flush(60)


def served(found: Guard, count: int) -> None:
    """What the layers of a server ask of the core for one call."""
    gate, params = found.gate, {"name": "run_query", "arguments": ARGUMENTS}
    gate.tell_time_by(lambda: NOW)
    scopes = [over_http(TOKENS[algorithm], "run_query", ARGUMENTS) for algorithm in ("ES256", "RS256")]
    for number in range(count):
        call = Call(found, request_of(scopes[number % 2]), observes=True)
        if not call._decide() or call.needs_layer or not call.take("tools/call", params):
            sys.exit("a call went another way than it should")
        call.settle_at_once()
        call._look_again()
        call.finish(RESULT)
        call.close()
        gate.may_see("tool", "drop_table", call.proof)
        if number % 500 == 0:
            found.flush(60)


def refusals(found: Guard, count: int) -> None:
    """What does not get through, each kind as often."""
    good = TOKENS["ES256"]
    bad = [
        ToolRequest.direct(tool="run_query", arguments={}, token="a.b.c"),
        ToolRequest.direct(tool="run_query", arguments={}, token=good[:-4] + "AAAA"),
        ToolRequest.direct(tool="drop_table", arguments={}, token=good),
        request_of(over_http(good, "drop_table", {})),
        request_of(over_http(GIVEN["bound"], "run_query", {})),
    ]
    for number in range(count):
        for request in bad:
            try:
                found.check(request, now=NOW)
            except Denied:
                continue
            sys.exit("a bad call was let through")
        if number % 100 == 0:
            found.flush(60)


def first_sights(count: int) -> None:
    """Signatures, each verified anew."""
    options = {"issuer": ISSUER, "audience": RESOURCE, "keys": KeySet.from_jwks(GIVEN["keys"])}
    verifier = TokenVerifier(**options, algorithms=["RS256", "ES256", "EdDSA"], cache_size=0)
    for _ in range(count):
        for token in TOKENS.values():
            verifier.verify(token, now=NOW)
        bound = verifier.verify(GIVEN["bound"], now=NOW)
        # A proof is good once for each verifier.
        proofs = DPoPVerifier(replay_entries=1_024)
        proofs.confirm(bound, GIVEN["proof"], method="POST", url=RESOURCE, access_token=GIVEN["bound"], now=NOW)


def windows(count: int) -> None:
    window = SlidingWindow(quota=1_000_000, window=60.0)
    for number in range(count):
        window.admit("alice")
        window.admit(f"key-{number % 5_000}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = guard(Path(folder, "audit"))
        silent = guard(Path(folder), audit={"enabled": False})
        checks(found, 20_000)
        checks(silent, 5_000)
        served(found, 20_000)
        refusals(found, 500)
        found.close()
        silent.close()
    first_sights(1_000)
    windows(50_000)


if __name__ == "__main__":
    main()
