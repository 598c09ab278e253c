"""Mutated proofs, judged by us and by panva's `oauth4webapi`: none that we accept and it refuses, unless the reason stands here."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from joserfc.jws import JWSRegistry

from mcp_fastguard.binding import DPoPVerifier
from mcp_fastguard.errors import Denied
from mcp_fastguard.token import KeySet, TokenVerifier
from node_support import TOOLS, node_binary
from proof_support import Holder, access_token_hash
from support import RESOURCE, Issuer

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent

#: What we accept and it does not, by its message.
LISTED = {
    'unexpected JWT "iss" (issuer) claim type': "RFC 9449 section 4.2 gives a proof no `iss`: nothing reads it, and the key has signed it",
    'unexpected JWT "aud" (audience) claim type': "the same of `aud`: `htu` says for whom a proof is",
}


def encoded(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Mutants:
    """Proofs for one token, each changed in none, one or a few places. About a third stays valid."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.issuer = Issuer()
        self.holder, self.other = Holder(), Holder()
        self.token = self.issuer.token(cnf=self.holder.confirmation)

    def claims(self, now):
        dice = self.dice
        odd = [now, now - 200, now + 200, now - 400, now + 400, 0, -1, str(now), None, True, 1e3, [], {}, now + 0.5]
        changes = {
            "iat": lambda: dice.choice(odd),
            "exp": lambda: dice.choice(odd),
            "nbf": lambda: dice.choice(odd),
            "jti": lambda: dice.choice(["", "a" * 256, "a" * 257, 1, None, ["a"], "\u00e9"]),
            "htm": lambda: dice.choice(["post", "GET", "POST ", 1, None, ["POST"]]),
            "htu": lambda: dice.choice(
                [
                    RESOURCE + "?a=1",
                    RESOURCE + "#a",
                    RESOURCE + "/",
                    RESOURCE.replace("https", "http"),
                    RESOURCE.replace("https", "HTTPS"),
                    RESOURCE.replace(".com", ".com:443"),
                    RESOURCE.replace(".com", ".com:8443"),
                    RESOURCE.replace("mcp.", "MCP."),
                    RESOURCE.replace("/mcp", "/%6dcp"),
                    RESOURCE.replace("/mcp", "/a/../mcp"),
                    RESOURCE.replace("/mcp", "/a%2F..%2Fmcp"),
                    RESOURCE.replace("https://", "https://user@"),
                    RESOURCE + "%00",
                    RESOURCE + "\n",
                    " " + RESOURCE,
                    "/mcp",
                    "",
                    1,
                    None,
                ]
            ),
            "ath": lambda: dice.choice([access_token_hash("x"), access_token_hash(self.token) + "=", "", 1, None]),
            "nonce": lambda: dice.choice(["n", 1, None, []]),
            "iss": lambda: dice.choice(["x", 1, None]),
            "aud": lambda: dice.choice(["x", 1, None, []]),
            "sub": lambda: dice.choice(["x", 1, None]),
        }
        names = [name for name in changes if dice.random() < 0.06]
        return {name: changes[name]() for name in names}

    def header(self):
        dice = self.dice
        jwk = self.holder.key.as_dict(private=False)
        odd_keys = [
            self.other.key.as_dict(private=False),
            self.holder.key.as_dict(private=True),
            {**jwk, "use": "enc"},
            {**jwk, "use": "sig"},
            {**jwk, "alg": "ES384"},
            {**jwk, "alg": "ES256"},
            {**jwk, "key_ops": ["sign"]},
            {**jwk, "key_ops": ["verify"]},
            {**jwk, "x5u": "https://a"},
            {**jwk, "crv": "P-384"},
            {**jwk, "kty": "oct", "k": "AAAA"},
            {**jwk, "x": jwk["x"] + "="},
            {**jwk, "x": jwk["y"], "y": jwk["x"]},
            {"kty": "EC", "crv": "P-256"},
            [],
            None,
        ]
        changes = {
            "typ": lambda: dice.choice(["JWT", "DPOP+JWT", "application/dpop+jwt", "dpop+jwt ", None, 1]),
            "alg": lambda: dice.choice(["ES384", "none", "HS256", "es256", None, 1]),
            "jwk": lambda: dice.choice(odd_keys),
            "crit": lambda: dice.choice([["exp"], [], "exp"]),
            "b64": lambda: dice.choice([True, False]),
            "kid": lambda: dice.choice(["x", 1]),
            "zip": lambda: "DEF",
        }
        names = [name for name in changes if dice.random() < 0.04]
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}
        header |= {name: changes[name]() for name in names}
        return {name: value for name, value in header.items() if value is not None}

    def text(self, proof):
        """The text, changed as on a bad line."""
        dice, place = self.dice, self.dice.randrange(len(proof))
        letter = dice.choice("AZaz09-_.=+/ ,")
        return dice.choice(
            [
                proof[:place] + letter + proof[place + 1 :],
                proof[:place] + proof[place + 1 :],
                proof[:place] + letter + proof[place:],
                proof[:place],
                proof + letter,
                proof.swapcase(),
            ]
        )

    def one(self, number):
        """Signed over its own bytes, whatever they say, so that not the signature alone decides."""
        now = int(time.time())
        claims = {"jti": f"proof-{number}", "htm": "POST", "htu": RESOURCE, "iat": now}
        claims |= {"ath": access_token_hash(self.token), **self.claims(now)}
        payload = json.dumps({name: value for name, value in claims.items() if value is not None})
        if self.dice.random() < 0.02:
            payload = payload[:-1] + f', "htm": "{self.dice.choice(["POST", "GET"])}"}}'
        parts = f"{encoded(json.dumps(self.header()).encode())}.{encoded(payload.encode())}"
        proof = f"{parts}.{encoded(signature(self.holder, parts.encode()))}"
        return self.text(proof) if self.dice.random() < 0.2 else proof


