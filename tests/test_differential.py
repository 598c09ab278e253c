"""Mutated tokens, judged by us and by PyJWT: no case in which we accept and it refuses."""

from __future__ import annotations

import base64
import json
import random
import time

import jwt as pyjwt
import pytest

from mcp_fastguard.errors import TokenDenied
from mcp_fastguard.token import KeySet, TokenVerifier
from support import ISSUER, RESOURCE


def mutants(issuer, count, seed=20_261_123):
    dice = random.Random(seed)
    now = int(time.time())
    odd = [now + 600, now - 600, 0, -1, "1", None, True, 1e3, [], {}, now * 1000]
    for _ in range(count):
        claims = {"exp": now + 600}
        for name in ("exp", "nbf", "iat"):
            if dice.random() < 0.2:
                claims[name] = dice.choice(odd)
        if dice.random() < 0.2:
            claims["aud"] = dice.choice([[RESOURCE], ["x", RESOURCE], "x", [], 7, RESOURCE + "/"])
        if dice.random() < 0.2:
            claims["iss"] = dice.choice([ISSUER + "/", [ISSUER], 7, ISSUER.upper()])
        header = {"typ": "at+jwt"}
        if dice.random() < 0.1:
            header["crit"] = ["exp"]
        token = issuer.token(header=header, **claims) if "crit" not in header else issuer.token(**claims)
        if dice.random() < 0.4:
            place = dice.randrange(len(token))
            letter = dice.choice("AZaz09-_.=+/ ")
            token = dice.choice(
                [
                    token[:place] + letter + token[place + 1 :],
                    token[:place] + letter + token[place:],
                    token[:place] + token[place + 1 :],
                ]
            )
        yield token


def test_mutants_are_never_accepted_by_us_alone(issuer):
    verifier = TokenVerifier(
        issuer=ISSUER, audience=RESOURCE, keys=KeySet.from_jwks(issuer.jwks), algorithms=["ES256"], cache_size=0
    )
    public = pyjwt.PyJWK(issuer.jwks["keys"][0])
    both, alone = 0, []
    for token in mutants(issuer, 3_000):
        try:
            verifier.verify(token)
        except TokenDenied:
            continue
        try:
            pyjwt.decode(
                token,
                public,
                algorithms=["ES256"],
                audience=RESOURCE,
                issuer=ISSUER,
                leeway=30,
                options={"require": ["exp"]},
            )
            both += 1
        except pyjwt.PyJWTError as error:
            alone.append((token, repr(error)))
    assert not alone
    assert both > 300


def test_payload_that_is_no_object_is_refused_by_both(issuer):
    verifier = TokenVerifier(issuer=ISSUER, audience=RESOURCE, keys=KeySet.from_jwks(issuer.jwks), algorithms=["ES256"])
    for payload in (b"[]", b"1", b'"a"', b"null", b'{"a":1}{"b":2}', b"\xff", json.dumps({"a": "b"}).encode("utf-16")):
        segment = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
        header = issuer.token().split(".")[0]
        with pytest.raises(TokenDenied):
            verifier.verify(f"{header}.{segment}.AAAA")
