"""The authorization endpoint and its page, rule by rule. Chromium walks them in test_browser.py."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from login_support import CALLBACK, ISSUER, READ, RESOURCE, WRITE, Browser, answered, claims
from mcp_fastguard.dev.authorization import MAX_WAITING, PATIENCE

# --- the whole way --------------------------------------------------------------------------------


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


# --- the page -------------------------------------------------------------------------------------


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


# --- who may be answered --------------------------------------------------------------------------


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


# --- who may answer -------------------------------------------------------------------------------


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
