"""Which addresses an issuer may have (F4). A name is resolved once, and only what was checked is connected to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AddressRefusedError", "addresses_of", "in_turn", "refusal"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Most addresses of one name that are connected to, one after the other: each gets its part of the deadline.
MAX_ADDRESSES: Final = 4

# What the IANA registries of special-purpose addresses call not globally reachable, and what is global but not the
# Internet's. The first network that fits gives the reason.
_REFUSED_4: Final = (
    ("0.0.0.0/8", "this host"),  # RFC 1122 section 3.2.1.3; Linux connects to loopback
    ("10.0.0.0/8", "private"),  # RFC 1918
    ("100.64.0.0/10", "shared by carriers"),  # RFC 6598; metadata of one cloud are at 100.100.100.200
    ("127.0.0.0/8", "loopback"),  # RFC 1122 section 3.2.1.3
    ("168.63.129.16/32", "metadata of a cloud"),  # a public address that only virtual machines of Azure reach
    ("169.254.0.0/16", "link-local"),  # RFC 3927; metadata of most clouds are at 169.254.169.254
    ("172.16.0.0/12", "private"),  # RFC 1918
    ("192.0.0.0/24", "reserved"),  # RFC 6890; metadata of one cloud are at 192.0.0.192
    ("192.0.2.0/24", "documentation"),  # RFC 5737
    ("192.88.99.0/24", "6to4 relay"),  # RFC 7526
    ("192.168.0.0/16", "private"),  # RFC 1918
    ("198.18.0.0/15", "benchmarks"),  # RFC 2544
    ("198.51.100.0/24", "documentation"),  # RFC 5737
    ("203.0.113.0/24", "documentation"),  # RFC 5737
    ("224.0.0.0/4", "multicast"),  # RFC 5771
    ("240.0.0.0/4", "reserved"),  # RFC 1112 section 4; the last one is the broadcast
)
_REFUSED_6: Final = (
    ("::/128", "unspecified"),  # RFC 4291
    ("::1/128", "loopback"),  # RFC 4291
    ("::ffff:0:0/96", "IPv4-mapped"),  # RFC 4291 section 2.5.5.2
    ("::ffff:0:0:0/96", "IPv4-translated"),  # RFC 2765
    ("::/96", "IPv4-compatible"),  # RFC 4291 section 2.5.5.1
    ("64:ff9b::/96", "NAT64"),  # RFC 6052
    ("64:ff9b:1::/48", "NAT64"),  # RFC 8215
    ("100::/64", "discard"),  # RFC 6666
    ("2001::/32", "Teredo"),  # RFC 4380
    ("2001::/23", "reserved"),  # RFC 2928
    ("2001:db8::/32", "documentation"),  # RFC 3849
    ("2002::/16", "6to4"),  # RFC 3056
    ("3ffe::/16", "reserved"),  # RFC 3701
    ("3fff::/20", "documentation"),  # RFC 9637
    ("fc00::/7", "unique local"),  # RFC 4193; metadata of clouds are at fd00:ec2::254 and fd20:ce::254
    ("fe80::/10", "link-local"),  # RFC 4291
    ("fec0::/10", "site-local"),  # RFC 3879
    ("ff00::/8", "multicast"),  # RFC 4291
)
#: All else of IPv6 is not assigned to anybody (RFC 4291 section 2.4).
_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
#: RFC 5214 section 6.1: the interface identifier of ISATAP, with the universal bit clear and set.
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
#: The forms whose last 32 bits are an IPv4 address. Of `64:ff9b:1::/48` only the layout of a /96 is known by its bits; in any
#: other these are zero, which is refused.
_LOWEST_32: Final = frozenset({"IPv4-mapped", "IPv4-translated", "IPv4-compatible", "NAT64"})


class AddressRefusedError(Exception):
    """A name has an address that may not be connected to."""


async def addresses_of(host: str, port: int, *, networks: tuple[str, ...], is_loopback: bool) -> list[str]:
    """Every address of a host, resolved once and checked; all or none.

    One address that is refused refuses the name: who can put one private address beside public ones can put any.

    Args:
        host: a name, or an address as any resolver reads it.
        port: where it will be connected to.
        networks: in CIDR form, that are allowed beside the Internet.
        is_loopback: the host must be on loopback, and may be nowhere else.

    Raises:
        AddressRefusedError: an address is refused. The text names it and why.
        OSError: the name has no address.
    """
    addresses = await _resolved(host, port)
    for text in addresses:
        reason = _not_loopback(text) if is_loopback else refusal(text, networks)
        if reason is not None:
            raise AddressRefusedError(f"address {text} is refused: {reason}")
    return addresses


async def _resolved(host: str, port: int) -> list[str]:
    with contextlib.suppress(ValueError):
        # Needs no resolver, whose thread may hold locks of the system's library when a process forks.
        return [str(ipaddress.ip_address(host))]
    # As bytes: for texts the first look-up imports a codec, under locks that a child would inherit.
    found = await asyncio.get_running_loop().getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def in_turn(addresses: Iterable[str]) -> list[str]:
    """The addresses to try, few, the first two of different families where there are both: one family may lead nowhere."""
    rest = list(addresses)
    first, others = rest[:1], rest[1:]
    others.sort(key=lambda text: bool(first) and (":" in text) == (":" in first[0]))
    return (first + others)[:MAX_ADDRESSES]


def refusal(text: str, networks: tuple[str, ...] = ()) -> str | None:
    """Why an address is refused; None: it is not.

    Args:
        text: an address, without brackets.
        networks: that are allowed. For a form of IPv6 that leads to an IPv4 address, the form must be named, and what it
            leads to must not be refused either.
    """
    try:
        address = ipaddress.ip_address(text)
        allowed = _parsed(networks)
    except ValueError:
        return "it cannot be read"
    return _refusal(address, allowed)


def _refusal(address: Address, allowed: tuple[Network, ...]) -> str | None:
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "it holds on one interface only"
    reason = _reason(address)
    if reason is None:
        return None
    if not any(_is_in(address, network) for network in allowed):
        return reason
    within = (_refusal(inner, allowed) for inner in _embedded(address))
    return next((f"{reason}, and leads to an address that is {found}" for found in within if found is not None), None)


def _reason(address: Address) -> str | None:
    for network, reason in _tables()[address.version]:
        if address in network:
            return reason
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address not in _GLOBAL_6:
        return "reserved"
    return "ISATAP" if _is_isatap(address) else None


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses that a form of IPv6 leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if _is_isatap(address) or _reason(address) in _LOWEST_32:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    return []


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP


def _not_loopback(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "it cannot be read"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return None if (mapped or address).is_loopback else "it is not on loopback"


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


@functools.cache
def _tables() -> dict[int, tuple[tuple[Network, str], ...]]:
    tables = {4: _REFUSED_4, 6: _REFUSED_6}
    return {
        version: tuple((ipaddress.ip_network(text), reason) for text, reason in table)
        for version, table in tables.items()
    }


@functools.lru_cache(maxsize=64)
def _parsed(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in networks)
