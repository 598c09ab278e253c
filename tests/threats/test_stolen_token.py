"""What a thief can try who has a bound token, proofs that were used, and whatever was seen on the wire, but not the key.

Each attempt is refused by the check that is meant to refuse it, and the holder's own call passes beside them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time

import pytest
from joserfc.jws import JWSRegistry

import process_support
from mcp_fastguard import ToolRequest
from mcp_fastguard.errors import Denied
from proof_support import Holder, access_token_hash
from support import RESOURCE

BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'

#: The order of P-256 (FIPS 186-4 D.1.2.3): with s, n - s makes a signature of the same message too.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def segment(value):
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unsegment(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Theft:
    """A thief with a key of its own, and what it has of another."""

    def __init__(self, issuer, holder):
        self.holder, self.thief = holder, Holder()
        self.token = issuer.token(cnf=holder.confirmation)
        self.other_token = issuer.token(cnf=holder.confirmation)
        self.jwk = holder.key.as_dict(private=False)
        self.used = holder.proof(self.token)

    def under(self, scheme, *proofs):
        return [("authorization", f"{scheme} {self.token}"), *(("dpop", proof) for proof in proofs)]

    def by_thief(self, **header):
        return self.thief.proof(self.token, header=header)

    def resigned(self, header, sign):
        """The used proof's claims with a new `jti` and a header, signed in some way."""
        claims = {**json.loads(unsegment(self.used.split(".")[1])), "jti": os.urandom(8).hex()}
        message = f"{segment(header)}.{segment(claims)}"
        return f"{message}.{segment(sign(message.encode()))}"

    def by_holder(self, message):
        return JWSRegistry.algorithms["ES256"].sign(message, self.holder.key)

    def by_secret(self, secret):
        header = {"typ": "dpop+jwt", "alg": "HS256", "jwk": self.jwk}
        return self.resigned(header, lambda message: hmac.digest(secret, message, "sha256"))

    def twin(self):
        """The used proof with the other signature that ECDSA has for the same message."""
        head, _, signature = self.used.rpartition(".")
        r, s = unsegment(signature)[:32], int.from_bytes(unsegment(signature)[32:])
        return f"{head}.{segment(r + (ORDER - s).to_bytes(32))}"

    def ill_written(self):
        """The used proof, its signature ending in bits that make no byte."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        return self.used[:-1] + letters[letters.index(self.used[-1]) ^ 1]


def pem_of(theft):
    return theft.holder.key.as_pem(private=False)


def jwk_text(theft):
    return json.dumps(theft.jwk, separators=(",", ":")).encode()


def point_of(theft):
    return b"\4" + unsegment(theft.jwk["x"]) + unsegment(theft.jwk["y"])


def header(**changes):
    """A header of the holder's key, for proofs that the thief signs by its own."""
    return lambda theft: theft.under("DPoP", theft.by_thief(jwk=theft.jwk, **changes))


def doubled(theft):
    """Two keys in one header: one for those who take the first, one for those who take the last."""
    text = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": theft.jwk})[:-1]
    text += f', "jw\\u006b": {json.dumps(theft.thief.key.as_dict(private=False))}}}'
    message = f"{segment(text.encode())}.{theft.used.split('.')[1]}"
    return f"{message}.{theft.thief.proof(theft.token).split('.')[2]}"


#: How the token is presented.
PRESENTED = {
    "as a bearer token": (lambda theft: theft.under("Bearer"), "bound_as_bearer"),
    "as a bearer token in another case": (lambda theft: theft.under("bEaReR"), "bound_as_bearer"),
    "as a bearer token beside a used proof": (lambda theft: theft.under("Bearer", theft.used), "bound_as_bearer"),
    "as a bearer token beside a proof of the thief": (
        lambda theft: theft.under("Bearer", theft.by_thief()),
        "bound_as_bearer",
    ),
    "without a proof": (lambda theft: theft.under("DPoP"), "proof_missing"),
    "without a proof in another case": (lambda theft: theft.under("dpop"), "proof_missing"),
    "under both schemes": (lambda theft: theft.under("DPoP", theft.used) + theft.under("Bearer"), "header_duplicated"),
    "under both schemes in one line": (
        lambda theft: [("authorization", f"DPoP {theft.token}, Bearer {theft.token}"), ("dpop", theft.used)],
        "scheme_unsupported",
    ),
    "under a scheme and a scheme": (lambda theft: theft.under("Bearer DPoP"), "scheme_unsupported"),
    "after two spaces": (lambda theft: theft.under("Bearer "), "scheme_unsupported"),
    "after a tab": (lambda theft: [("authorization", f"Bearer\t{theft.token}")], "scheme_unsupported"),
    "folded": (lambda theft: [("authorization", f"Bearer\r\n {theft.token}")], "scheme_unsupported"),
    "in no header": (lambda _: [], "token_missing"),
    "in a cookie": (lambda theft: [("cookie", f"access_token={theft.token}")], "token_missing"),
    "in another header": (lambda theft: [("x-authorization", f"Bearer {theft.token}")], "token_missing"),
}

