"""What a place does for the shipper, and which files its connection needs."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_fastguard.shipping.item import Item
    from mcp_fastguard.shipping.settings import ShipSettings

__all__ = ["ShipError", "Sink", "tls_for"]


class ShipError(Exception):
    """A batch did not get there. It is sent again.

    Attributes:
        retry_after: seconds after which a retry can succeed, where the place has said so.
        is_too_much: whether fewer records at once may pass.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, is_too_much: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.is_too_much = is_too_much


class Sink(Protocol):
    """Sends batches to one place. Each read and write is bounded in time, so that one that hangs is a failure."""

    #: How many seconds pass before an idle shipper looks for new records.
    pause: float
    #: The largest batch, in records and in bytes of their lines.
    max_records: int
    max_bytes: int

    def send(self, items: Sequence[Item]) -> int:
        """Returns once the place has taken the batch; how many of its records it could not use, and never will.

        Raises:
            ShipError: it has not, or it is not known.
        """
        ...

    def close(self) -> None:
        """Lets go of connections."""
        ...


def tls_for(settings: ShipSettings) -> ssl.SSLContext:
    """Checks certificate and name always. Made anew for each connection: certificates are renewed in place.

    Raises:
        ShipError: a file cannot be used.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if settings.ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cafile=settings.ca_file)
        if settings.client_certificate is not None:
            # Without a password at hand OpenSSL would ask for one on the terminal.
            context.load_cert_chain(settings.client_certificate, settings.client_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ShipError(f"`ca_file` or `client_certificate` cannot be used: {error}") from error
    return context


def _no_password() -> str:
    raise ValueError("the key of `client_certificate` is encrypted")
