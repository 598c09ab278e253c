"""Where an issuer may be: every address of its name is checked, and only a checked one is connected to (F4)."""

from __future__ import annotations

import asyncio
import socket

import pytest

from keys_support import ISSUER, SET, Loopback, respond
from mcp_fastguard.keys import FetchError, KeySource
from mcp_fastguard.keys.addresses import in_turn, refusal
from mcp_fastguard.keys.fetch import fetch_keys

REFUSED = {
    "0.0.0.0": "this host",
    "0.1.2.3": "this host",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "shared",
    "100.100.100.200": "shared",
    "100.127.255.255": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "link-local",
    "169.254.170.2": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "reserved",
    "192.0.0.192": "reserved",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4-compatible",
    "::8.8.8.8": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:169.254.169.254": "IPv4-mapped",
    "::ffff:8.8.8.8": "IPv4-mapped",
    "::ffff:0:127.0.0.1": "IPv4-translated",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b::a9fe:a9fe": "NAT64",
    "64:ff9b::8.8.8.8": "NAT64",
    "64:ff9b:1::10.0.0.1": "NAT64",
    "64:ff9b:1:ffff::1": "NAT64",
    "64:ff9b:2::1": "reserved",
    "100::1": "discard",
    "100:0:0:1::1": "reserved",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:2::1": "reserved",
    "2001:10::1": "reserved",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:a9fe:a9fe::1": "6to4",
    "2002:808:808::1": "6to4",
    "2600:1f18::5efe:7f00:1": "ISATAP",
    "2600:1f18::200:5efe:a00:1": "ISATAP",
    "3ffe::1": "reserved",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "unique local",
    "fd00:ec2::254": "unique local",
    "fd20:ce::254": "unique local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "interface",
    "fe80::5efe:10.0.0.1": "link-local",
    "febf::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "auth.example.com": "cannot be read",
}

#: The nearest neighbours outside the refused networks, and a few of the Internet.
PASSING = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2600:1f18::5eff:7f00:1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_f4_address_that_is_not_of_the_internet_is_refused(address):
    assert REFUSED[address] in refusal(address)


@pytest.mark.parametrize("address", PASSING)
def test_f4_address_of_the_internet_passes(address):
    assert refusal(address) is None


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("10.1.2.3", ["10.0.0.0/8"]),
        ("10.1.2.3", ["10.1.2.3"]),
        ("127.0.0.1", ["192.168.0.0/16", "127.0.0.0/8"]),
        ("::1", ["::1/128"]),
        ("fd00::1", ["fc00::/7"]),
        ("64:ff9b::8.8.8.8", ["64:ff9b::/96"]),
        ("64:ff9b::10.0.0.1", ["64:ff9b::/96", "10.0.0.0/8"]),
        ("64:ff9b:1::8.8.8.8", ["64:ff9b:1::/48"]),
        ("::ffff:10.0.0.1", ["::ffff:0:0/96", "10.0.0.0/8"]),
        ("2002:808:808::1", ["2002::/16"]),
        ("fe80::1", ["fe80::/10"]),
        ("2600:1f18::5efe:808:808", ["2600:1f18::/32"]),
    ],
)
def test_f4_address_in_a_named_network_passes(address, networks):
    assert refusal(address) is not None
    assert refusal(address, tuple(networks)) is None


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("10.1.2.3", ["10.1.2.4"]),
        ("10.1.2.3", ["::/0"]),
        ("::1", ["0.0.0.0/0"]),
        # A form of IPv6 is not its IPv4 address, and naming the form does not name what it leads to.
        ("::ffff:10.0.0.1", ["10.0.0.0/8"]),
        ("::ffff:10.0.0.1", ["::ffff:0:0/96"]),
        ("::ffff:0:10.0.0.1", ["::/0"]),
        ("::10.0.0.1", ["::/0"]),
        ("64:ff9b::169.254.169.254", ["64:ff9b::/96"]),
        ("64:ff9b::7f00:1", ["64:ff9b::/96", "10.0.0.0/8"]),
        ("64:ff9b:1:7f00:1::", ["64:ff9b:1::/48"]),
        ("2002:7f00:1::1", ["2002::/16"]),
        ("2001:0:808:808:0:0:5601:5601", ["2001::/32"]),
        ("2001:0:7f00:1:0:0:f7f7:f7f7", ["2001::/32"]),
        ("2600:1f18::5efe:7f00:1", ["2600:1f18::/32"]),
        ("fe80::1%eth0", ["fe80::/10"]),
        ("10.1.2.3", ["nonsense"]),
        ("10.1.2.3", ["10.1.2.99/24"]),
    ],
)
def test_f4_address_outside_the_named_networks_is_refused(address, networks):
    assert refusal(address, tuple(networks)) is not None


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ([], []),
        (["8.8.8.8"], ["8.8.8.8"]),
        (["2000::1", "2000::2", "8.8.8.8"], ["2000::1", "8.8.8.8", "2000::2"]),
        (["8.8.8.8", "2000::1", "9.9.9.9"], ["8.8.8.8", "2000::1", "9.9.9.9"]),
        ([f"8.8.8.{number}" for number in range(9)], [f"8.8.8.{number}" for number in range(4)]),
    ],
)
def test_few_addresses_are_tried_and_both_families_first(found, tried):
    assert in_turn(found) == tried


