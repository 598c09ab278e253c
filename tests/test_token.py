"""Room `token` through its public face: KeySet, TokenVerifier, verify_compact."""

from __future__ import annotations

import json
import threading

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jwk import KeySet as JoseKeySet

from mcp_fastguard.errors import TokenDenied
from mcp_fastguard.token import KeySet, TokenVerifier, verify_compact
from support import ISSUER, RESOURCE

NOW = 1_800_000_000


def verifier(issuer, /, **options):
    keys = KeySet.from_jwks(issuer.jwks)
    return TokenVerifier(**{"issuer": ISSUER, "audience": RESOURCE, "keys": keys, "algorithms": ["ES256"], **options})


def code(issuer, token, /, now=NOW, **options):
    with pytest.raises(TokenDenied) as denied:
        verifier(issuer, **options).verify(token, now)
    return denied.value.code


def test_good_token_gives_its_claims(issuer):
    token = verifier(issuer).verify(issuer.token(now=NOW, jti="t", aud=[RESOURCE, "other"]), NOW)

    assert (token.subject, token.client_id, token.issuer, token.token_id) == ("alice", "agent", ISSUER, "t")
    assert token.audience == (RESOURCE, "other")
    assert (token.issued_at, token.expires_at) == (NOW, NOW + 900)
    assert token.claims["scope"] == "warehouse:query:read"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://evil.example"}, "issuer_unknown"),
        ({"iss": ISSUER + "/"}, "issuer_unknown"),
        ({"iss": None}, "claim_missing"),
        ({"iss": [ISSUER]}, "claim_invalid"),
        ({"aud": None}, "claim_missing"),
        ({"aud": RESOURCE + "/"}, "audience_mismatch"),
        ({"aud": []}, "audience_mismatch"),
        ({"aud": {"a": 1}}, "claim_invalid"),
        ({"exp": None}, "claim_missing"),
        ({"exp": str(NOW + 900)}, "claim_invalid"),
        ({"exp": True}, "claim_invalid"),
        ({"exp": NOW - 31}, "token_expired"),
        ({"exp": NOW - 30}, "token_expired"),
        ({"nbf": NOW + 31}, "token_not_yet_valid"),
        ({"nbf": "1"}, "claim_invalid"),
        ({"iat": NOW + 31}, "token_from_future"),
        ({"iat": [1]}, "claim_invalid"),
        ({"exp": NOW + 3601}, "lifetime_too_long"),
        ({"iat": None, "exp": NOW + 3601}, "lifetime_too_long"),
        ({"sub": None, "client_id": None}, "principal_missing"),
        ({"sub": ""}, "claim_invalid"),
        ({"sub": 7}, "claim_invalid"),
        ({"sub": "x" * 2049}, "claim_invalid"),
        ({"jti": ["a"]}, "claim_invalid"),
        ({"scope": 7}, "claim_invalid"),
        ({"scope": ["a", 7]}, "claim_invalid"),
        ({"cnf": "x"}, "claim_invalid"),
        ({"act": "x"}, "claim_invalid"),
    ],
)
def test_claim_that_is_not_in_order_is_refused(issuer, claims, expected):
    assert code(issuer, issuer.token(now=NOW, **claims)) == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 29},
        {"nbf": NOW + 30},
        {"iat": NOW + 30, "exp": NOW + 900},
        {"exp": NOW + 3600},
        {"exp": NOW + 3600.0},
        {"iat": None, "exp": NOW + 3600},
        {"sub": None},
        {"client_id": None},
        {"jti": None},
        {"scope": None},
        {"scope": ["a", "b"]},
        {"aud": ["other", RESOURCE]},
    ],
)
def test_claim_that_only_just_is_in_order_passes(issuer, claims):
    assert verifier(issuer).verify(issuer.token(now=NOW, **claims), NOW)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_type_is_compared_as_media_types_are(issuer, typ):
    assert verifier(issuer).verify(issuer.token(now=NOW, header={"typ": typ}), NOW)


@pytest.mark.parametrize("typ", ["JWT", "dpop+jwt", "id_token+jwt", "x/at+jwt", "application/x/at+jwt", ""])
def test_other_type_is_refused(issuer, typ):
    assert code(issuer, issuer.token(now=NOW, header={"typ": typ})) == "type_refused"


def test_plain_type_passes_only_with_a_required_claim(issuer):
    with pytest.raises(ValueError, match="require"):
        verifier(issuer, types=["JWT"])

    options = {"types": ["JWT"], "require": {"azp": True, "tid": "t-1"}}
    token = issuer.token(now=NOW, header={"typ": "JWT"}, azp="a", tid="t-1")
    assert verifier(issuer, **options).verify(token, NOW)
    assert code(issuer, issuer.token(now=NOW, header={"typ": "JWT"}, azp="a", tid="t-2"), **options) == "claim_refused"
    assert code(issuer, issuer.token(now=NOW, header={"typ": "JWT"}, tid="t-1"), **options) == "claim_missing"


