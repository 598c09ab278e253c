"""The edges of the ASGI layer on real servers: paths, methods, encodings, HTTP/2, proxies. Every undeclared path is 404."""

from __future__ import annotations

import gzip
import json
import logging
import zlib

import httpx2
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_fastguard.transport import scope as scopes
from mcp_fastguard.transport.metadata import metadata
from servers_support import SERVERS, raw, running
from support import records
from transport_support import BASE, client, headers, message, run

CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


class Inner:
    """A guarded app that answers whatever reaches it, and notes what did."""

    def __init__(self):
        self.reached = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        self.reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"reached"})


@pytest.fixture
def inner():
    return Inner()


def mcp_app(guard):
    mcp = MCPServer("test", middleware=[guard.mcp_middleware()])

    @mcp.tool()
    def add(a: int, b: int) -> int:
        return a + b

    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return guard.asgi(mcp.streamable_http_app(transport_security=security))


def request(method, target, *lines, body=b""):
    sent = [f"{method} {target} HTTP/1.1", "Host: mcp.example.com", "Connection: close", *lines]
    if body:
        sent.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*sent, "", ""]).encode("latin-1") + body


# --- paths ------------------------------------------------------------------------------------------

#: Other spellings of the guarded and of the public path. None may reach the app without a token under another name than its own.
TARGETS = [
    "/", "//mcp", "///mcp", "/mcp/", "/mcp//", "/mcp/.", "/mcp/..", "/./mcp", "/x/../mcp", "/mcp/sub", "/MCP", "/Mcp", "/mcp;v=1",
    "/mcp%2F", "/%2Fmcp", "/mcp%00", "/mcp%20", "/mcp%0a", "/%256dcp", "/mcp%3Fx", "/mcp%23", "/mc%C3%B0", "/mcp%ff", "\\mcp",
    "/health/", "/health//", "/HEALTH", "/health/..%2fmcp", "/health%2f..%2fmcp", "/health/../mcp", "/health;/mcp", "/health%3F/mcp",
    "/health%00/mcp", "/.well-known/oauth-protected-resource/", "/.well-known/oauth-protected-resource/mcp/", "/.well-known/../mcp/",
    "*", "mcp", "health", "mcp.example.com:80", "http://mcp.example.com//mcp", "http://mcp.example.com/mcp/", "http://x/other",
]  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_undeclared_path_is_not_found_however_it_is_spelled(make_guard, inner, server, issuer):
    with running(server, make_guard().asgi(inner)) as port:
        token = f"Authorization: Bearer {issuer.token()}"
        for target in TARGETS:
            for method in ("GET", "POST", "OPTIONS", "PUT"):
                answer = raw(port, request(method, target, token))
                # A server may refuse the target itself; then there is no answer of the layer's.
                assert answer is None or answer[0] in {400, 404, 405}, (target, method, answer)
        assert inner.reached == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "target", ["/mcp", "/%6dcp", "/%6D%63%70", "/mcp?x=/health", "/mcp?", "http://mcp.example.com/mcp"]
)
def test_other_spelling_of_the_guarded_path_is_guarded(make_guard, inner, server, target):
    with running(server, make_guard().asgi(inner)) as port:
        status, _, body = raw(port, request("POST", target, body=b"{}"))
        # A server that hands the absolute form on as it came leads to an unknown path.
        assert (status, json.loads(body)["error"]["data"]["code"]) in {(401, "token_missing"), (404, "path_unknown")}
        assert status == 401 or target.startswith("http:")
        assert inner.reached == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("target", ["/health", "/health?x", "/%68ealth"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_public_path_passes_with_every_method(make_guard, inner, server, target, method):
    with running(server, make_guard().asgi(inner)) as port:
        status, _, body = raw(port, request(method, target))
        assert (status, body) == (200, b"" if method == "HEAD" else b"reached")
        assert [scope["path"] for scope in inner.reached] == ["/health"]


PREFIXES = {
    "uvicorn": {"root_path": "/svc"},
    "hypercorn": {"root_path": "/svc"},
    "granian": {"url_path_prefix": "/svc"},
}


@pytest.mark.parametrize("server", SERVERS)
def test_prefix_that_a_proxy_took_off_belongs_to_the_path(make_guard, inner, server, issuer):
    """The proxy sends /svc/mcp as /mcp, and the server knows by its own option what was taken off."""
    guard = make_guard(resource={"url": "https://mcp.example.com/svc/mcp", "public": ["/svc/health"]})
    with running(server, guard.asgi(inner), **PREFIXES[server]) as port:
        assert raw(port, request("POST", "/mcp", body=b"{}"))[0] == 401
        assert raw(port, request("GET", "/health"))[0] == 200
        for target in ("/", "//mcp", "/mcp/", "/svc/svc/mcp", "/svcmcp", "/svc", "/svc/"):
            assert raw(port, request("POST", target, f"Authorization: Bearer {issuer.token()}"))[0] == 404, target
        for target in ("/.well-known/oauth-protected-resource/svc/mcp", "/.well-known/oauth-protected-resource"):
            status, _, body = raw(port, request("GET", target))
            assert (status, json.loads(body)["resource"]) == (200, "https://mcp.example.com/svc/mcp")
        assert [scope["path"].removeprefix("/svc") for scope in inner.reached] == ["/health"]


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/mcp", "", "/mcp"),
        ("/mcp", "/svc", "/svc/mcp"),
        ("/svc/mcp", "/svc", "/svc/mcp"),
        ("/svc/mcp", "/svc/", "/svc/mcp"),
        ("/svcmcp", "/svc", "/svc/svcmcp"),
        ("/svc", "/svc", "/svc"),
        ("//mcp", "/svc", "/svc//mcp"),
        ("/mcp", "/", "/mcp"),
    ],
)
def test_public_path_is_the_one_that_starlette_routes_by(path, root, expected):
    from starlette._utils import get_route_path

    scope = {"path": path, "root_path": root}
    assert scopes.public_path(scope) == expected
    if root and root != "/" and not root.endswith("/"):
        whole = get_route_path({"path": expected, "root_path": root})
        assert get_route_path(scope) == whole