# --- on the way ---------------------------------------------------------------------------------


class Resolver:
    """A name server that answers as it is told, each time with the next answer, and the last one for good."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port, family, type, proto, *_):
        self.asked.append(host.decode())
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [(kind, type, proto, "", (address, port)) for kind, address in zip(kinds, found, strict=True)]


@pytest.fixture
def resolver(monkeypatch):
    def install(*answers):
        lying = Resolver(*answers)
        monkeypatch.setattr(socket, "getaddrinfo", lying)
        return lying

    return install


def failure(source, deadline=10.0):
    with pytest.raises(FetchError) as failed:
        asyncio.run(fetch_keys(source, deadline=deadline))
    return str(failed.value)


def at(loopback, host="auth.example.com", scheme="https", **options):
    uri = f"{scheme}://{host}:{loopback.server.server_port}/jwks"
    return KeySource(ISSUER, uri, **{"allow_http_loopback": False, **options})


@pytest.fixture
def listener():
    """Counts connections, whatever they send."""
    with Loopback() as server:
        accepted = []
        take = server.server.get_request

        def counted():
            taken = take()
            accepted.append(taken[1])
            return taken

        server.server.get_request = counted
        server.server.handle_error = lambda *_: None
        server.accepted = accepted
        yield server


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "127.1", "0x7f.1", "2130706433", "0", "[::ffff:127.0.0.1]", "[::]"],
)
def test_f4_loopback_is_not_connected_to_however_it_is_spelled(listener, host):
    assert "is refused" in failure(at(listener, host))
    assert listener.accepted == []


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["2606:4700::1", "::ffff:127.0.0.1"]])
def test_f4_name_with_one_refused_address_is_not_connected_to_at_all(listener, resolver, answer):
    resolver(answer)

    assert "is refused" in failure(at(listener))
    assert listener.accepted == []


def test_f4_name_that_changes_its_address_is_resolved_once(listener, resolver):
    # Nothing listens on the first one; a second look at the name would lead to the listener.
    rebinding = resolver(["127.0.0.2"], ["127.0.0.1"])

    assert "ConnectError" in failure(at(listener, allow_networks=("127.0.0.2/32",)))
    assert rebinding.asked == ["auth.example.com"]
    assert listener.accepted == []


def test_f4_place_named_by_metadata_is_resolved_and_checked_too(loopback, resolver):
    loopback.routes["/.well-known/oauth-authorization-server"] = respond(
        b'{"issuer": "%b", "jwks_uri": "https://internal.example.com/jwks"}' % loopback.url.encode()
    )
    asked = resolver(["10.0.0.1"])

    told = failure(KeySource(loopback.url, jwks_uri=None, allow_http_loopback=True))

    assert "10.0.0.1 is refused: private" in told
    assert asked.asked == ["internal.example.com"]


def test_f4_http_on_loopback_goes_nowhere_else_though_networks_are_named(loopback, resolver):
    resolver(["10.0.0.1"])

    source = at(loopback, "localhost", "http", allow_http_loopback=True, allow_networks=("10.0.0.0/8",))

    assert "not on loopback" in failure(source)


def test_f4_leave_for_loopback_is_not_leave_for_a_name_that_leads_there(listener, resolver):
    resolver(["127.0.0.1"])

    assert "loopback" in failure(at(listener, allow_http_loopback=True))
    assert listener.accepted == []


def test_name_that_has_no_address_is_a_failure(loopback, resolver):
    resolver(socket.gaierror(socket.EAI_NONAME, "unknown"))

    assert "the name has no address" in failure(at(loopback))


def test_second_address_is_tried_where_the_first_refuses(loopback, resolver):
    resolver(["127.0.0.2", "127.0.0.1"])
    loopback.routes["/jwks"] = respond()

    source = at(loopback, "localhost", "http", allow_http_loopback=True)

    assert asyncio.run(fetch_keys(source)).content == SET


def test_name_is_kept_in_the_host_header(loopback, resolver):
    resolver(["127.0.0.1"])
    loopback.routes["/jwks"] = respond()

    asyncio.run(fetch_keys(at(loopback, "localhost", "http", allow_http_loopback=True)))

    ((_, headers),) = loopback.requests
    assert headers["Host"] == f"localhost:{loopback.server.server_port}"