#: How a proof is.
PROVED = {
    "used before": (lambda theft: theft.under("DPoP", theft.used), "proof_replayed"),
    "used before, under the scheme in another case": (lambda theft: theft.under("dpop", theft.used), "proof_replayed"),
    "used before, with ECDSA's other signature": (lambda theft: theft.under("DPoP", theft.twin()), "proof_replayed"),
    "used before, written otherwise": (lambda theft: theft.under("DPoP", theft.ill_written()), "proof_malformed"),
    "used before, padded": (lambda theft: theft.under("DPoP", theft.used + "=="), "proof_malformed"),
    "used before, after a space": (lambda theft: theft.under("DPoP", " " + theft.used), "proof_malformed"),
    "used before, folded": (
        lambda theft: theft.under("DPoP", theft.used[:50] + "\r\n " + theft.used[50:]),
        "proof_malformed",
    ),
    "used before, with another of the thief": (
        lambda theft: theft.under("DPoP", theft.used, theft.by_thief()),
        "proof_duplicated",
    ),
    "used before, with another in one line": (
        lambda theft: theft.under("DPoP", f"{theft.used}, {theft.by_thief()}"),
        "proof_malformed",
    ),
    "empty": (lambda theft: theft.under("DPoP", ""), "proof_malformed"),
    "an empty one and a used one": (lambda theft: theft.under("DPoP", "", theft.used), "proof_duplicated"),
    "of another token of the holder": (
        lambda theft: theft.under("DPoP", theft.holder.proof(theft.other_token)),
        "proof_token_mismatch",
    ),
    "of no token, as for a token request": (
        lambda theft: theft.under("DPoP", theft.holder.proof(theft.token, ath=None)),
        "proof_malformed",
    ),
    "of another server": (
        lambda theft: theft.under("DPoP", theft.holder.proof(theft.token, htu="https://evil.example.com/mcp")),
        "proof_url_mismatch",
    ),
    "of another method": (
        lambda theft: theft.under("DPoP", theft.holder.proof(theft.token, htm="GET")),
        "proof_method_mismatch",
    ),
    "of the thief's key": (lambda theft: theft.under("DPoP", theft.by_thief()), "proof_key_mismatch"),
    "by the thief with the holder's key in it": (header(), "proof_signature_invalid"),
    "by the thief, named by `kid`": (header(kid="thief"), "proof_signature_invalid"),
    "by the thief, with a certificate": (
        header(x5c=["AAAA"], x5u="https://evil.example.com"),
        "proof_signature_invalid",
    ),
    "by the thief, with a set of keys": (header(jku="https://evil.example.com/jwks"), "proof_signature_invalid"),
    "with two keys": (lambda theft: theft.under("DPoP", doubled(theft)), "proof_malformed"),
    "with a critical extension": (header(crit=["b64"], b64=False), "proof_malformed"),
    "of another type": (header(typ="JWT"), "proof_malformed"),
    "the access token itself": (lambda theft: theft.under("DPoP", theft.token), "proof_malformed"),
    "with no algorithm": (
        lambda theft: theft.under(
            "DPoP", theft.resigned({"typ": "dpop+jwt", "alg": "none", "jwk": theft.jwk}, lambda _: b"")
        ),
        "proof_algorithm_refused",
    ),
    "by the public key as a secret, in PEM": (
        lambda theft: theft.under("DPoP", theft.by_secret(pem_of(theft))),
        "proof_algorithm_refused",
    ),
    "by the public key as a secret, in JSON": (
        lambda theft: theft.under("DPoP", theft.by_secret(jwk_text(theft))),
        "proof_algorithm_refused",
    ),
    "by the public key as a secret, as a point": (
        lambda theft: theft.under("DPoP", theft.by_secret(point_of(theft))),
        "proof_algorithm_refused",
    ),
    "with a signature of zeros": (
        lambda theft: theft.under(
            "DPoP", theft.resigned({"typ": "dpop+jwt", "alg": "ES256", "jwk": theft.jwk}, lambda _: bytes(64))
        ),
        "proof_signature_invalid",
    ),
    "with a signature of the order": (
        lambda theft: theft.under(
            "DPoP",
            theft.resigned({"typ": "dpop+jwt", "alg": "ES256", "jwk": theft.jwk}, lambda _: ORDER.to_bytes(32) * 2),
        ),
        "proof_signature_invalid",
    ),
    "without a signature": (
        lambda theft: theft.under(
            "DPoP", theft.resigned({"typ": "dpop+jwt", "alg": "ES256", "jwk": theft.jwk}, lambda _: b"")
        ),
        "proof_signature_invalid",
    ),
}