# --- methods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "QUERY", "post"])
def test_other_method_on_the_guarded_path_is_refused_and_the_allowed_are_named(
    make_guard, inner, server, method, issuer
):
    with running(server, make_guard().asgi(inner)) as port:
        answer = raw(port, request(method, "/mcp", f"Authorization: Bearer {issuer.token()}"))
        if answer is not None and answer[0] != 400:
            status, found, body = answer
            assert (status, found["allow"]) == (405, "GET, POST, DELETE")
            assert (body == b"") is (method == "HEAD")
        else:
            assert method == "post", "a server may refuse what is no method's name"
        assert inner.reached == []


@pytest.mark.parametrize("server", SERVERS)
def test_metadata_is_read_by_get_head_and_options(make_guard, inner, server):
    with running(server, make_guard().asgi(inner)) as port:
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            status, found, body = raw(port, request("GET", path))
            assert (status, found["access-control-allow-origin"]) == (200, "*")
            assert int(found["content-length"]) == len(body)
            assert json.loads(body)["resource"] == "https://mcp.example.com/mcp"
            assert raw(port, request("HEAD", path))[0::2] == (200, b"")
            assert (
                raw(port, request("OPTIONS", path, "Origin: https://x", "Access-Control-Request-Method: GET"))[0] == 204
            )
            status, found, _ = raw(port, request("POST", path))
            assert (status, found["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert inner.reached == []


def test_metadata_name_the_resource_and_its_documentation_where_they_are_written(make_guard, config):
    said = {"name": "The warehouse", "documentation": "https://mcp.example.com/docs"}

    document = metadata(make_guard(resource={**config["resource"], **said}))

    assert (document["resource_name"], document["resource_documentation"]) == tuple(said.values())
    assert not {"resource_name", "resource_documentation"} & metadata(make_guard()).keys()


@pytest.mark.parametrize("body", [b"", b"x" * 1024])
def test_client_that_leaves_before_its_body_is_whole_gets_no_answer_and_no_record(make_guard, inner, issuer, body):
    guard = make_guard()
    messages = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def send(answer):
        sent.append(answer)

    async def receive():
        return messages.pop(0)

    found = [(name.encode(), value.encode()) for name, value in headers(issuer.token(), "tools/call", "add").items()]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": found, "client": None}

    run(guard.asgi(inner)(scope, receive, send))

    assert (sent, inner.reached, records(guard)) == ([], [], [])


def test_answer_to_head_has_no_body_in_the_layer_itself(make_guard, inner):
    """Not every server takes the body of an answer to HEAD off."""
    sent = []

    async def send(answer):
        sent.append(answer)

    scope = {"type": "http", "method": "HEAD", "path": "/other", "headers": [], "client": None}

    async def receive():
        return {"type": "http.request"}

    run(make_guard().asgi(inner)(scope, receive, send))
    assert (sent[0]["status"], sent[1]["body"]) == (404, b"")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_websocket_is_refused(make_guard, inner, server, issuer):
    with running(server, make_guard().asgi(inner)) as port:
        lines = [
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: Bearer {issuer.token()}",
        ]
        upgrade = request("GET", "/mcp", *lines).replace(b"Connection: close", b"Connection: Upgrade")
        assert raw(port, upgrade)[0] == 403
        assert inner.reached == []


# --- encodings --------------------------------------------------------------------------------------

ENCODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": bytes,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "x-unknown": bytes,
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoded_body_is_refused_and_the_encoding_is_named(make_guard, inner, server, encoding, issuer):
    body = ENCODINGS[encoding](json.dumps(message("tools/call", CALL)).encode())
    with running(server, make_guard().asgi(inner)) as port:
        lines = [f"{name}: {value}" for name, value in headers(issuer.token(), "tools/call", "add").items()]
        status, found, answer = raw(port, request("POST", "/mcp", *lines, f"Content-Encoding: {encoding}", body=body))
        assert (status, found["accept-encoding"]) == (415, "identity")
        assert json.loads(answer)["error"]["data"]["code"] == "body_encoded"
        assert inner.reached == []


@pytest.mark.parametrize("coding", ["identity", "Identity"])
def test_body_that_says_it_is_plain_passes(make_guard, issuer, coding):
    with running("uvicorn", mcp_app(make_guard())) as port:
        sent = {**headers(issuer.token(), "tools/call", "add"), "content-encoding": coding}
        answer = httpx2.post(f"http://127.0.0.1:{port}/mcp", json=message("tools/call", CALL), headers=sent)
        assert answer.status_code == 200


# --- HTTP/2 -----------------------------------------------------------------------------------------


@pytest.fixture(params=["hypercorn", "granian"])
def http2(request, make_guard):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "2/minute"}]})
    with running(request.param, mcp_app(guard)) as port:
        yield guard, f"http://127.0.0.1:{port}"


