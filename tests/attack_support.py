"""What costs most to refuse, and names that meet in hashes without a key: for tests, and for the bench of their cost."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

from mcp_fastguard import Guard, GuardFault, ToolRequest
from mcp_fastguard.errors import Denied
from support import ISSUER, RESOURCE, Issuer


def segment(value: Any) -> str:
    """A part of a token."""
    content = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def tokens(issuer: Issuer) -> dict[str, str]:
    """Tokens that are refused, each of a kind that makes somebody work."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": RESOURCE, "sub": "mallory", "client_id": "c", "iat": now, "exp": now + 600}
    header = {"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}
    signature = "A" * 86

    def token(head: Any = header, body: Any = claims) -> str:
        return f"{segment(head)}.{segment(body)}.{signature}"

    def filled(size: int, **more: Any) -> dict[str, Any]:
        return {**claims, **more, "fill": "x" * size}

    many = {f"member-{number}": number for number in range(500)}
    deep = b"[" * 60 + b"]" * 60
    return {
        "of one character": "x",
        "of 16 KiB, no parts": "x" * 16_384,
        "of 1 MiB": "x" * 1_048_576,
        "of a MiB of points": "." * 1_048_576,
        "of 16 KiB of points": "." * 16_384,
        "with a wrong signature": token(),
        "with a wrong signature, as long as it may be": token(body=filled(12_000)),
        "with the signature of another token": ".".join(
            [token().rpartition(".")[0], issuer.token().rpartition(".")[2]]
        ),
        "with many members": token(body={**claims, **many}),
        "with many scopes": token(body={**claims, "scope": " ".join(f"s:{number}" for number in range(1_000))}),
        "that nests deeply": token(body=json.dumps(claims).encode()[:-1] + b',"deep":' + deep + b"}"),
        "with a long number": token(body=json.dumps(claims).encode()[:-1] + b',"n":' + b"9" * 10_000 + b"}"),
        "with a long fraction": token(body=json.dumps(claims).encode()[:-1] + b',"n":0.' + b"1" * 10_000 + b"e-300}"),
        "with escapes": token(body=json.dumps(claims).encode()[:-1] + b',"e":"' + b"\\u0061" * 1_900 + b'"}'),
        "with a long header": token(head={**header, "x": "y" * 2_900}),
        "with a header of many members": token(head={**header, **{f"m{number}": 0 for number in range(250)}}),
        "by PBES2": token(head={**header, "alg": "PBES2-HS256+A128KW", "p2c": 2_147_483_647, "p2s": "AAAA"}),
        "by no algorithm": token(head={**header, "alg": "none"}),
        "with a key of its own": token(head={**header, "jwk": {"kty": "RSA", "n": "A" * 2_000, "e": "AQAB"}}),
        "of an unknown key": token(head={**header, "kid": "k" * 1_000}),
        "that is encrypted": ".".join(["A" * 3_000] * 5),
        "that has expired": issuer.token(iat=1_000, exp=2_000),
        "of another audience": issuer.token(aud=[f"https://other-{number}.example.com" for number in range(300)]),
        "that is signed and as long as it may be": issuer.token(aud="x", fill="y" * 11_000),
    }


def checked(guard: Guard, token: str) -> str:
    """The code of its refusal."""
    try:
        guard.check(ToolRequest.direct(tool="add", arguments={}, token=token))
    except (Denied, GuardFault) as refusal:
        return refusal.code
    return "allowed"


def colliding(count: int) -> dict[str, list[str]]:
    """Names that meet in hashes which have no key, and such as differ in their last or middle letters alone."""
    bits = range(max(1, (count - 1).bit_length()))

    def blocks(one: str, other: str) -> list[str]:
        # Each block has the same hash as the other, so that all of these names have.
        return ["".join(names) for names in itertools.islice(itertools.product((one, other), repeat=len(bits)), count)]

    return {
        "by 31 (Java, Kotlin)": blocks("Aa", "BB"),
        "by 33 (djb2, older PHP)": blocks("Ab", "BA"),
        "by sum and xor": blocks("abba", "baab"),
        "by their first letters": [f"{'x' * 40}{number:08d}" for number in range(count)],
        "by their last letters": [f"{number:08d}{'x' * 40}" for number in range(count)],
        "by steps of 65536": [str(number << 16) for number in range(count)],
    }


def scattered(count: int, length: int) -> list[str]:
    """As many names, as long, at random."""
    import random

    drawn = random.Random(1)
    return [f"{drawn.getrandbits(length * 4):0{length}x}" for _ in range(count)]