#: The key that a proof brings.
KEYS = {
    "the point of zeros": ({"x": segment(bytes(32)), "y": segment(bytes(32))}, "proof_key_refused"),
    "a point off the curve": ({"y": segment(bytes(31) + b"\1")}, "proof_key_refused"),
    "a coordinate beyond the prime": ({"x": segment(b"\xff" * 32)}, "proof_key_refused"),
    "no y": ({"y": None}, "proof_key_refused"),
    "an empty y": ({"y": ""}, "proof_key_refused"),
    "the curve of others": ({"crv": "secp256k1"}, "proof_key_refused"),
    "a longer curve": ({"crv": "P-384"}, "proof_key_refused"),
    "another kind of key": ({"kty": "OKP"}, "proof_key_refused"),
    "a secret": ({"kty": "oct", "k": "AAAA"}, "proof_key_refused"),
    "a private member": ({"d": "AAAA"}, "proof_key_refused"),
    "a private member that is null": ({"d": None}, "proof_key_refused"),
    "another algorithm": ({"alg": "HS256"}, "proof_key_refused"),
    "another use": ({"use": "enc"}, "proof_key_refused"),
}


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def theft(issuer, holder):
    return Theft(issuer, holder)


def request(headers, query=None):
    lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return ToolRequest.http(method="POST", path="/mcp", headers=lines, body=BODY, query=query)


def code(guard, headers):
    with pytest.raises(Denied) as denied:
        guard.check(request(headers))
    assert denied.value.status in {400, 401}
    return denied.value.code


def passes(guard, theft, **claims):
    return guard.check(request(theft.under("DPoP", theft.holder.proof(theft.token, **claims)))).token.thumbprint


@pytest.mark.parametrize(("attempt", "expected"), PRESENTED.values(), ids=PRESENTED)
def test_stolen_token_passes_in_no_way_of_presenting_it(guard, theft, attempt, expected):
    assert code(guard, attempt(theft)) == expected
    assert passes(guard, theft) == theft.holder.thumbprint


@pytest.mark.parametrize(("attempt", "expected"), PROVED.values(), ids=PROVED)
def test_stolen_token_passes_with_no_proof_that_a_thief_can_have(guard, theft, attempt, expected):
    guard.check(request(theft.under("DPoP", theft.used)))

    assert code(guard, attempt(theft)) == expected
    assert passes(guard, theft) == theft.holder.thumbprint


@pytest.mark.parametrize(("changes", "expected"), KEYS.values(), ids=KEYS)
def test_proof_passes_with_no_key_but_the_holder_s_own(guard, theft, changes, expected):
    jwk = {**theft.jwk, **changes}
    assert code(guard, theft.under("DPoP", theft.holder.proof(theft.token, header={"jwk": jwk}))) == expected


@pytest.mark.parametrize(
    "more", [{"kid": "k"}, {"x5c": ["AAAA"]}, {"x5u": "https://evil.example.com"}, {"unknown": [1]}], ids=str
)
def test_what_else_a_key_says_of_itself_neither_helps_nor_harms(guard, theft, more):
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": {**theft.jwk, **more}, **more}
    proof = theft.resigned(header, theft.by_holder)
    assert guard.check(request(theft.under("DPoP", proof))).token.thumbprint == theft.holder.thumbprint


@pytest.mark.parametrize("y", [0, 1], ids=["of order 4", "the neutral one"])
def test_point_of_small_order_signs_nothing(make_guard, issuer, y):
    """Under such a key of Ed25519 one signature fits many messages, so that whoever gets a token bound to it shares it with all."""
    guard = make_guard(dpop={"algorithms": ["EdDSA"]})
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": segment(bytes([y]) + bytes(31))}
    text = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    token = issuer.token(cnf={"jkt": segment(hashlib.sha256(text).digest())})
    claims = {"jti": "j", "htm": "POST", "htu": RESOURCE, "iat": int(time.time()), "ath": access_token_hash(token)}
    message = f"{segment({'typ': 'dpop+jwt', 'alg': 'EdDSA', 'jwk': jwk})}.{segment(claims)}"
    proof = f"{message}.{segment(bytes([1]) + bytes(63))}"

    assert code(guard, [("authorization", f"DPoP {token}"), ("dpop", proof)]) == "proof_key_refused"