def test_calls_over_http2_are_decided_limited_and_recorded(http2, issuer):
    guard, base = http2
    with httpx2.Client(http1=False, http2=True, base_url=base) as http:
        assert http.post("/mcp", json=message("tools/call", CALL), headers=headers(None)).status_code == 401
        for expected in (200, 200, 429):
            sent = headers(issuer.token(), "tools/call", "add")
            answer = http.post("/mcp", json=message("tools/call", CALL), headers=sent)
            assert (answer.http_version, answer.status_code) == ("HTTP/2", expected), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        for path in ("//mcp", "/mcp/", "/MCP", "/other"):
            assert http.post(path, json=message("tools/call", CALL), headers=sent).status_code == 404
        head = http.head("/mcp", headers=sent)
        assert (head.status_code, head.content) == (405, b"")
        zipped = gzip.compress(json.dumps(message("tools/call", CALL)).encode())
        sent["content-encoding"] = "gzip"
        assert http.post("/mcp", content=zipped, headers=sent).status_code == 415
        assert http.options("/.well-known/oauth-protected-resource").status_code == 204
    decisions = [record["result"] for record in records(guard) if record["event_type"] == "decision"]
    assert decisions.count("allowed") == 2


def test_refusal_waits_for_a_short_body_and_leaves_a_long_one(make_guard, inner):
    given = []

    async def receive():
        given.append(1)
        return {"type": "http.request", "body": b" " * 32_768, "more_body": True}

    async def send(answer):
        pass

    scope = {"type": "http", "method": "POST", "path": "/other", "headers": [], "client": None}
    run(make_guard().asgi(inner)(scope, receive, send))
    assert len(given) == 2


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("server", SERVERS)
def test_official_client_calls_over_each_server(make_guard, issuer, server, era):
    guard = make_guard()

    async def walk(port):
        transport = httpx2.AsyncHTTPTransport(http1=server == "uvicorn", http2=server != "uvicorn")
        address = f"http://127.0.0.1:{port}/mcp"
        async with client(transport, issuer.token(), era, url=address) as found:
            assert (await found.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"

    with running(server, mcp_app(guard)) as port:
        run(walk(port))


# --- peers and hosts --------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("addresses", "expected"), [([], "127.0.0.1"), (["127.0.0.0/8"], "198.51.100.7")])
def test_forwarded_address_counts_from_a_declared_proxy_alone(make_guard, server, issuer, addresses, expected):
    guard = make_guard(proxies={"addresses": addresses})
    with running(server, mcp_app(guard)) as port:
        sent = {**headers(issuer.token(), "tools/call", "add"), "x-forwarded-for": "203.0.113.9, 198.51.100.7"}
        answer = httpx2.post(f"http://127.0.0.1:{port}/mcp", json=message("tools/call", CALL), headers=sent)
        assert answer.status_code == 200
        assert records(guard)[0]["peer"] == expected


@pytest.mark.parametrize("address", ["203.0.113.9", "a.b", "::1]x", "unknown"])
def test_address_that_the_server_took_from_a_header_is_not_believed(make_guard, issuer, address, caplog):
    """uvicorn with its own proxy handling on: it writes what the header says, an address or not, as the peer's."""
    scopes.say_rewritten.cache_clear()
    guard = make_guard()
    with running("uvicorn", mcp_app(guard), proxy_headers=True, forwarded_allow_ips="*") as port:
        sent = {**headers(issuer.token(), "tools/call", "add"), "x-forwarded-for": address}
        with caplog.at_level(logging.WARNING, "mcp_fastguard"):
            answer = httpx2.post(f"http://127.0.0.1:{port}/mcp", json=message("tools/call", CALL), headers=sent)
        assert answer.status_code == 200
        assert records(guard)[0].get("peer") is None
        assert ("--no-proxy-headers" in caplog.text) is (address == "203.0.113.9")


def test_host_of_a_request_names_nothing_in_the_answer(make_guard, inner):
    """DNS rebinding: a page's own host leads here. It has no token, and what it can read says nothing of its own choosing."""
    with running("uvicorn", make_guard().asgi(inner)) as port:
        for path in ("/mcp", "/.well-known/oauth-protected-resource"):
            sent = request("GET", path, "X-Forwarded-Host: evil.example").replace(
                b"mcp.example.com", b"evil.example:80"
            )
            _, found, body = raw(port, sent)
            assert "evil" not in json.dumps(found) + body.decode()
        challenge = raw(port, request("GET", "/mcp"))[1]["www-authenticate"]
        assert 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"' in challenge
        assert inner.reached == []


def test_address_that_sends_made_up_tokens_is_held_off_before_a_signature_is_checked(make_guard, issuer):
    guard = make_guard(limits={"failed_authentications": "3/minute"})
    good = issuer.token()

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def walk():
        found = []
        for address, tokens in (("192.0.2.1", ["a.b.c"] * 5), ("192.0.2.2", [good]), ("192.0.2.1", [good])):
            transport = httpx2.ASGITransport(guard.asgi(inner), client=(address, 1234))
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
                for token in tokens:
                    body = message("tools/call", {"name": "add", "arguments": {}})
                    found.append(await http.post("/mcp", json=body, headers=headers(token, "tools/call", "add")))
        return found

    found = run(walk())

    assert [answer.status_code for answer in found] == [401, 401, 401, 429, 429, 200, 200]
    assert 1 <= int(found[3].headers["retry-after"]) <= 20
