"""Codes and refresh tokens of the embedded authorization server: each is good for one use."""

from __future__ import annotations

import pytest

from login_support import CHALLENGE, ISSUER, READ, WRITE, Browser, claims, error
from mcp_fastguard.dev.grants import CODE_LIFETIME, REFRESH_LIFETIME
from proof_support import Holder

# --- codes ----------------------------------------------------------------------------------------


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


# --- refresh tokens -------------------------------------------------------------------------------


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


def test_refresh_token_of_a_public_client_needs_the_key_that_it_was_got_with(server, browser, clock, revoked):
    # RFC 9449 section 5.
    holder, thief = Holder(), Holder()

    def shown(key):
        return {"dpop": key.proof("", htu=f"{ISSUER}/token", ath=None, now=clock.now)}

    first = browser.redeem(browser.code(), headers=shown(holder))
    assert (first.json()["token_type"], claims(server, first)["cnf"]) == ("DPoP", holder.confirmation)
    token = first.json()["refresh_token"]
    assert error(browser.refresh(token)) == (400, "invalid_grant")
    assert error(browser.refresh(token, headers=shown(thief))) == (400, "invalid_grant")

    second = browser.refresh(token, headers=shown(holder))
    assert claims(server, second)["cnf"] == holder.confirmation
    assert error(browser.refresh(second.json()["refresh_token"])) == (400, "invalid_grant")
    assert error(browser.refresh(token, headers=shown(thief))) == (400, "invalid_grant")
    assert revoked == []


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
