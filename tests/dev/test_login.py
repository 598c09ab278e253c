"""The authorization code flow of the embedded authorization server, rule by rule. Chromium walks it in test_browser.py."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from mcp_fastguard.dev import AuthorizationServer
from mcp_fastguard.dev.authorization import MAX_WAITING, PATIENCE
from mcp_fastguard.dev.clients import MAX_REGISTERED
from mcp_fastguard.dev.grants import CODE_LIFETIME, REFRESH_LIFETIME

ISSUER = "http://127.0.0.1:8765"
RESOURCE = "http://127.0.0.1:8766/mcp"
CALLBACK = "http://127.0.0.1:4000/callback"
READ, WRITE = "notes:read", "notes:write"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
METADATA = {
    "redirect_uris": [CALLBACK],
    "client_name": "Probe",
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
}


class FakeClock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class Browser:
    """One browser and one client before a server, by hand."""

    def __init__(self, server):
        self.server = server
        self.app = server.app()
        self.cookies = {}
        self.client_id = None

    def send(self, method, path, **options):
        async def send():
            transport = httpx2.ASGITransport(self.app, client=("127.0.0.1", 1234))
            async with httpx2.AsyncClient(transport=transport, base_url=ISSUER, cookies=self.cookies) as client:
                response = await client.request(method, path, **options)
                self.cookies = dict(client.cookies)
                return response

        return asyncio.run(send())

    def register(self, **changes):
        metadata = {name: value for name, value in {**METADATA, **changes}.items() if value is not None}
        answer = self.send("POST", "/register", json=metadata)
        self.client_id = answer.json().get("client_id")
        return answer

    def open(self, **changes):
        parameters = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "state": "st&te",
            "scope": f"{READ} {WRITE}",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
        }
        parameters = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
        return self.send("GET", "/authorize", params=parameters)

    def answer(self, page, *, headers=None, **changes):
        assert page.status_code == 200, page.text
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        scopes = [unescape(scope) for scope in re.findall(r'name="scope" value="([^"]*)"', page.text)]
        form = {**hidden, "scope": scopes, "subject": "alice", "decision": "allow", **changes}
        return self.send("POST", "/consent", data=form, headers=headers)

    def code(self, **changes):
        return answered(self.answer(self.open(), **changes))["code"]

    def redeem(self, code, /, **changes):
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": CALLBACK,
            "client_id": self.client_id,
            "resource": RESOURCE,
        }
        return self.token(form, changes)

    def refresh(self, token, **changes):
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self.client_id}
        return self.token({**form, "resource": RESOURCE}, changes)

    def token(self, form, changes):
        headers = changes.pop("headers", None)
        form = {name: value for name, value in {**form, **changes}.items() if value is not None}
        return self.send("POST", "/token", data=form, headers=headers)


def answered(response):
    """What the client's callback is told."""
    assert response.status_code == 303, response.text
    location = urlsplit(response.headers["location"])
    assert response.headers["location"].startswith(CALLBACK + "?")
    return {name: value for name, (value,) in parse_qs(location.query, strict_parsing=True).items()}


def error(response):
    return response.status_code, response.json()["error"]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return AuthorizationServer(ISSUER, RESOURCE, scopes=[READ, WRITE], clock=clock)


@pytest.fixture
def revoked(server):
    found = []
    server.on_revoked(found.append)
    return found


@pytest.fixture
def browser(server):
    found = Browser(server)
    assert found.register().status_code == 201
    return found


def claims(server, answer):
    token = answer.json()["access_token"]
    return jwt.decode(token, KeySet.import_key_set(server.jwks), algorithms=["ES256"]).claims


# --- the whole way ----------------------------------------------------------------------------------


def test_allowed_login_gives_a_token_of_the_user_for_the_client(server, browser, clock):
    given = answered(browser.answer(browser.open()))

    # RFC 6749 section 4.1.2 and RFC 9207 section 2.
    assert (given["state"], given["iss"]) == ("st&te", ISSUER)
    answer = browser.redeem(given["code"])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json()["token_type"], answer.json()["scope"]) == ("Bearer", f"{READ} {WRITE}")
    found = claims(server, answer)
    assert found["sub"] == "alice"
    assert found["client_id"] == browser.client_id
    assert (found["aud"], found["scope"]) == (RESOURCE, f"{READ} {WRITE}")


def test_person_may_untick_scopes_and_log_in_as_another(server, browser):
    found = claims(server, browser.redeem(browser.code(scope=[WRITE], subject="bob")))

    assert (found["sub"], found["scope"]) == ("bob", WRITE)


