"""Pages of browsers: who may call, and what they may read of a refusal."""

from __future__ import annotations

import httpx2
import pytest
from starlette.middleware.cors import CORSMiddleware

from mcp_fastguard.transport.origins import Origins
from servers_support import SERVERS, running
from support import RESOURCE, chromium
from transport_support import BASE, headers, message, run

PAGE = "https://app.example.com"
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,mcp-param-x",
}


class Inner:
    """An app that answers whatever reaches it."""

    def __init__(self):
        self.reached = []

    async def __call__(self, scope, receive, send):
        self.reached.append((scope["method"], (await receive())["body"]))
        sent = [(b"content-type", b"text/plain"), (b"mcp-session-id", b"s-1")]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": b"reached"})


@pytest.fixture
def inner():
    return Inner()


def exchanged(app, method, *, path="/mcp", body=None, **sent):
    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE) as http:
            found = {name.replace("_", "-"): value for name, value in sent.items()}
            return await http.request(method, path, headers=found, json=body)

    return run(walk())


def called(app, token, origin=PAGE):
    sent = {**headers(token, "tools/call", "add"), **({"origin": origin} if origin else {})}
    return exchanged(app, "POST", body=message("tools/call", CALL), **sent)


def cors(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def exposed(answer):
    return {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}


def test_page_of_a_declared_origin_can_read_refusals_and_answers(make_guard, inner, issuer):
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})
    app = guard.asgi(inner, cors_origins=[PAGE])
    for token, status in ((None, 401), ("x", 401), (issuer.token(), 200), (issuer.token(), 429)):
        answer = called(app, token)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "Origin"
        assert {"www-authenticate", "dpop-nonce", "retry-after", "mcp-session-id"} <= exposed(answer)
        assert "access-control-allow-credentials" not in answer.headers


def test_page_of_any_origin_can_read_where_all_are_allowed(make_guard, inner):
    app = make_guard().asgi(inner, cors_origins=["*"])
    for origin in (PAGE, "null", "http://[::1]:6274"):
        answer = called(app, None, origin)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")
    assert cors(called(app, None, None)) == {}


FOREIGN = [
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "HTTPS://APP.EXAMPLE.COM",
    "https://app.example.com/",
    "null",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_page_of_another_origin_is_refused_before_its_token_is_looked_at(make_guard, inner, issuer, origin):
    guard = make_guard()
    heard = []
    guard.on_decision(heard.append)
    app = guard.asgi(inner, cors_origins=[PAGE])
    sent = {**headers(issuer.token(), "tools/call", "add"), "origin": origin}
    answer = exchanged(app, "POST", body=message("tools/call", CALL), **sent)
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (403, "origin_refused")
    assert cors(answer) == {}
    refused = exchanged(app, "OPTIONS", **{**PREFLIGHT, "origin": origin})
    assert (refused.status_code, cors(refused)) == (403, {})
    assert (inner.reached, heard) == ([], [])


def test_second_origin_in_a_request_is_refused(make_guard, inner, issuer):
    app = make_guard().asgi(inner, cors_origins=[PAGE])

    async def walk():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BASE) as http:
            sent = [*headers(issuer.token()).items(), ("origin", PAGE), ("origin", PAGE)]
            return await http.post("/mcp", headers=sent, json=message("tools/call", CALL))

    assert run(walk()).status_code == 403


@pytest.mark.parametrize("origin", [None, BASE])
def test_client_without_an_origin_and_a_page_of_the_resource_itself_pass(make_guard, inner, issuer, origin):
    app = make_guard().asgi(inner, cors_origins=[])
    assert called(app, issuer.token(), origin).status_code == 200


def test_preflight_is_answered_by_the_layer_and_reaches_no_app(make_guard, inner):
    app = make_guard().asgi(inner, cors_origins=[PAGE])
    answer = exchanged(app, "OPTIONS", body=message("tools/call", CALL), **PREFLIGHT)
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization,content-type,mcp-param-x",
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin, Access-Control-Request-Headers"
    assert inner.reached == []


@pytest.mark.parametrize("asked", ["a b", "a;b", "x\tb", ",", "a,,b"])
def test_names_that_are_no_headers_are_not_granted(asked):
    found = Origins(RESOURCE, ["*"]).preflight([(b"origin", b"x"), (b"access-control-request-headers", asked.encode())])
    assert b"access-control-allow-headers" not in dict(found)


