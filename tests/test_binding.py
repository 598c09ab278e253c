"""Proofs of possession through the public face. Every check just failed and just passed stands in the core's own tests."""

from __future__ import annotations

import threading
import time

import pytest

from mcp_fastguard import GuardFault, ToolRequest
from mcp_fastguard.binding import BoundToken, DPoPVerifier
from mcp_fastguard.errors import BindingDenied, Denied, GuardConfigError, PolicyDenied
from mcp_fastguard.token import KeySet, TokenVerifier
from proof_support import Holder, access_token_hash
from support import ISSUER, RESOURCE

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}'


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def tokens(issuer):
    return TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=KeySet.from_jwks(issuer.jwks), algorithms=["ES256"])


@pytest.fixture
def bound(issuer, holder):
    """The text of a token that is bound to the holder's key."""
    return issuer.token(cnf=holder.confirmation)


def confirm(verifier, tokens, text, proof, *, method="POST", url=RESOURCE, now=None, access_token=None):
    token = tokens.verify(text, now)
    return verifier.confirm(token, proof, method=method, url=url, access_token=access_token or text, now=now)


def code(*args, **kwargs):
    with pytest.raises(BindingDenied) as denied:
        confirm(*args, **kwargs)
    return denied.value.code


def http(token, proof=None, *, scheme="DPoP", method="POST", body=BODY):
    headers = [(b"authorization", f"{scheme} {token}".encode())]
    headers += [(b"dpop", text.encode()) for text in ([proof] if isinstance(proof, str) else proof or [])]
    return ToolRequest.http(method=method, path="/mcp", headers=headers, body=body)


def refusal(guard, request):
    with pytest.raises(Denied) as denied:
        guard.check(request)
    return denied.value


# --- DPoPVerifier ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256"])
def test_proof_of_another_library_confirms_the_token(issuer, tokens, algorithm):
    holder = Holder(algorithm)
    text = issuer.token(cnf=holder.confirmation)
    verifier = DPoPVerifier(algorithms=[algorithm])

    found = confirm(verifier, tokens, text, holder.proof(text))

    assert isinstance(found, BoundToken)
    assert found.thumbprint == holder.thumbprint == found.token.thumbprint
    assert found.token == tokens.verify(text)
    assert len(verifier) == 1


def test_bound_token_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        BoundToken()


def test_bound_token_is_frozen(tokens, bound, holder):
    found = confirm(DPoPVerifier(), tokens, bound, holder.proof(bound))
    with pytest.raises(AttributeError):
        found.thumbprint = "other"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"htm": "GET"}, "proof_method_mismatch"),
        ({"htu": "https://mcp.example.com/other"}, "proof_url_mismatch"),
        ({"htu": "https://mcp.example.com:443/mcp?a=1"}, None),
        ({"ath": access_token_hash("another token")}, "proof_token_mismatch"),
        ({"ath": None}, "proof_malformed"),
        ({"iat": 1}, "proof_expired"),
        ({"iat": 4_000_000_000}, "proof_from_future"),
        ({"jti": None}, "proof_malformed"),
        ({"jti": "x" * 257}, "proof_malformed"),
        ({"nonce": "not asked for"}, None),
    ],
)
def test_claim_of_the_proof_is_checked(tokens, bound, holder, claims, expected):
    proof = holder.proof(bound, **claims)
    if expected is None:
        assert confirm(DPoPVerifier(), tokens, bound, proof)
    else:
        assert code(DPoPVerifier(), tokens, bound, proof) == expected


def test_private_key_in_the_header_is_refused(tokens, bound, holder):
    proof = holder.proof(bound, header={"jwk": holder.key.as_dict(private=True)})
    assert code(DPoPVerifier(), tokens, bound, proof) == "proof_key_refused"


def test_proof_by_another_key_is_refused(tokens, bound):
    assert code(DPoPVerifier(), tokens, bound, Holder().proof(bound)) == "proof_key_mismatch"


def test_algorithm_that_is_not_named_is_refused_and_the_challenge_lists_the_others(issuer, tokens):
    holder = Holder("RS256")
    text = issuer.token(cnf=holder.confirmation)
    with pytest.raises(BindingDenied) as denied:
        confirm(DPoPVerifier(), tokens, text, holder.proof(text))
    assert (denied.value.code, denied.value.status) == ("proof_algorithm_refused", 401)
    assert denied.value.challenge.startswith('DPoP error="invalid_dpop_proof"')
    assert 'algs="EdDSA Ed25519 ES256"' in denied.value.challenge