def test_scopes_that_were_not_asked_for_are_not_granted(server, browser):
    page = browser.open(scope=READ)

    code = answered(browser.answer(page, scope=[READ, WRITE]))["code"]

    assert claims(server, browser.redeem(code))["scope"] == READ


def test_denial_is_told_to_the_client(browser):
    given = answered(browser.answer(browser.open(), decision="deny"))

    assert (given["error"], given["state"], given["iss"]) == ("access_denied", "st&te", ISSUER)
    assert "code" not in given


@pytest.mark.parametrize("changes", [{"scope": []}, {"subject": "mallory"}])
def test_answer_without_a_scope_or_of_an_unknown_user_is_asked_again(browser, changes):
    page = browser.open()

    again = browser.answer(page, **changes)

    assert again.status_code == 200
    assert "Tick at least one scope" in again.text
    assert "code" in answered(browser.answer(again))


# --- the page ---------------------------------------------------------------------------------------


def test_page_runs_no_script_and_leads_only_to_the_client(browser):
    page = browser.open()

    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "form-action": "'self' http://127.0.0.1:4000",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in page.headers


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("https://client.example/cb", "https://client.example"),
        ("http://[::1]:4000/cb", "http:"),
        ("cursor://mcp/oauth", "cursor:"),
        ("com.example.app:/oauth", "com.example.app:"),
    ],
)
def test_form_may_lead_to_where_the_answer_goes(browser, uri, source):
    browser.register(redirect_uris=[uri])

    policy = browser.open(redirect_uri=uri).headers["content-security-policy"]

    assert f"form-action 'self' {source};" in policy


def test_name_of_a_client_is_text(browser):
    browser.register(client_name="<script>alert(1)</script>\"'&<img src=x>")

    page = browser.open().text

    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_name_of_a_client_cannot_turn_the_text_round_it(browser):
    browser.register(client_name="Probe\u202e\u2066\x00\n\u200bCorp" + "x" * 200)

    page = browser.open().text

    assert "Probe Corpx" in page
    assert "x" * 100 not in page


# --- who may be answered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:4000/callback/",
        "http://127.0.0.1:4000/Callback",
        "http://127.0.0.1:4000/callback?x=1",
        "http://127.0.0.1:4000/callback#x",
        "http://localhost:4000/callback",
        "https://127.0.0.1:4000/callback",
        "HTTP://127.0.0.1:4000/callback",
        "http://127.0.0.1:4000@evil.example/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1.evil.example:4000/callback",
        "https://evil.example/callback",
        "http://127.0.0.1:4000/callback\r\nx: y",
        "",
        None,
        [CALLBACK, CALLBACK],
    ],
)
def test_redirect_uri_that_is_not_registered_is_answered_with_a_page(browser, uri):
    # RFC 6749 section 4.1.2.1: not redirected.
    answer = browser.open(redirect_uri=uri)

    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("client_id", ["nobody", None, ""])
def test_unknown_client_is_answered_with_a_page(browser, client_id):
    answer = browser.open(client_id=client_id)

    assert answer.status_code == 400
    assert "does not know the client" in answer.text


def test_port_of_a_loopback_address_may_differ(server):
    # RFC 8252 section 7.3.
    browser = Browser(server)
    for registered, asked in [
        ("http://127.0.0.1/callback", "http://127.0.0.1:50123/callback"),
        ("http://127.0.0.1:4000/callback", "http://127.0.0.1:50123/callback"),
        ("http://[::1]:1/callback", "http://[::1]:50123/callback"),
    ]:
        browser.register(redirect_uris=[registered])
        assert browser.open(redirect_uri=asked).status_code == 200


def test_port_of_a_name_may_not_differ(browser):
    browser.register(redirect_uris=["http://localhost:4000/callback", "https://client.example/callback"])

    assert browser.open(redirect_uri="http://localhost:4001/callback").status_code == 400
    assert browser.open(redirect_uri="https://client.example:444/callback").status_code == 400


def test_answer_leaves_the_query_of_the_redirect_uri_as_it_was(browser):
    uri = "https://client.example/cb?a=b%20c;d&e"
    browser.register(redirect_uris=[uri])

    location = browser.answer(browser.open(redirect_uri=uri)).headers["location"]

    assert location.startswith(f"{uri}&code=")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"resource": None}, "invalid_target"),
        ({"resource": f"{RESOURCE}/"}, "invalid_target"),
        ({"resource": [RESOURCE, "https://elsewhere.example"]}, "invalid_target"),
        ({"scope": "notes:admin"}, "invalid_scope"),
        ({"scope": [READ, WRITE]}, "invalid_request"),
    ],
)
def test_wrong_request_is_told_to_the_client(browser, changes, code):
    given = answered(browser.open(**changes))

    assert (given["error"], given["state"], given["iss"]) == (code, "st&te", ISSUER)