def signature(holder, message):
    return JWSRegistry.algorithms["ES256"].sign(message, holder.key)


def judged(node, mutants, count, numbers):
    """Pairs of a proof and what it said, of those that we accept; and how many both accept."""
    keys = KeySet.from_jwks(mutants.issuer.jwks)
    verifier = TokenVerifier(issuer=mutants.issuer.issuer, audience=RESOURCE, keys=keys, algorithms=["ES256"])
    token = verifier.verify(mutants.token)
    proofs = DPoPVerifier()
    drawn = [mutants.one(next(numbers)) for _ in range(count)]
    given = {
        "issuer": mutants.issuer.issuer,
        "jwks": mutants.issuer.jwks,
        "token": mutants.token,
        "url": RESOURCE,
        "proofs": drawn,
    }
    done = subprocess.run(
        [node, HERE / "dpop_verifier.mjs", TOOLS],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    accepted, disputed = 0, []
    for proof, said in zip(drawn, json.loads(done.stdout), strict=True):
        try:
            proofs.confirm(token, proof, method="POST", url=RESOURCE, access_token=mutants.token)
        except Denied:
            continue
        accepted += said is None
        if said is not None and said not in LISTED:
            disputed.append((said, proof))
    return accepted, disputed


def run_of(node, total, chunk, seed):
    numbers = iter(range(total))
    accepted, disputed = 0, []
    for start in range(0, total, chunk):
        found = judged(node, Mutants(seed + start), min(chunk, total - start), numbers)
        accepted += found[0]
        disputed += found[1]
    return accepted, disputed


@pytest.fixture(scope="module")
def node():
    """The pinned Node."""
    return node_binary()


def test_no_proof_is_accepted_that_oauth4webapi_refuses(node):
    accepted, disputed = run_of(node, 3_000, 3_000, 20_261_128)

    assert disputed == []
    assert accepted > 500


@pytest.mark.soak
def test_no_proof_of_a_million_is_accepted_that_oauth4webapi_refuses(node):
    total = int(os.environ.get("FASTGUARD_MUTANTS", "1000000"))
    accepted, disputed = run_of(node, total, 10_000, int(time.time()))

    assert disputed == []
    assert accepted > total / 6
