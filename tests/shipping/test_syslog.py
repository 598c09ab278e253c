"""Syslog over TLS, to a receiver on loopback."""

from __future__ import annotations

import re

import pytest

from certificate_support import Authority
from mcp_fastguard.shipping.cursor import Cursor, cursor_file
from mcp_fastguard.shipping.item import Item
from mcp_fastguard.shipping.syslog import message_of
from shipping_support import LOG, SyslogServer, drain, line, server_tls, shipper_to, write_checkpoint, write_log

#: RFC 5424 section 6, as far as these messages go.
MESSAGE = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<host>[\x21-\x7e]{1,255}) "
    rb"(?P<app>[\x21-\x7e]{1,48}) (?P<process>[\x21-\x7e]{1,128}) (?P<id>[\x21-\x7e]{1,32}) "
    rb'\[(?P<element>[^\s=\]"]{1,32})(?P<data>(?: [^\s=\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (?P<text>.*)',
    re.DOTALL,
)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def base(tmp_path):
    found = tmp_path / "audit"
    found.mkdir()
    return found


@pytest.fixture
def server(authority):
    with SyslogServer(server_tls(authority.issue("localhost"))).running() as found:
        yield found


def syslog(base, server, authority, **settings):
    url = f"tls://localhost:{server.port}"
    return shipper_to(base, "syslog", **{"url": url, "ca_file": authority.file, **settings})


def test_records_are_messages_whose_text_is_the_line(base, server, authority):
    write_checkpoint(write_log(base, records=3), 3)

    drain(syslog(base, server, authority))

    found = [MESSAGE.fullmatch(message) for message in server.messages]
    assert all(found)
    assert [match["id"] for match in found] == [b"checkpoint", b"decision", b"decision", b"decision"]
    assert [match["text"].decode() for match in found[1:]] == [line(0), line(1), line(2)]
    match = found[1]
    # Facility 13, audit; severity 6, informational.
    assert (match["priority"], match["time"], match["app"]) == (b"110", b"2026-11-28T00:00:00.125Z", b"mcp-fastguard")
    assert match["data"] == f' log="{LOG}" event="decision" outcome="allowed" seq="0"'.encode()


def test_text_beyond_ascii_begins_with_the_mark_of_utf8(base, server, authority):
    log = write_log(base, records=0)
    text = line(0).replace("run_query", "abfrage_ü")
    (log / "000001.jsonl").write_text(text + "\n")

    drain(syslog(base, server, authority))

    assert MESSAGE.fullmatch(server.messages[0])["text"] == b"\xef\xbb\xbf" + text.encode()


def test_structured_data_is_escaped():
    """What stands in a log that somebody wrote cannot end the element and begin another."""
    item = Item('a"]\\b', 0, "{}", {"event_type": 'x"] [evil y="', "timestamp": "not <34>1 a time", "result": "denied"})
    message = message_of(item, "text", "host")

    match = MESSAGE.fullmatch(message)
    assert match is not None, message
    assert match["time"] == b"1970-01-01T00:00:00.000Z"
    assert rb"log=\"a\"" not in match["data"]
    assert rb'log="a\"\]\\b"' in match["data"]
    assert match["text"] == b"text"


@pytest.mark.parametrize("farewell", ["close_notify", "end"])
def test_batch_is_taken_once_the_receiver_has_read_to_its_end(base, server, authority, farewell):
    server.farewells = [farewell]
    write_log(base, records=3)

    drain(syslog(base, server, authority))

    assert len(server.messages) == 3
    assert server.connections == 1


def test_batch_whose_farewell_does_not_come_is_sent_again(base, server, authority):
    server.farewells = ["reset"]
    write_log(base, records=3)
    found = syslog(base, server, authority)

    assert found.step() > 0
    assert Cursor.read(cursor_file(base, "test")).places == {}
    drain(found)

    assert [MESSAGE.fullmatch(message)["text"].decode() for message in server.messages] == [line(0), line(1), line(2)]


def test_certificate_and_name_are_checked(base, server, authority, tmp_path):
    write_log(base, records=1)
    stranger = Authority(tmp_path, "stranger")

    assert syslog(base, server, authority, ca_file=stranger.file).step() > 0
    assert syslog(base, server, authority, url=f"tls://127.0.0.1:{server.port}").step() > 0
    assert server.messages == []


def test_receiver_gets_the_certificate_that_it_asks_for(base, authority):
    write_log(base, records=1)
    with SyslogServer(server_tls(authority.issue("localhost"), authority.file)).running() as server:
        assert syslog(base, server, authority).step() > 0
        drain(syslog(base, server, authority, client_certificate=authority.issue("shipper")))

        assert len(server.messages) == 1


def test_receiver_that_is_away_is_a_failure(base, authority):
    write_log(base, records=1)
    with SyslogServer(server_tls(authority.issue("localhost"))).running() as gone:
        found = syslog(base, gone, authority)

    assert found.step() > 0
    assert "localhost" in Cursor.read(cursor_file(base, "test")).last_error
