"""OCSF and CEF of every record that a guard writes."""

from __future__ import annotations

import functools
import json
import re

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from audit_support import broad_run, configuration
from mcp_fastguard.shipping.cef import cef
from mcp_fastguard.shipping.follow import Checkpoint, Place, log_folders, read_on
from mcp_fastguard.shipping.item import Item
from mcp_fastguard.shipping.ocsf import OCSF_VERSION, ocsf
from shipping_support import LOG, line


@pytest.fixture(scope="module")
def items(issuer, tmp_path_factory):
    """Every record of a broad run, and a checkpoint."""
    config = configuration(issuer, tmp_path_factory.mktemp("written") / "audit")
    base = broad_run(config, issuer)
    lines = [found for log in log_folders(base) for found in read_on(log, Place(), 10_000, 10**8)[0]]
    checkpoint = Item.of_checkpoint(Checkpoint(LOG, 3, "origin\n3\nAAAA\n\n- name AAAA\n"), 1_795_824_000.0)
    return [*map(Item.of_line, lines), checkpoint]


def item(**members):
    return Item(LOG, 0, line(0, **members), json.loads(line(0, **members)))


# --- OCSF -----------------------------------------------------------------------------------------


@functools.cache
def validator(class_uid):
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))
    name = schema.lookup_class_name_from_uid(class_uid=class_uid)
    return Draft202012Validator(schema.get_class_schema(class_name=name, profiles=[]))


def test_every_event_fits_the_schema_of_its_class(items):
    wrong, classes = [], set()
    for found in items:
        event = json.loads(ocsf(found))
        classes.add(event["class_uid"])
        wrong += [(found.event_type, error.message) for error in validator(event["class_uid"]).iter_errors(event)]

    assert wrong == []
    assert classes == {0, 3002, 6003}


def test_event_has_the_line_as_it_is_in_the_log_and_its_place(items):
    for found in items:
        event = json.loads(ocsf(found))
        assert event["raw_data"] == found.line
        assert event["metadata"]["log_name"] == found.log
        assert event["metadata"].get("sequence") == found.seq


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"room": "token", "result": "denied"}, (3002, 1, 300201, 2, 3)),
        ({"room": "binding", "result": "denied"}, (3002, 1, 300201, 2, 3)),
        ({"room": "policy", "result": "denied"}, (6003, 99, 600399, 2, 3)),
        ({"result": "allowed"}, (6003, 99, 600399, 1, 1)),
        ({"result": "faulted"}, (6003, 99, 600399, 2, 4)),
        ({"result": "allowed", "method": "tools/list"}, (6003, 2, 600302, 1, 1)),
        ({"result": "allowed", "method": "resources/read"}, (6003, 2, 600302, 1, 1)),
    ],
)
def test_event_has_the_class_activity_status_and_severity_of_its_record(members, expected):
    event = json.loads(ocsf(item(**members)))

    names = ("class_uid", "activity_id", "type_uid", "status_id", "severity_id")
    assert tuple(event[name] for name in names) == expected


def test_event_of_an_ending_names_its_decision(items):
    ending = next(found for found in items if found.event_type == "ending")

    event = json.loads(ocsf(ending))

    assert event["metadata"]["correlation_uid"] == ending.record["decision"]
    assert event["duration"] == round(ending.record["duration_ms"])


# --- CEF ------------------------------------------------------------------------------------------

#: The header: seven bars, of which none is escaped.
HEAD = re.compile(r"CEF:0((?:\|(?:[^|\\]|\\[|\\])*){6})\|(.*)")
#: A pair of the extension: the value ends where another key begins.
PAIR = re.compile(r"(\w+)=((?:[^=\\]|\\[=\\n])*)(?= \w+=|$)")


def parsed(text):
    match = HEAD.fullmatch(text)
    assert match is not None, text
    pairs, rest = {}, match[2]
    while rest:
        pair = PAIR.match(rest)
        assert pair is not None, rest
        pairs[pair[1]] = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], pair[2])
        rest = rest[pair.end() :].removeprefix(" ")
    return match[1].split("|")[1:], pairs


def test_every_record_is_one_line_of_cef_with_its_place(items):
    for found in items:
        text = cef(found)
        assert len(text.splitlines()) == 1
        head, pairs = parsed(text)
        assert head[:2] == ["mcp-fastguard", "mcp-fastguard"]
        assert pairs["cs1"] == found.log
        assert pairs.get("cn1") == (None if found.seq is None else str(found.seq))
        assert int(pairs["rt"]) == found.milliseconds


@pytest.mark.parametrize("evil", ["a|b=c\\d", "x cs1=forged", "line\r\nCEF:0|a|b|c|d|e|9|", "\u2028end", "\\"])
def test_value_of_a_caller_is_escaped(evil):
    found = item(tool_name=evil, code="scope_insufficient", result="denied")

    text = cef(found)

    assert len(text.splitlines()) == 1
    _, pairs = parsed(text)
    assert pairs["cs1"] == LOG
    assert pairs["cs2"] == re.sub("[\u2028]", " ", evil.replace("\r\n", "\n"))


def test_addresses_have_the_key_of_their_version():
    assert parsed(cef(item(peer="192.0.2.7")))[1]["src"] == "192.0.2.7"
    assert parsed(cef(item(peer="2001:db8::7")))[1]["c6a2"] == "2001:db8::7"
    assert "src" not in parsed(cef(item(peer="nowhere")))[1]


def test_pseudonym_of_an_address_is_no_address():
    hidden = item(peer="pseudonym:00112233445566778899aabbccddeeff")

    assert parsed(cef(hidden))[1]["shost"] == hidden.record["peer"]
    assert json.loads(ocsf(hidden))["src_endpoint"] == {"name": hidden.record["peer"]}


# --- what is no record ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"not json", b"[]", b"\xff\xfe", b'{"seq":0,"timestamp":7,"event_type":null}'])
@pytest.mark.parametrize("form", [ocsf, cef])
def test_line_that_says_nothing_of_itself_is_shipped_all_the_same(text, form):
    from mcp_fastguard.shipping.follow import Line

    found = Item.of_line(Line(LOG, 0, text))

    assert LOG in form(found)
    if form is ocsf:
        assert validator(0).is_valid(json.loads(form(found)))
