"""An issuer with a key of its own, in place of the real ones."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ALGORITHM", "Caller", "Issuer", "TokenShape"]

#: The only algorithm of test tokens.
ALGORITHM: Final = "ES256"

#: Lifetime of a test token in seconds, where the issuer allows so much.
LIFETIME: Final = 300.0

#: How a duration of the configuration ends, as the core writes it, and how many seconds it counts.
_UNITS: Final = {"ms": 0.001, "s": 1.0}


class Issuer:
    """Signs test tokens by ES256. The key is made at its first use and stays in memory.

    Args:
        key_id: ``kid`` of the key.
    """

    def __init__(self, *, key_id: str = "test-key") -> None:
        self.key_id = key_id

    @cached_property
    def _key(self) -> Any:
        try:
            from joserfc.jwk import ECKey  # noqa: PLC0415 - of the extra `testing`, and needed only by tests that sign
        except ImportError as error:
            message = "test tokens are signed by joserfc: install mcp-fastguard[testing]"
            raise ImportError(message) from error
        return ECKey.generate_key("P-256", {"kid": self.key_id, "use": "sig", "alg": ALGORITHM})

    @property
    def jwks(self) -> dict[str, Any]:
        """The public key as a key set (RFC 7517)."""
        return {"keys": [self._key.as_dict(private=False)]}

    def sign(self, claims: Mapping[str, Any], *, type: str | None = "at+jwt") -> str:
        """A JWT of exactly these claims.

        Args:
            claims: the payload.
            type: ``typ`` of the header; None leaves it out.
        """
        key = self._key
        from joserfc import jwt  # noqa: PLC0415 - as above

        header = {"alg": ALGORITHM, "kid": self.key_id}
        if type is not None:
            header["typ"] = type
        return jwt.encode(header, dict(claims), key)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whom a test token names.

    Attributes:
        scopes: what it may.
        subject: ``sub``, or None.
        client_id: the OAuth client, or None.
        expires_in: seconds until ``exp``; negative for a token that has expired. None: 300, or the issuer's ``max_lifetime``.
        issuer: which of the configuration's issuers; None: the first.
        claims: further claims; they replace those made of the above, and None leaves a claim out.
    """

    scopes: Sequence[str] = ()
    subject: str | None = "alice"
    client_id: str | None = "test-client"
    expires_in: float | None = None
    issuer: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.scopes, str):
            message = f"scopes is a list of strings: {self.scopes.split()!r}"
            raise TypeError(message)


@dataclass(frozen=True)
class TokenShape:
    """What the tokens of one issuer look like, by its table of the configuration."""

    issuer: str
    audience: str
    type: str | None
    scope_claim: str
    client_claim: str
    max_lifetime: float
    required: Mapping[str, Any]

    @classmethod
    def of_config(cls, issuer: Mapping[str, Any], resource_url: str) -> Self:
        """Reads one of ``[[issuers]]`` as ``Gate.config_json`` writes it, with all defaults."""
        audiences = issuer["audiences"] or [resource_url]
        number = issuer["max_lifetime"].rstrip("ms")
        return cls(
            issuer=issuer["issuer"],
            audience=resource_url if resource_url in audiences else audiences[0],
            type=issuer["types"][0] or None,
            scope_claim=issuer["scope_claims"][0],
            client_claim=issuer["client_claims"][0],
            max_lifetime=float(number) * _UNITS[issuer["max_lifetime"].removeprefix(number)],
            # `true` asks for a claim of any value.
            required={name: "test" if value is True else value for name, value in issuer["require"].items()},
        )

    def claims(self, caller: Caller, now: float) -> dict[str, Any]:
        """The payload of a caller's token."""
        lifetime = min(LIFETIME, self.max_lifetime) if caller.expires_in is None else caller.expires_in
        # A token that has expired was once in force.
        issued_at = now if lifetime > 0 else now + lifetime - 1
        payload = {
            **self.required,
            "iss": self.issuer,
            "aud": self.audience,
            "sub": caller.subject,
            self.client_claim: caller.client_id,
            self.scope_claim: " ".join(caller.scopes) or None,
            "iat": int(issued_at),
            "exp": int(now + lifetime),
            "jti": secrets.token_hex(8),
            **caller.claims,
        }
        return {name: value for name, value in payload.items() if value is not None}
