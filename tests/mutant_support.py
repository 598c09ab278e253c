"""Proofs for one token, each changed in none, one or a few places: what a differential run draws from."""

from __future__ import annotations

import base64
import json
import random
import time
from typing import Any

from joserfc.jws import JWSRegistry

from proof_support import Holder, access_token_hash
from support import RESOURCE, Issuer

#: Ways to write a URL, some of them the guarded one, by what replaces what in it.
_URLS = [
    RESOURCE + "?a=1",
    RESOURCE + "#a",
    RESOURCE + "/",
    RESOURCE.replace("https", "http"),
    RESOURCE.replace("https", "HTTPS"),
    RESOURCE.replace(".com", ".com:443"),
    RESOURCE.replace(".com", ".com:0443"),
    RESOURCE.replace(".com", ".com:"),
    RESOURCE.replace(".com", ".com."),
    RESOURCE.replace(".com", ".com:8443"),
    RESOURCE.replace("mcp.", "MCP."),
    RESOURCE.replace("mcp.", "%6dcp."),
    RESOURCE.replace("mcp.", "\uff4dcp."),
    RESOURCE.replace("mcp.", "m\u00adcp."),
    RESOURCE.replace("/mcp", "/%6dcp"),
    RESOURCE.replace("/mcp", "/a/../mcp"),
    RESOURCE.replace("/mcp", "/a/%2e%2e/mcp"),
    RESOURCE.replace("/mcp", "/./mcp"),
    RESOURCE.replace("/mcp", "//mcp"),
    RESOURCE.replace("/mcp", "/a%2F..%2Fmcp"),
    RESOURCE.replace("/mcp", "\\mcp"),
    RESOURCE.replace("https://", "https://user@"),
    RESOURCE.replace("https://", "https://:@"),
    RESOURCE.replace("https://", "https://@"),
    RESOURCE.replace("https://", "https:"),
    RESOURCE.replace("https://", "https:///"),
    RESOURCE.replace("https://", "https:\\\\"),
    RESOURCE.replace("mcp.example.com", "[::1]"),
    RESOURCE + "%00",
    RESOURCE + "\n",
    RESOURCE.replace("/mcp", "/m\tcp"),
    " " + RESOURCE,
    "/mcp",
    "",
    1,
    None,
]