def test_unbound_token_has_no_proof(issuer, tokens, holder):
    text = issuer.token()
    assert code(DPoPVerifier(), tokens, text, holder.proof(text)) == "binding_missing"


def test_access_token_must_be_the_token_s_own_text(issuer, tokens, bound, holder):
    other = issuer.token(cnf=holder.confirmation)
    assert code(DPoPVerifier(), tokens, bound, holder.proof(bound), access_token=other) == "proof_token_mismatch"


def test_proof_passes_once_and_its_time_is_the_caller_s(issuer, tokens, holder):
    now = 1_800_000_000.0
    text = issuer.token(cnf=holder.confirmation, now=now)
    verifier = DPoPVerifier(max_age=60, leeway=0)
    proof = holder.proof(text, now=now)

    assert confirm(verifier, tokens, text, proof, now=now + 60)
    assert code(verifier, tokens, text, proof, now=now + 60) == "proof_replayed"
    assert code(verifier, tokens, text, proof, now=now + 61) == "proof_expired"


def test_times_of_two_clocks_are_refused(issuer, tokens, holder):
    verifier = DPoPVerifier()
    text = issuer.token(cnf=holder.confirmation)
    confirm(verifier, tokens, text, holder.proof(text))
    with pytest.raises(GuardFault) as fault:
        confirm(verifier, tokens, text, holder.proof(text), now=time.time())
    assert fault.value.code == "clock_mixed"


def test_two_threads_with_the_same_proofs_pass_each_once(tokens, bound, holder):
    verifier = DPoPVerifier()
    proofs = [holder.proof(bound) for _ in range(200)]
    passed: list[str] = []

    def show():
        for proof in proofs:
            try:
                confirm(verifier, tokens, bound, proof)
            except BindingDenied as denied:
                assert denied.code == "proof_replayed"
            else:
                passed.append(proof)

    threads = [threading.Thread(target=show) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(passed) == sorted(proofs)


def test_full_share_refuses_and_forgets_nothing(tokens, bound, holder):
    verifier = DPoPVerifier(replay_entries=1_024)
    proofs = [holder.proof(bound) for _ in range(16)]
    for proof in proofs:
        confirm(verifier, tokens, bound, proof)
    with pytest.raises(BindingDenied) as denied:
        confirm(verifier, tokens, bound, holder.proof(bound))
    assert (denied.value.code, denied.value.status, denied.value.challenge) == ("replays_full", 429, None)
    assert denied.value.retry_after > 0
    assert {code(verifier, tokens, bound, proof) for proof in proofs} == {"proof_replayed"}


@pytest.mark.parametrize(
    "options",
    [
        {"max_age": 0},
        {"max_age": 301},
        {"max_age": float("nan")},
        {"leeway": -1},
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"replay_entries": 10},
        {"nonce_secret": b""},
        {"nonce_secret": b"s" * 31},
    ],
)
def test_impossible_option_is_refused_when_built(options):
    with pytest.raises(ValueError, match=r"."):
        DPoPVerifier(**options)


def test_relative_url_is_a_mistake_of_the_caller(tokens, bound, holder):
    with pytest.raises(ValueError, match="absolute URL"):
        confirm(DPoPVerifier(), tokens, bound, holder.proof(bound), url="/mcp")


SECRET = b"s" * 32
NOW = 1_800_000_000.0


def demanding(secret=SECRET):
    return DPoPVerifier(nonce_secret=secret)


def nonce_after(issuer, tokens, holder, seconds):
    """What the verifier makes, so much later, of a proof with a nonce that was given out at the beginning of a step."""
    text = issuer.token(cnf=holder.confirmation, now=NOW)
    nonce = demanding().nonce(now=NOW)
    verifier = demanding()
    try:
        found = confirm(verifier, tokens, text, holder.proof(text, now=NOW, nonce=nonce), now=NOW + seconds)
    except BindingDenied as denied:
        assert denied.nonce == verifier.nonce(now=NOW + seconds) != nonce
        return denied.code
    return None if found.nonce is None else found.nonce == verifier.nonce(now=NOW + seconds) != nonce


