"""How an issuer's hosts are reached: which URLs, by which addresses, with which certificates."""

from __future__ import annotations

import functools
import ipaddress
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx2

from mcp_fastguard.keys.addresses import AddressRefusedError, addresses_of, in_turn
from mcp_fastguard.keys.source import FetchError

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_fastguard.keys.source import KeySource

__all__ = ["checked_url", "client_for", "failed", "is_loopback", "quoted"]

#: So much of a text that a server chose goes into a reason.
MAX_QUOTED: Final = 120


def client_for(source: KeySource, deadline: float) -> httpx2.AsyncClient:
    """A client for one fetch, so that no cookie outlives it.

    Raises:
        FetchError: a file that it needs cannot be used.
    """
    return httpx2.AsyncClient(
        transport=CheckedTransport(source), trust_env=False, follow_redirects=False, timeout=deadline
    )


class CheckedTransport(httpx2.AsyncHTTPTransport):
    """Resolves the host itself, checks every address, and connects to one of those: nothing is resolved a second time (F4).

    The name stays in the `Host` header, which is made before this, and in TLS, which checks the certificate against it.
    """

    def __init__(self, source: KeySource) -> None:
        # No connection is used twice: servers may close one unannounced while the next request is on its way.
        limits = httpx2.Limits(max_keepalive_connections=0)
        super().__init__(verify=_tls_for(source), trust_env=False, limits=limits)
        self._source = source

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Like the base class, which gets an address in place of the name."""
        url = request.url
        host = url.raw_host.decode("ascii")
        chosen = in_turn(await self._addresses(url, host))
        timeout = request.extensions["timeout"]
        # One address that swallows packets must not use up the time of the others, nor that of the answer.
        timeout = {**timeout, "connect": timeout["connect"] / (len(chosen) + 1)}
        request.extensions = {**request.extensions, "timeout": timeout, "sni_hostname": host}
        failure: httpx2.HTTPError | None = None
        for address in chosen:
            request.url = url.copy_with(host=address)
            try:
                return await super().handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
            finally:
                request.url = url
        raise failure or httpx2.ConnectError("the name has no address")

    async def _addresses(self, url: httpx2.URL, host: str) -> list[str]:
        is_local = self._source.allow_http_loopback and is_loopback(url.host)
        try:
            return await addresses_of(host, url.port or 443, networks=self._source.allow_networks, is_loopback=is_local)
        except AddressRefusedError as error:
            raise failed(url, str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(f"the name has no address: {error}") from error


def checked_url(uri: str, *, allow_http_loopback: bool) -> httpx2.URL:
    """The URL, parsed once by the client that will send it: `https`, or by leave `http` on loopback.

    Raises:
        FetchError: it may not be asked.
    """
    try:
        url = httpx2.URL(uri)
        has_user = "@" in urlsplit(uri).netloc
    except (httpx2.InvalidURL, ValueError) as error:
        # Not shown either: a secret may stand in what cannot be read.
        raise FetchError("a URL that cannot be read is refused") from error
    # What is before the `@` may be a secret, so the URL is not shown.
    if has_user or url.userinfo:
        raise FetchError("a URL with a user in it is refused")
    if url.scheme == "https" and url.host:
        return url
    if url.scheme == "http" and allow_http_loopback and is_loopback(url.host):
        return url
    raise failed(url, "not https")


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or an address on loopback, also one of IPv4 mapped into IPv6."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def failed(url: httpx2.URL, reason: str, retry_after: float | None = None) -> FetchError:
    """The failure of one URL, told without its query: some issuers take an API key there."""
    return FetchError(f"{quoted(str(url.copy_with(query=None, fragment=None)))}: {reason}", retry_after)


def quoted(text: str) -> str:
    """A text that a server chose, fit for a log: one line of ASCII, not long."""
    return f"`{ascii(text)[1:-1][:MAX_QUOTED]}`"


def _tls_for(source: KeySource) -> ssl.SSLContext:
    files = (source.ca_file, source.client_certificate, source.client_key)
    if files == (None, None, None):
        return _system_tls()
    try:
        # Certificates are renewed in place, so the files' times and lengths are part of what is remembered.
        looks = tuple(file and file.stat() for file in files)
        marks = tuple(look and (look.st_mtime_ns, look.st_size, look.st_ino) for look in looks)
        return _own_tls(*files, marks)
    except (OSError, ValueError) as error:
        # The reasons of OpenSSL name no content; those of the system name the file.
        raise FetchError(f"`ca_file` or `client_certificate` cannot be used: {quoted(str(error))}") from error


@functools.lru_cache(maxsize=16)
def _own_tls(
    ca_file: Path | None, certificate: Path | None, key: Path | None, _marks: tuple[object, ...]
) -> ssl.SSLContext:
    if ca_file is None:
        context = httpx2.create_ssl_context(trust_env=False)
    else:
        # This protocol checks the certificate and the name by default, and knows no authority yet.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=ca_file)
    if certificate is not None:
        # Without a password at hand OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key of `client_certificate` is encrypted")


@functools.cache
def _system_tls() -> ssl.SSLContext:
    # Reading the system's certificates takes 25 ms, so it is done once; a change of them is seen by a new process.
    return httpx2.create_ssl_context(trust_env=False)