def test_request_without_a_scope_offers_all(browser):
    assert re.findall(r'name="scope" value="([^"]*)"', browser.open(scope=None).text) == [READ, WRITE]


# --- who may answer ---------------------------------------------------------------------------------


def test_answer_counts_once(browser):
    page = browser.open()
    browser.answer(page)

    again = browser.answer(page)

    assert again.status_code == 400
    assert "has been answered" in again.text


def test_answer_without_the_page_s_secret_is_refused(browser):
    page = browser.open()

    assert browser.answer(page, csrf="x" * 43).status_code == 403
    assert browser.answer(page, csrf="").status_code == 403
    assert "code" in answered(browser.answer(page))


def test_answer_of_another_browser_is_refused(browser, server):
    page = browser.open()
    mine, browser.cookies = browser.cookies, {}

    assert browser.answer(page).status_code == 403

    browser.cookies = mine
    assert "code" in answered(browser.answer(page))


def test_answer_from_another_origin_is_refused(browser):
    page = browser.open()

    for origin in ("https://evil.example", "http://127.0.0.1:9", "null"):
        assert browser.answer(page, headers={"origin": origin}).status_code == 403
    assert "code" in answered(browser.answer(page, headers={"origin": ISSUER}))


def test_cookie_of_the_page_is_kept_from_scripts_and_other_sites(browser):
    cookie = browser.open().headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/consent" in cookie


def test_page_expires(browser, clock):
    page = browser.open()
    clock.now += PATIENCE

    assert browser.answer(page).status_code == 400


def test_waiting_pages_are_bounded(browser, server):
    first = browser.open()
    for _ in range(MAX_WAITING):
        last = browser.open()

    assert browser.answer(first).status_code == 400
    assert "code" in answered(browser.answer(last))


# --- codes ------------------------------------------------------------------------------------------


def test_second_use_of_a_code_revokes_what_it_gave(server, browser, revoked):
    # RFC 6749 section 4.1.2.
    code = browser.code()
    first = browser.redeem(code)
    assert revoked == []

    assert error(browser.redeem(code)) == (400, "invalid_grant")

    assert revoked == [claims(server, first)["sid"]]
    assert error(browser.refresh(first.json()["refresh_token"])) == (400, "invalid_grant")


def test_code_lives_for_a_minute(browser, clock):
    in_time, too_late = browser.code(), browser.code()
    clock.now += CODE_LIFETIME - 1
    assert browser.redeem(in_time).status_code == 200

    clock.now += 1
    assert error(browser.redeem(too_late)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code_verifier": "w" * 64}, "invalid_grant"),
        ({"code_verifier": CHALLENGE}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:4001/callback"}, "invalid_grant"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"code": "x"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"client_id": "nobody"}, "invalid_client"),
    ],
)
def test_code_that_is_presented_wrongly_gives_nothing(browser, changes, code):
    answer = browser.redeem(browser.code(), **changes)

    assert error(answer) == (401 if code == "invalid_client" else 400, code)


def test_code_is_used_up_by_a_wrong_verifier(browser, revoked):
    code = browser.code()

    assert error(browser.redeem(code, code_verifier="w" * 64)) == (400, "invalid_grant")

    assert error(browser.redeem(code)) == (400, "invalid_grant")
    assert len(revoked) == 1


def test_code_of_another_client_is_refused_and_stays_good(browser, server, revoked):
    code = browser.code()
    other = Browser(server)
    other.register()

    assert error(other.redeem(code)) == (400, "invalid_grant")

    assert browser.redeem(code).status_code == 200
    assert revoked == []


def test_code_may_come_without_its_redirect_uri(browser):
    # OAuth 2.1 section 10.2: PKCE binds it.
    assert browser.redeem(browser.code(), redirect_uri=None).status_code == 200


# --- refresh tokens ---------------------------------------------------------------------------------


def test_refresh_token_is_replaced_at_each_use(server, browser):
    first = browser.redeem(browser.code())

    second = browser.refresh(first.json()["refresh_token"])

    assert second.status_code == 200
    assert claims(server, second)["sid"] == claims(server, first)["sid"]
    assert second.json()["refresh_token"] != first.json()["refresh_token"]
    assert browser.refresh(second.json()["refresh_token"]).status_code == 200


