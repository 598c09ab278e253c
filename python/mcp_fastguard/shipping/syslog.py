"""Sends records by syslog: messages of RFC 5424, counted in octets, over TLS (RFC 5425)."""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from mcp_fastguard.shipping.formats import FORMATS
from mcp_fastguard.shipping.sink import ShipError, tls_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp_fastguard.shipping.item import Item
    from mcp_fastguard.shipping.settings import ShipSettings

__all__ = ["SyslogSink", "message_of"]

T = TypeVar("T")

#: Seconds for connecting, and for each piece of what is sent and read.
TIMEOUT: Final = 10.0

#: Seconds for all of a batch, whatever the receiver drips.
MOST_SECONDS: Final = 30.0

#: The port of syslog over TLS.
PORT: Final = 6514

#: Facility 13 is that of audits; severities of RFC 5424 section 6.2.1.
_FACILITY: Final = 13
_SEVERITY: Final = {"info": 6, "warning": 4, "error": 3}

#: The number for examples (RFC 5612): this project has none of its own.
_ELEMENT: Final = "fastguard@32473"

_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")
_ESCAPED: Final = re.compile(r'(["\\\]])')


class SyslogSink:
    """A receiver of syslog over TLS. Each batch has a connection of its own.

    Syslog has no answer. What there is of one is the receiver's farewell: after its close_notify, or the end of its stream, it
    has read all that was sent. A batch whose farewell does not come is sent again. The mere end of its stream counts where the
    handshake is known to have ended on its side.
    """

    pause = 1.0
    max_records = 1_000
    max_bytes = 1024 * 1024

    def __init__(self, settings: ShipSettings) -> None:
        place = urlsplit(settings.url or "")
        assert place.hostname is not None  # noqa: S101 - the core has looked
        self._host = place.hostname
        self._port = place.port or PORT
        self._settings = settings
        self._format = FORMATS[settings.format]
        self._name = _word(socket.gethostname(), 255)

    def send(self, items: Sequence[Item]) -> int:
        """Connects, sends all, and waits until the other side has read it."""
        octets = b"".join(_counted(message_of(item, self._format(item), self._name)) for item in items)
        context = tls_for(self._settings)
        try:
            with socket.create_connection((self._host, self._port), TIMEOUT) as plain:
                stream = _Stream(plain, context, self._host)
                stream.send(octets)
                stream.farewell()
        except OSError as error:
            raise ShipError(f"{self._host}: {type(error).__name__} {ascii(str(error))[:120]}") from error
        return 0

    def close(self) -> None:
        """There is no connection between batches."""


def message_of(item: Item, text: str, host: str) -> bytes:
    """A message of RFC 5424 section 6, without its count."""
    priority = _FACILITY * 8 + _SEVERITY[item.weight]
    process = item.log.split("-")[1] if item.log.count("-") > 1 else "-"
    element = [("log", item.log), ("event", item.event_type), ("outcome", item.outcome)]
    if item.seq is not None:
        element.append(("seq", str(item.seq)))
    data = " ".join([_ELEMENT, *(f'{name}="{_parameter(value)}"' for name, value in element)])
    head = f"<{priority}>1 {item.timestamp} {host} mcp-fastguard {_word(process, 128)} {_word(item.event_type, 32)} [{data}] "
    # Section 6.4: what is in UTF-8 begins with the mark of it. ASCII is left without, for receivers that expect JSON.
    mark = b"" if text.isascii() else b"\xef\xbb\xbf"
    return head.encode() + mark + text.encode()


def _counted(message: bytes) -> bytes:
    """RFC 5425 section 4.3: the length in octets, a space, the message."""
    return str(len(message)).encode() + b" " + message


def _word(text: str, length: int) -> str:
    """A field of the header: printable ASCII without spaces."""
    return _PRINTABLE.sub("_", text)[:length] or "-"


def _parameter(text: str) -> str:
    """A value of structured data: quotes, backslashes and closing brackets are escaped (section 6.3.3)."""
    return _ESCAPED.sub(r"\\\1", text)


class _Stream:
    """TLS over a socket, taken apart: an ``SSLSocket`` takes the alert of a receiver that refuses for its farewell."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._until = time.monotonic() + MOST_SECONDS
        self._waiting(self._tls.do_handshake)
        self._flush()

    def send(self, octets: bytes) -> None:
        """Sends all of them."""
        self._tls.write(octets)
        self._flush()

    def farewell(self) -> None:
        """Says that nothing more comes, and waits for the other side to say the same (RFC 5425 section 4.4).

        Raises:
            OSError: it did not, or broke off: whether it has read everything is not known.
        """
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()
        try:
            # What a receiver says is not asked for, and passed over.
            while self._waiting(lambda: self._tls.read(65_536)):
                pass
        except ssl.SSLZeroReturnError:
            return
        except ssl.SSLEOFError:
            # It ended its stream without a close_notify, which some do. It had read ours, which came last; one that had not would
            # have broken off. With TLS 1.3 it may never have let us in: its ticket is the first word after it has.
            session = self._tls.session
            if self._tls.version() == "TLSv1.3" and (session is None or not session.has_ticket):
                raise

    def _waiting(self, step: Callable[[], T]) -> T:
        """Does a step once the other side has said enough for it."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                if time.monotonic() > self._until:
                    raise TimeoutError("the receiver takes too long") from None
                found = self._plain.recv(65_536)
                if found:
                    self._incoming.write(found)
                else:
                    self._incoming.write_eof()

    def _flush(self) -> None:
        self._plain.sendall(self._outgoing.read())
