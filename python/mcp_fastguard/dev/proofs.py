"""What the embedded authorization server wants of a DPoP proof at its token endpoint (RFC 9449 section 5)."""

from __future__ import annotations

import json
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

__all__ = ["BadProofError", "bound_to"]

#: A proof is as old as a request, in seconds; the clock is this machine's own.
MAX_AGE: Final = 60

#: Longest proof, in bytes.
MAX_PROOF: Final = 4 * 1024


class BadProofError(Exception):
    """``invalid_dpop_proof`` (RFC 9449 section 5)."""


def bound_to(proofs: list[str], *, url: str, now: float, used: dict[str, float]) -> str:
    """The thumbprint of the key that the one proof shows; ``used`` holds the ids of proofs until they are too old.

    Raises:
        BadProofError: the proof is none for this endpoint, or was used before.
    """
    for old in [name for name, until in used.items() if until < now]:
        del used[old]
    if len(proofs) != 1 or len(proofs[0]) > MAX_PROOF:
        raise BadProofError("one proof of a usual size, please")
    try:
        key, claims = _opened(proofs[0])
        identifier, issued_at = str(claims["jti"]), float(claims["iat"])
    except (JoseError, KeyError, TypeError, ValueError) as error:
        raise BadProofError("the proof cannot be read") from error
    if claims.get("htm") != "POST" or claims.get("htu") != url or abs(now - issued_at) > MAX_AGE:
        raise BadProofError("the proof is for another request")
    name = f"{key.thumbprint()} {identifier}"
    if name in used:
        raise BadProofError("the proof was used before")
    used[name] = now + 2 * MAX_AGE
    return str(key.thumbprint())


def _opened(proof: str) -> tuple[ECKey, dict[str, Any]]:
    header = jws.extract_compact(proof.encode()).headers()
    jwk = header["jwk"]
    if header.get("typ") != "dpop+jwt" or header.get("alg") != "ES256" or not isinstance(jwk, dict) or "d" in jwk:
        raise BadProofError("the proof is of another kind")
    key = ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
    claims = json.loads(jws.deserialize_compact(proof, key, algorithms=["ES256"]).payload or b"")
    if not isinstance(claims, dict):
        raise BadProofError("the proof has no claims")
    return key, claims