def encoded(value: bytes) -> str:
    """base64url."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Mutants:
    """A token and proofs for it. About a third of the proofs stays valid."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.issuer = Issuer()
        # RSA seldom: it signs slowest.
        algorithm = self.dice.choice(["ES256", "ES256", "Ed25519", "Ed25519", "RS256"])
        self.holder, self.other = Holder(algorithm), Holder(algorithm)
        self.token = self.issuer.token(cnf=self.holder.confirmation)
        self._count = 0

    def claims(self, now: int) -> dict[str, Any]:
        """What of the claims differs from those of a good proof."""
        dice = self.dice
        # None so near to the end of a window that the two verifiers could see it on two sides.
        odd = [now - 200, now + 200, now - 500, now + 500, 0, -1, str(now), None, True, 1e3, [], {}, now + 200.5, 1e300]
        changes = {
            "iat": lambda: dice.choice([now, *odd]),
            "exp": lambda: dice.choice(odd),
            "nbf": lambda: dice.choice(odd),
            "jti": lambda: dice.choice(["", "a" * 256, "a" * 257, 1, None, ["a"], "\u00e9", "e\u0301"]),
            "htm": lambda: dice.choice(["post", "GET", "POST ", 1, None, ["POST"]]),
            "htu": lambda: dice.choice(_URLS),
            "ath": lambda: dice.choice([access_token_hash("x"), access_token_hash(self.token) + "=", "", 1, None]),
            "nonce": lambda: dice.choice(["n", 1, None, []]),
            "content_digest": lambda: dice.choice(["n", 1, None, []]),
            "iss": lambda: dice.choice(["x", 1, None]),
            "aud": lambda: dice.choice(["x", 1, None, []]),
            "sub": lambda: dice.choice(["x", 1, None]),
        }
        names = [name for name in changes if dice.random() < 0.05]
        return {name: changes[name]() for name in names}

    def header(self) -> dict[str, Any]:
        """The header, changed or not."""
        dice = self.dice
        jwk = self.holder.key.as_dict(private=False)
        odd_keys = [
            self.other.key.as_dict(private=False),
            self.holder.key.as_dict(private=True),
            {**jwk, "use": "enc"},
            {**jwk, "use": "sig"},
            {**jwk, "alg": "ES384"},
            {**jwk, "alg": self.holder.algorithm},
            {**jwk, "key_ops": ["sign"]},
            {**jwk, "key_ops": ["verify"]},
            {**jwk, "ext": False},
            {**jwk, "d": None},
            {**jwk, "kid": "x"},
            {**jwk, "x5u": "https://a"},
            {**jwk, "crv": "P-384"},
            {**jwk, "kty": "oct", "k": "AAAA"},
            {**jwk, "x": jwk.get("x", "") + "="},
            {**jwk, "x": jwk.get("y"), "y": jwk.get("x")},
            {**jwk, "x": "A" * 43, "y": "A" * 43},
            {**jwk, "n": "AA" + jwk.get("n", "")},
            {**jwk, "e": "AAEAAQ"},
            {"kty": "EC", "crv": "P-256"},
            [],
            None,
        ]
        algorithms = ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256", "none", "HS256", "es256", None, 1]
        changes = {
            "typ": lambda: dice.choice(["JWT", "DPOP+JWT", "application/dpop+jwt", "dpop+jwt ", None, 1]),
            "alg": lambda: dice.choice(algorithms),
            "jwk": lambda: dice.choice(odd_keys),
            "crit": lambda: dice.choice([["exp"], [], "exp"]),
            "b64": lambda: dice.choice([True, False]),
            "kid": lambda: dice.choice(["x", 1]),
            "zip": lambda: "DEF",
            "x5c": lambda: ["AAAA"],
        }
        names = [name for name in changes if dice.random() < 0.035]
        header = {"typ": "dpop+jwt", "alg": self.holder.algorithm, "jwk": jwk}
        header |= {name: changes[name]() for name in names}
        return {name: value for name, value in header.items() if value is not None}

    def changed(self, text: str, letters: str) -> str:
        """The text, changed as on a bad line."""
        dice, place = self.dice, self.dice.randrange(len(text))
        letter = dice.choice(letters)
        return dice.choice(
            [
                text[:place] + letter + text[place + 1 :],
                text[:place] + text[place + 1 :],
                text[:place] + letter + text[place:],
                text[:place],
                text + letter,
                letter + text,
                text.swapcase(),
            ]
        )

    def json(self, value: dict[str, Any], member: str) -> str:
        """The object, now and then as no careful writer has it. The member is one that may come twice."""
        dice, text = self.dice, json.dumps(value, ensure_ascii=self.dice.random() < 0.5)
        if dice.random() < 0.02:
            again, escaped = json.dumps(value.get(member)), f"\\u{ord(member[0]):04x}{member[1:]}"
            text = text[:-1] + f', "{dice.choice([member, escaped])}": {dice.choice([again, 0])}}}'
        return self.changed(text, '{}[],:"\\0 \n\t\ufeff\u2028') if dice.random() < 0.05 else text

    def one(self) -> str:
        """A proof, signed over its own bytes, whatever they say, so that not the signature alone decides."""
        now, self._count = int(time.time()), self._count + 1
        claims = {"jti": f"proof-{self._count}", "htm": "POST", "htu": RESOURCE, "iat": now}
        claims |= {"ath": access_token_hash(self.token), **self.claims(now)}
        payload = self.json({name: value for name, value in claims.items() if value is not None}, "htm")
        parts = f"{encoded(self.json(self.header(), 'typ').encode())}.{encoded(payload.encode())}"
        by = JWSRegistry.algorithms[self.holder.algorithm]
        proof = f"{parts}.{encoded(by.sign(parts.encode(), self.holder.key))}"
        return self.changed(proof, "AZaz09-_.=+/ ,") if self.dice.random() < 0.15 else proof