def test_layer_says_nothing_of_origins_unless_they_are_declared(make_guard, inner):
    app = make_guard().asgi(inner)
    refused = called(app, None, "https://anywhere.example")
    assert (refused.status_code, cors(refused)) == (401, {})
    answer = exchanged(app, "OPTIONS", body=message("tools/call", CALL), **PREFLIGHT)
    assert answer.status_code == 200
    assert inner.reached == [("OPTIONS", b"")], "a preflight carries no message to the app"


@pytest.mark.parametrize("path", ["/other", "/mcp/", "//mcp"])
@pytest.mark.parametrize("origins", [None, [PAGE]])
def test_preflight_of_an_undeclared_path_is_not_found(make_guard, inner, path, origins):
    app = make_guard().asgi(inner, cors_origins=origins)
    assert exchanged(app, "OPTIONS", path=path, **PREFLIGHT).status_code == 404
    assert inner.reached == []


def test_headers_of_the_apps_own_middleware_stand_once(make_guard, inner, issuer):
    own = CORSMiddleware(inner, allow_origins=[PAGE], expose_headers=["X-Own"])
    answer = called(make_guard().asgi(own, cors_origins=[PAGE]), issuer.token())
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert answer.headers["access-control-expose-headers"] == "X-Own"


@pytest.mark.parametrize(
    "wrong",
    [
        "https://app.example.com/",
        "https://app.example.com/x",
        "app.example.com",
        "https://app.example.com:443",
        "http://x:80",
        "HTTPS://app.example.com",
        "https://*.example.com",
        "null",
        "",
        "https://user@app.example.com",
        "https://x:0",
    ],
)
def test_entry_that_no_browser_sends_stops_the_start(make_guard, inner, wrong):
    with pytest.raises(ValueError, match="cors_origins"):
        make_guard().asgi(inner, cors_origins=[wrong])


def test_one_text_or_a_star_among_others_stops_the_start(make_guard, inner):
    for wrong in (PAGE, ["*", PAGE]):
        with pytest.raises(ValueError, match="cors_origins"):
            make_guard().asgi(inner, cors_origins=wrong)


@pytest.mark.parametrize(
    "right", ["http://localhost:6274", "https://[2001:db8::1]:8443", "vscode-webview://abc", "moz-extension://a-b"]
)
def test_entry_that_a_browser_sends_is_taken(right):
    assert dict(Origins(RESOURCE, [right]).headers([(b"origin", right.encode())]))[b"access-control-allow-origin"]


@pytest.mark.parametrize(
    ("resource", "own"),
    [
        ("https://Mcp.Example.com/mcp", "https://mcp.example.com"),
        ("https://x.example:443/mcp", "https://x.example"),
        ("http://127.0.0.1:8000/mcp", "http://127.0.0.1:8000"),
        ("https://x.example", "https://x.example"),
    ],
)
def test_own_origin_is_that_of_the_resource(resource, own):
    assert (
        dict(Origins(resource, []).headers([(b"origin", own.encode())]))[b"access-control-allow-origin"] == own.encode()
    )


@pytest.mark.parametrize("server", SERVERS)
def test_browser_reads_the_challenge_of_a_401(make_guard, inner, server):
    """In Chromium, from a page of another origin: the preflight, the refusal, and its WWW-Authenticate."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<title>page</title>"})

    script = """async url => {
        try {
            const sent = {"authorization": "Bearer x", "content-type": "application/json", "mcp-method": "tools/list"};
            const answer = await fetch(url, {method: "POST", headers: sent, body: "{}"});
            return [answer.status, answer.headers.get("www-authenticate")];
        } catch (error) { return [0, error.name]; }
    }"""
    guard = make_guard()
    with running("uvicorn", page, lifespan="off") as own, sync_playwright() as playwright:
        declared = guard.asgi(inner, cors_origins=[f"http://127.0.0.1:{own}"])
        with running(server, declared) as one, running(server, guard.asgi(inner, cors_origins=[])) as other:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            try:
                opened = browser.new_page()
                opened.goto(f"http://127.0.0.1:{own}/")
                status, challenge = opened.evaluate(script, f"http://127.0.0.1:{one}/mcp")
                assert (status, "resource_metadata=" in challenge) == (401, True)
                assert opened.evaluate(script, f"http://127.0.0.1:{other}/mcp") == [0, "TypeError"]
            finally:
                browser.close()
    assert inner.reached == []