def test_scope_is_split_at_spaces_only(issuer):
    token = verifier(issuer).verify(issuer.token(now=NOW, scope="a  b\tc d"), NOW)
    assert token.scopes == ("a", "b\tc", "d")


def test_changed_parts_are_refused(issuer):
    header, payload, signature = issuer.token(now=NOW).split(".")
    other = issuer.token(now=NOW, sub="mallory").split(".")[1]
    assert code(issuer, f"{header}.{other}.{signature}") == "signature_invalid"
    assert code(issuer, f"{header}.{payload}.") == "signature_invalid"
    assert code(issuer, f"{header}.{payload}") == "token_malformed"
    assert code(issuer, f"{header}.{payload}.{signature}=") == "token_malformed"
    assert code(issuer, f"{header}.{payload}.{signature}.") == "token_malformed"
    assert code(issuer, "x" * 16_385) == "token_too_large"


def test_algorithm_comes_from_the_configuration(issuer):
    public = issuer.key.as_pem(private=False)
    confused = jwt.encode(
        {"alg": "HS256", "kid": "key-1", "typ": "at+jwt"},
        {"iss": ISSUER},
        OctKey.import_key(public.replace(b"-----", b"")),
        algorithms=["HS256"],
    )
    assert code(issuer, confused) == "algorithm_refused"
    assert code(issuer, issuer.token(now=NOW), algorithms=["ES384"]) == "algorithm_refused"


def test_key_in_the_header_is_never_used(issuer):
    own = ECKey.generate_key("P-256", {"kid": "own"})
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "own", "jwk": own.as_dict(private=False)}
    claims = {"iss": ISSUER, "aud": RESOURCE, "sub": "a", "exp": NOW + 9}
    assert code(issuer, jwt.encode(header, claims, own)) == "key_unknown"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    "make",
    [
        lambda: RSAKey.generate_key(2048),
        lambda: ECKey.generate_key("P-384"),
        lambda: ECKey.generate_key("P-521"),
        lambda: OKPKey.generate_key("Ed25519"),
    ],
)
def test_every_kind_of_key_verifies(make):
    key = make()
    names = {"RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], "OKP": ["EdDSA"]}
    names = names.get(key.key_type) or [{"P-384": "ES384", "P-521": "ES512"}[key.curve_name]]
    keys = KeySet.from_jwks(JoseKeySet([key]).as_dict(private=False))
    for name in names:
        signed = jwt.encode({"alg": name}, {"a": 1}, key, algorithms=[name])
        header, payload = verify_compact(signed, keys, algorithms=[name])
        assert header["alg"] == name
        assert json.loads(payload)["a"] == 1


def test_private_half_in_a_set_is_not_used(issuer):
    with pytest.raises(ValueError, match="no key of the set"):
        KeySet.from_jwks(JoseKeySet([issuer.key]).as_dict(private=True))


def test_unusable_keys_are_listed_with_their_reason(issuer):
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}
    keys = KeySet.from_jwks({"keys": [weak, *issuer.jwks["keys"], {"kty": "oct", "k": "AAAA"}]})

    assert len(keys) == 1
    assert [(index, key_id) for index, key_id, _ in keys.skipped] == [(0, "weak"), (2, None)]


def test_symmetric_keys_only_by_the_flag():
    jwks = {"kty": "oct", "k": "A" * 43}
    with pytest.raises(ValueError, match="no key"):
        KeySet.from_jwks(jwks)
    assert len(KeySet.from_jwks(jwks, allow_symmetric=True)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"keys": {}}',
        '{"keys": []}',
        '{"keys": [1]}',
        "<html>",
        '{"keys":[],"keys":[]}',
        "[" * 100,
    ],
)
def test_document_that_is_no_key_set_is_refused(text):
    with pytest.raises(ValueError, match="key"):
        KeySet.from_jwks(text)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"leeway": 301},
        {"leeway": -1},
        {"max_lifetime": 0},
        {"audience": []},
        {"audience": ""},
        {"issuer": ""},
        {"types": []},
        {"require": {"a": False}},
    ],
)
def test_impossible_option_is_refused_when_built(issuer, options):
    with pytest.raises(ValueError):
        verifier(issuer, **options)


def test_verdict_of_the_cache_dies_with_its_token(issuer):
    found = verifier(issuer)
    token = issuer.token(now=NOW)
    assert found.verify(token, NOW) == found.verify(token, NOW + 1)
    with pytest.raises(TokenDenied):
        found.verify(token, NOW + 930)


def test_many_threads_agree(issuer):
    found = verifier(issuer, cache_size=16)
    tokens = [issuer.token(now=NOW, sub=f"s{n}") for n in range(40)]
    wrong = []

    def work():
        for n in range(400):
            if found.verify(tokens[n % 40], NOW).subject != f"s{n % 40}":
                wrong.append(n)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