def test_verifier_with_a_secret_demands_a_nonce_and_takes_the_one_it_gives(tokens, bound, holder):
    verifier = demanding()
    with pytest.raises(BindingDenied) as denied:
        confirm(verifier, tokens, bound, holder.proof(bound))
    assert (denied.value.code, denied.value.status) == ("nonce_required", 401)
    assert denied.value.challenge.startswith('DPoP error="use_dpop_nonce"')

    for nonce in (denied.value.nonce, verifier.nonce()):
        assert confirm(verifier, tokens, bound, holder.proof(bound, nonce=nonce))
    assert len(verifier) == 2


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, None), (59, None), (60, True), (119, True), (120, "nonce_required")]
)
def test_nonce_passes_in_its_minute_and_the_next_and_is_then_followed_by_another(
    issuer, tokens, holder, seconds, expected
):
    assert nonce_after(issuer, tokens, holder, seconds) == expected


def test_verifiers_with_one_secret_take_each_other_s_nonces_and_others_do_not(tokens, bound, holder):
    nonce = demanding().nonce()
    assert confirm(demanding(), tokens, bound, holder.proof(bound, nonce=nonce))
    assert code(demanding(b"o" * 32), tokens, bound, holder.proof(bound, nonce=nonce)) == "nonce_required"


def test_verifier_takes_the_nonces_of_a_guard_with_its_secret(make_guard, tmp_path, tokens, bound, holder):
    (tmp_path / "nonce.secret").write_bytes(SECRET)
    guard = make_guard(dpop={"nonce": "required", "nonce_secret_file": str(tmp_path / "nonce.secret")})
    nonce = refusal(guard, http(bound, holder.proof(bound))).nonce
    assert confirm(demanding(), tokens, bound, holder.proof(bound, nonce=nonce))


def test_verifier_without_a_secret_has_no_nonce_to_give(tokens, bound, holder):
    verifier = DPoPVerifier()
    assert confirm(verifier, tokens, bound, holder.proof(bound)).nonce is None
    with pytest.raises(ValueError, match="nonce_secret"):
        verifier.nonce()


def test_nonce_of_another_clock_is_refused(tokens, bound, holder):
    verifier = demanding()
    verifier.nonce(now=NOW)
    with pytest.raises(GuardFault) as fault:
        verifier.nonce()
    assert fault.value.code == "clock_mixed"


# --- the guard ---------------------------------------------------------------------------------------


def test_bound_token_passes_with_a_proof_and_in_no_other_way(guard, bound, holder):
    proof = holder.proof(bound)
    allowed = guard.check(http(bound, proof))
    assert (allowed.tool, allowed.token.thumbprint, allowed.dpop_nonce) == ("add", holder.thumbprint, None)
    assert refusal(guard, http(bound, proof)).code == "proof_replayed"
    assert refusal(guard, http(bound)).code == "proof_missing"
    assert refusal(guard, http(bound, holder.proof(bound), scheme="Bearer")).code == "bound_as_bearer"
    assert refusal(guard, http(bound, [holder.proof(bound), holder.proof(bound)])).code == "proof_duplicated"
    assert refusal(guard, ToolRequest.direct(tool="add", token=bound)).code == "bound_as_bearer"


def test_method_of_the_request_is_the_proof_s(guard, bound, holder):
    assert refusal(guard, http(bound, holder.proof(bound), method="GET")).code == "proof_method_mismatch"
    assert guard.check(http(bound, holder.proof(bound, htm="GET"), method="GET", body=None))


def test_required_mode_refuses_unbound_tokens(make_guard, issuer, bound, holder):
    guard = make_guard(dpop={"mode": "required"})
    denied = refusal(guard, http(issuer.token(), scheme="Bearer"))
    assert (denied.code, denied.status) == ("binding_missing", 401)
    assert denied.challenge.startswith('DPoP error="invalid_token"')
    assert "Bearer" not in refusal(guard, ToolRequest.direct(tool="add")).challenge
    assert guard.check(http(bound, holder.proof(bound)))


