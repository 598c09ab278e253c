"""For developing without an identity provider: an authorization server and a demo. Refuses to run off loopback."""

from __future__ import annotations

import ipaddress

__all__ = ["require_loopback"]


def require_loopback(host: str) -> str:
    """Gives the host back, if it is this machine's loopback.

    Raises:
        ValueError: it is not. Keys and secrets of this package live in memory and are printed; they are for nobody else.
    """
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        message = f"the development server runs on loopback only, not on {host}"
        raise ValueError(message)
    return host
