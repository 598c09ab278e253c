"""What tests of proofs share: a client that holds a key and makes proofs with it, by a library that no one here wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import warnings
from typing import Any

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from support import RESOURCE

#: Every algorithm that a proof may have; joserfc wants the unusual ones named.
_REGISTRY = jws.JWSRegistry(algorithms=["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256", "HS256"])


def access_token_hash(text: str) -> str:
    """``ath`` (RFC 9449 section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Holder:
    """A client with a key."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        if algorithm.startswith("ES"):
            curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm]
            self.key: Any = ECKey.generate_key(curve)
        elif algorithm.startswith("Ed"):
            self.key = OKPKey.generate_key("Ed25519")
        else:
            self.key = RSAKey.generate_key(2048)

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint()

    @property
    def confirmation(self) -> dict[str, str]:
        """``cnf`` of a token that is bound to the key."""
        return {"jkt": self.thumbprint}

    def proof(
        self, token: str, *, header: dict[str, Any] | None = None, now: float | None = None, **claims: Any
    ) -> str:
        """A proof that passes, unless a claim says otherwise. A claim of None is left out."""
        payload = {
            "jti": os.urandom(12).hex(),
            "htm": "POST",
            "htu": RESOURCE,
            "iat": int(time.time() if now is None else now),
            "ath": access_token_hash(token),
            **claims,
        }
        found = {name: value for name, value in payload.items() if value is not None}
        protected = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.key.as_dict(private=False), **(header or {})}
        with warnings.catch_warnings():
            # joserfc warns of `EdDSA`, the older name (RFC 9864), which clients still write.
            warnings.simplefilter("ignore", SecurityWarning)
            return jws.serialize_compact(protected, json.dumps(found).encode(), self.key, registry=_REGISTRY)
