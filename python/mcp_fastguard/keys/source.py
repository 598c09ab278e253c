"""Where an issuer's keys are, and what came from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FetchError", "Fetched", "KeySource", "Validator"]


class FetchError(Exception):
    """A document could not be fetched. The text names the place and the reason, and holds no secret.

    ``retry_after``: in how many seconds the server wants to be asked again; None: it did not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class KeySource(NamedTuple):
    """Where an issuer's keys are, and how they are asked for. The core makes these, from ``[[issuers]]``.

    Args:
        issuer: as tokens spell it.
        jwks_uri: of its key set; None: found in the issuer's metadata.
        allow_http_loopback: lets a host on loopback pass, and ``http`` there. Elsewhere, who is on the way would choose the keys.
        allow_networks: in CIDR form, that the hosts may be in beside the Internet.
        ca_file: certificates (PEM) of the authorities that may vouch for the hosts; None: the system's.
        client_certificate: the certificate (PEM) that is shown to the hosts.
        client_key: its key, where it is not in the same file.
        bearer_file: holds the token that is sent to the issuer's own hosts; read for each fetch.
    """

    issuer: str
    jwks_uri: str | None
    allow_http_loopback: bool
    allow_networks: tuple[str, ...] = ()
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    bearer_file: Path | None = None


class Validator(NamedTuple):
    """What a server called the set that it sent last (RFC 9110 section 8.8.3), and where it did."""

    url: str
    etag: str


class Fetched(NamedTuple):
    """What a fetch brought.

    Args:
        content: the set as it came; None: it is still the one that the validator named.
        validator: for the next fetch.
        fresh: for how many seconds the server lets it be used; None: it did not say.
    """

    content: bytes | None
    validator: Validator | None = None
    fresh: float | None = None