def test_second_use_of_a_refresh_token_revokes_its_login(server, browser, revoked):
    # RFC 9700 section 4.14.2.
    first = browser.redeem(browser.code())
    second = browser.refresh(first.json()["refresh_token"])

    assert error(browser.refresh(first.json()["refresh_token"])) == (400, "invalid_grant")

    assert revoked == [claims(server, first)["sid"]]
    assert error(browser.refresh(second.json()["refresh_token"])) == (400, "invalid_grant")


def test_refresh_may_ask_for_less_but_not_for_more(server, browser):
    token = browser.redeem(browser.code(scope=[READ])).json()["refresh_token"]

    assert error(browser.refresh(token, scope=f"{READ} {WRITE}")) == (400, "invalid_scope")
    assert error(browser.refresh(token, resource=None)) == (400, "invalid_target")

    assert claims(server, browser.refresh(token, scope=READ))["scope"] == READ


def test_refresh_token_expires_and_belongs_to_its_client(browser, server, clock):
    token = browser.redeem(browser.code()).json()["refresh_token"]
    other = Browser(server)
    other.register()

    assert error(other.refresh(token)) == (400, "invalid_grant")
    clock.now += REFRESH_LIFETIME
    assert error(browser.refresh(token)) == (400, "invalid_grant")


def test_client_that_did_not_register_for_refresh_tokens_has_none(browser):
    browser.register(grant_types=None)

    answer = browser.redeem(browser.code())

    assert "refresh_token" not in answer.json()
    assert error(browser.refresh("x")) == (400, "unauthorized_client")


# --- registration -----------------------------------------------------------------------------------


def test_registration_gives_back_what_was_registered(browser, clock):
    # RFC 7591 section 3.2.1.
    found = browser.register().json()

    assert found["redirect_uris"] == [CALLBACK]
    assert (found["client_name"], found["token_endpoint_auth_method"]) == ("Probe", "none")
    assert (found["grant_types"], found["response_types"]) == (["authorization_code", "refresh_token"], ["code"])
    assert found["client_id_issued_at"] == clock.now
    assert "client_secret" not in found


def test_client_with_a_secret_must_show_it(browser):
    # RFC 7591 section 2: client_secret_basic is the default.
    found = browser.register(token_endpoint_auth_method=None).json()
    assert (found["token_endpoint_auth_method"], found["client_secret_expires_at"]) == ("client_secret_basic", 0)

    assert error(browser.redeem(browser.code())) == (401, "invalid_client")

    basic = base64.b64encode(f"{found['client_id']}:{found['client_secret']}".encode()).decode()
    answer = browser.redeem(browser.code(), client_id=None, headers={"authorization": f"Basic {basic}"})
    assert answer.status_code == 200


def test_public_client_that_shows_a_secret_is_refused(browser):
    assert error(browser.redeem(browser.code(), client_secret="x")) == (401, "invalid_client")


def test_client_that_registered_itself_acts_for_people_only(browser):
    browser.register(grant_types=["authorization_code", "client_credentials"])

    answer = browser.token({"grant_type": "client_credentials", "client_id": browser.client_id}, {"resource": RESOURCE})

    assert error(answer) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "http://client.example/cb",
        "http://192.0.2.1/cb",
        "https://client.example/cb#fragment",
        "https://user@client.example/cb",
        "https://client.example:port/cb",
        "https:///cb",
        "https://client.example/c b",
        "https://client.example/;\r\nx",
        "https://client.example/\"'><script>",
        "/cb",
    ],
)
def test_redirect_uri_that_no_client_may_have_is_not_registered(browser, uri):
    answer = browser.register(redirect_uris=[CALLBACK, uri])

    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_redirect_uri", "invalid_client_metadata"}


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uris": []},
        {"redirect_uris": None},
        {"redirect_uris": "x"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"grant_types": ["client_credentials"]},
        {"response_types": ["token"]},
        {"client_name": 5},
    ],
)
def test_metadata_that_cannot_be_served_are_refused(browser, changes):
    assert browser.register(**changes).status_code == 400


def test_registration_that_is_no_json_is_refused(browser):
    for body in (b"", b"[]", b"{", b"\xff"):
        assert error(browser.send("POST", "/register", content=body)) == (400, "invalid_client_metadata")


def test_registered_clients_are_bounded(server, browser):
    first = browser.client_id
    for _ in range(MAX_REGISTERED):
        server._clients.register(json.dumps(METADATA).encode(), READ)

    assert browser.open(client_id=first).status_code == 400