@pytest.mark.parametrize(
    "htu",
    [
        "https://mcp.example.com\\@evil.example.com/mcp",
        "https://mcp.example.com:443@evil.example.com/mcp",
        "https://user:pass@mcp.example.com/mcp",
        "https://@mcp.example.com/mcp",
        "https://mcp.example.com%2Fmcp",
        "https://mcp.example.com./mcp",
        "https://mcp.example.com:444/mcp",
        "https://mcp.example.com:99999/mcp",
        "https://mcp.example.com:-443/mcp",
        "https://[mcp.example.com]/mcp",
        "https://[::ffff:192.0.2.1]/mcp",
        "https://mcp.example.com/mcp%2F",
        "https://mcp.example.com/mcp%00",
        "https://mcp.example.com/mcp/.",
        "https://mcp.example.com/%2e%2e/other",
        "https://mcp.example.com/other/..%2fmcp",
        "https://mcp.example.com//mcp",
        "https://mcp.example.com/mcp;a",
        "https://mcp.example.com/mc%70%",
        "https:mcp.example.com/mcp",
        "https:/mcp.example.com/mcp",
        "https:///mcp.example.com/mcp",
        "//mcp.example.com/mcp",
        "https://\uff4dcp.example.com/mcp",
        "https://mcp.example.com/mc\u0070\u200b",
        "javascript:https://mcp.example.com/mcp",
    ],
)
def test_proof_of_a_url_that_only_looks_like_this_one_is_refused(guard, theft, htu):
    assert code(guard, theft.under("DPoP", theft.holder.proof(theft.token, htu=htu))) == "proof_url_mismatch"


@pytest.mark.parametrize(
    "htu",
    [
        "HTTPS://mcp.EXAMPLE.com:0443/mcp",
        "https://mcp.example.com:/mcp",
        "https://mcp.example.com/./%6d%63%70",
        "https://mcp.example.com/a/%2E%2E/mcp",
        "https://mcp.example.com/../mcp#x",
        "https://mcp.example.com/mcp?htu=https://evil.example.com",
    ],
)
def test_proof_of_this_url_passes_however_it_is_written(guard, theft, htu):
    assert passes(guard, theft, htu=htu) == theft.holder.thumbprint


def test_address_of_six_is_the_same_however_it_is_written(make_guard, config, issuer, holder):
    """RFC 4291 section 2.2 lets one address be written in many ways."""
    config["resource"] = {"url": "https://[2001:db8::1]:8443/mcp"}
    config["issuers"][0]["audiences"] = [RESOURCE]
    guard, theft = make_guard(), Theft(issuer, holder)
    for htu in ("https://[2001:DB8:0:0:0:0:0:1]:8443/mcp", "https://[2001:db8::0:1]:8443/mcp"):
        assert passes(guard, theft, htu=htu) == holder.thumbprint
    for htu in ("https://[2001:db8::1]/mcp", "https://[2001:db8::2]:8443/mcp", "https://[2001:db8::1%25eth0]:8443/mcp"):
        assert code(guard, theft.under("DPoP", holder.proof(theft.token, htu=htu))) == "proof_url_mismatch"


def test_names_of_proofs_are_compared_byte_by_byte_and_never_normalised(guard, theft):
    """Two `jti` that look alike are two; the same one with another escape in its JSON is the same."""
    for name in ("caf\u00e9", "cafe\u0301", "CAF\u00e9", "caf\u00e9\u200b", "\0", " "):
        assert passes(guard, theft, jti=name)
    proof = theft.holder.proof(theft.token, jti="caf\u00e9")
    escaped = unsegment(proof.split(".")[1]).replace(b"caf\\u00e9", "c\\u0061f\u00e9".encode())
    assert escaped != unsegment(proof.split(".")[1])
    head = f"{proof.split('.')[0]}.{segment(escaped)}"
    again = f"{head}.{segment(theft.by_holder(head.encode()))}"
    assert code(guard, theft.under("DPoP", again)) == "proof_replayed"


def test_token_in_the_query_is_no_token(guard, theft):
    with pytest.raises(Denied) as denied:
        guard.check(request([("dpop", theft.holder.proof(theft.token))], query=f"access_token={theft.token}".encode()))
    assert denied.value.code == "token_missing"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_proof_that_was_used_before_a_fork_is_used_up_in_both_processes(config, issuer, holder):
    token = issuer.token(cnf=holder.confirmation)
    script = """
def decide(proof):
    headers = [(b"authorization", b"DPoP " + given["token"].encode()), (b"dpop", proof.encode())]
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'
    try:
        guard.check(ToolRequest.http(method="POST", path="/mcp", headers=headers, body=body))
    except Denied as denied:
        return denied.code
    return "allowed"

guard = Guard.from_dict(config)
found = [decide(given["used"])]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, json.dumps([decide(given["used"]), decide(given["new"])]).encode())
    os._exit(0)
os.waitpid(child, 0)
found += json.loads(os.read(reading, 1000)) + [decide(given["used"])]
guard.close()
tell(found=found)
"""
    given = {"token": token, "used": holder.proof(token), "new": holder.proof(token)}
    found = process_support.run(script, config, given)["found"]

    assert found == ["allowed", "proof_replayed", "allowed", "proof_replayed"]