def test_rule_demands_a_bound_token_and_hides_its_tool_from_others(make_guard, config, issuer, bound, holder):
    config["tools"]["add"] = {"open": True, "binding": "dpop"}
    guard = make_guard()
    with pytest.raises(PolicyDenied) as denied:
        guard.check(http(issuer.token(), scheme="Bearer"))
    assert (denied.value.code, denied.value.status) == ("binding_required", 401)
    assert denied.value.challenge.startswith("DPoP ")
    allowed = guard.check(http(bound, holder.proof(bound)))
    unbound = guard.check(ToolRequest.direct(tool="run_query", arguments={}, token=issuer.token()))
    assert guard.may_see("tool", "add", allowed)
    assert not guard.may_see("tool", "add", unbound)


def test_rule_that_demands_what_is_off_stops_the_start(make_guard, config):
    config["tools"]["add"] = {"open": True, "binding": "dpop"}
    with pytest.raises(GuardConfigError, match=r'tools."add".binding: contradicts `dpop.mode = "off"`'):
        make_guard(dpop={"mode": "off"})


def test_nonce_is_demanded_given_and_taken(make_guard, bound, holder):
    guard = make_guard(dpop={"nonce": "required"})
    denied = refusal(guard, http(bound, holder.proof(bound)))
    assert denied.code == "nonce_required"
    assert denied.challenge.startswith('DPoP error="use_dpop_nonce"')
    assert guard.check(http(bound, holder.proof(bound, nonce=denied.nonce)))


def test_guards_with_one_secret_take_each_other_s_nonces(make_guard, tmp_path, bound, holder):
    secret = tmp_path / "nonce.secret"
    secret.write_bytes(b"s" * 32 + b"\n")
    dpop = {"nonce": "required", "nonce_secret_file": str(secret)}
    first, second = make_guard(dpop=dpop), make_guard(dpop=dpop, audit={"path": str(tmp_path / "second")})
    stranger = make_guard(dpop={"nonce": "required"}, audit={"path": str(tmp_path / "third")})
    nonce = refusal(first, http(bound, holder.proof(bound))).nonce
    assert second.check(http(bound, holder.proof(bound, nonce=nonce)))
    assert refusal(stranger, http(bound, holder.proof(bound, nonce=nonce))).code == "nonce_required"


def test_secret_of_the_environment_is_taken_and_shown_nowhere(make_guard, tmp_path, monkeypatch, bound, holder):
    secret = tmp_path / "nonce.secret"
    secret.write_bytes(b"e" * 40)
    by_file = make_guard(dpop={"nonce": "required", "nonce_secret_file": str(secret)})
    monkeypatch.setenv("FASTGUARD_DPOP_NONCE_SECRET", "e" * 40)
    by_name = make_guard(dpop={"nonce": "required"}, audit={"path": str(tmp_path / "second")})
    nonce = refusal(by_file, http(bound, holder.proof(bound))).nonce
    assert by_name.check(http(bound, holder.proof(bound, nonce=nonce)))
    assert "e" * 40 not in by_name.gate.config_json()
    with pytest.raises(GuardConfigError, match="not by both"):
        make_guard(dpop={"nonce": "required", "nonce_secret_file": str(secret)})


def test_short_secret_and_missing_file_stop_the_start(make_guard, tmp_path):
    secret = tmp_path / "nonce.secret"
    with pytest.raises(GuardConfigError, match=r"dpop.nonce_secret_file: .*nonce.secret"):
        make_guard(dpop={"nonce": "required", "nonce_secret_file": str(secret)})
    secret.write_bytes(b"s" * 31)
    with pytest.raises(GuardConfigError, match="at least 32 bytes") as error:
        make_guard(dpop={"nonce": "required", "nonce_secret_file": str(secret)})
    assert "sss" not in str(error.value)


def test_nonces_of_one_process_alone_are_warned_of(make_guard):
    warned = dict(make_guard(dpop={"nonce": "required"}).gate.warnings())
    assert "each process makes nonces of its own" in warned["dpop.nonce"]


def test_reload_forgets_no_proof(make_guard, bound, holder):
    guard = make_guard()
    proof = holder.proof(bound)
    guard.check(http(bound, proof))
    guard.reload()
    assert refusal(guard, http(bound, proof)).code == "proof_replayed"
