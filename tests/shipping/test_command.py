"""``fastguard audit ship``: the configuration, and the process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from mcp_fastguard import Guard, GuardConfigError, ToolRequest
from mcp_fastguard.config import GuardConfig
from mcp_fastguard.shipping import ShipSettings
from shipping_support import Collector

PLACES = {
    "otlp": {"sink": "otlp", "url": "https://collector.example.com/v1/logs"},
    "syslog": {"sink": "syslog", "url": "tls://siem.example.com:6514"},
    "s3": {"sink": "s3", "bucket": "audit", "retention": "365d"},
    "file": {"sink": "file", "path": "out"},
}


def with_places(config, *places):
    return {**config, "audit": {**config["audit"], "ship": list(places)}}


@pytest.fixture
def file(config, tmp_path):
    """Writes a configuration with these places."""
    from mcp_fastguard.cli.toml import toml_text

    def write(*places):
        lines = ["version = 1", "[resource]", f"url = {toml_text(config['resource']['url'])}"]
        lines += ["[[issuers]]", f"issuer = {toml_text(config['issuers'][0]['issuer'])}"]
        lines += [f"jwks = {toml_text(json.dumps(config['issuers'][0]['jwks']))}", 'algorithms = ["ES256"]']
        lines += ["[tools.run_query]", "open = true", "[audit]", 'path = "audit"']
        for place in places:
            lines.append("[[audit.ship]]")
            lines += [
                f"{key} = {toml_text(value) if isinstance(value, str) else str(value).lower()}"
                for key, value in place.items()
            ]
        path = tmp_path / "fastguard.toml"
        path.write_text("\n".join(lines))
        return path

    return write


def fastguard(*arguments):
    command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", "ship", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# --- the configuration ----------------------------------------------------------------------------


def test_places_of_every_sink_are_read_with_their_defaults(config, tmp_path):
    found = ShipSettings.of(GuardConfig.from_dict(with_places(config, *PLACES.values()), folder=tmp_path))

    assert found is not None
    base, places = found
    assert base == tmp_path / "audit"
    assert [(place.name, place.sink, place.format) for place in places] == [(name, name, "json") for name in PLACES]
    assert (places[2].object_lock, places[2].retention) == ("compliance", 365 * 86_400.0)
    assert places[3].path == tmp_path / "out"


def test_guard_starts_with_places_and_reads_no_file_of_theirs(config):
    """The token of a collector may be one that the server's user cannot read."""
    with Guard.from_dict(with_places(config, {**PLACES["otlp"], "bearer_file": "nowhere"})) as guard:
        assert guard.audit_folder is not None


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"sink": "otpl"}, "the nearest is `otlp`"),
        ({"sink": "otlp"}, r"audit.ship\[0\].url: needed"),
        ({**PLACES["otlp"], "url": "http://collector.example.com"}, "must be https; http only on loopback"),
        ({**PLACES["otlp"], "url": "http://127.0.0.1:4318/v1/logs"}, "with `allow_http_loopback = true`"),
        ({**PLACES["otlp"], "url": "https://user:secret@collector.example.com"}, "no user, query or fragment"),
        ({**PLACES["otlp"], "verify": False}, "verify"),
        ({**PLACES["otlp"], "bucket": "b"}, "belongs to sink `s3`, not to `otlp`"),
        ({**PLACES["otlp"], "client_key": "k"}, "only with `client_certificate`"),
        ({**PLACES["otlp"], "bearer_file": ""}, "must not be empty"),
        ({**PLACES["otlp"], "name": "Upper"}, "lower-case letters"),
        ({**PLACES["otlp"], "name": "../../etc"}, "lower-case letters"),
        ({**PLACES["otlp"], "format": "xml"}, "none of `json`, `ocsf`, `cef`"),
        ({**PLACES["syslog"], "url": "tcp://siem.example.com:514"}, "there is no syslog without TLS"),
        ({**PLACES["syslog"], "url": "tls://siem.example.com/path"}, "there is no syslog without TLS"),
        ({**PLACES["syslog"], "url": "tls://siem.example.com?verify=no"}, "there is no syslog without TLS"),
        ({"sink": "s3", "retention": "1d"}, r"audit.ship\[0\].bucket: needed"),
        ({"sink": "s3", "bucket": "b"}, r"audit.ship\[0\].retention: needed"),
        ({"sink": "s3", "bucket": "b", "retention": "1h"}, "at least 1d"),
        ({**PLACES["s3"], "object_lock": "off"}, 'contradicts `object_lock = "off"`'),
        ({**PLACES["s3"], "prefix": "/a"}, "do not begin with `/`"),
        ({**PLACES["s3"], "url": "http://minio.example.com"}, "must be https"),
        ({"sink": "file"}, r"audit.ship\[0\].path: needed"),
        ({**PLACES["file"], "url": "https://a.example"}, "not to `file`"),
    ],
)
def test_place_that_cannot_be_is_refused_with_its_key(config, place, message):
    with pytest.raises(GuardConfigError, match=message):
        Guard.from_dict(with_places(config, place))


def test_two_places_of_one_name_are_refused(config):
    with pytest.raises(GuardConfigError, match=r"ship\[1\].name: `file` names another one already"):
        Guard.from_dict(with_places(config, PLACES["file"], {**PLACES["file"], "path": "other"}))


# --- the command ----------------------------------------------------------------------------------


def test_command_ships_what_waits_and_ends(file, issuer):
    path = file(PLACES["file"])
    with Guard.from_file(path) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
    log = guard.audit_folder

    done = fastguard("--config", path, "--once")

    assert (done.returncode, done.stderr) == (0, "")
    [written] = (path.parent / "out" / log.name).glob("*.jsonl")
    [lines] = log.glob("*.jsonl")
    shipped = written.read_text().splitlines()
    assert [text for text in shipped if '"event_type":"checkpoint"' not in text] == lines.read_text().splitlines()
    assert '"event_type":"checkpoint"' in shipped[0]


def test_command_follows_a_running_server_until_it_is_stopped(file, issuer):
    with Collector().running() as collector:
        place = {"sink": "otlp", "url": f"http://127.0.0.1:{collector.port}/v1/logs", "allow_http_loopback": True}
        path = file(place, PLACES["file"])
        with Guard.from_file(path) as guard:
            guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))
            command = [sys.executable, "-m", "mcp_fastguard.cli", "audit", "ship", "--config", str(path)]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            wait_for(lambda: any('"decision"' in log["body"]["stringValue"] for log in collector.logs))
            guard.check(ToolRequest.direct(tool="run_query", token=issuer.token(sub="bob")))
            wait_for(lambda: any('"bob"' in log["body"]["stringValue"] for log in collector.logs))
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)

    assert process.returncode == 0, said
    assert said.strip() == "shipping to otlp, file"
    seqs = [
        entry["value"]["intValue"]
        for log in collector.logs
        if {"key": "fastguard.log", "value": {"stringValue": "registry"}} not in log["attributes"]
        for entry in log["attributes"]
        if entry["key"] == "fastguard.seq"
    ]
    assert seqs == [str(number) for number in range(len(seqs))]


def test_command_without_its_place_says_so_and_ships_to_the_others(file, issuer):
    path = file({"sink": "otlp", "url": "http://127.0.0.1:1/v1/logs", "allow_http_loopback": True}, PLACES["file"])
    with Guard.from_file(path) as guard:
        guard.check(ToolRequest.direct(tool="run_query", token=issuer.token()))

    done = fastguard("--config", path, "--once")

    assert done.returncode == 1
    assert "otlp: 127.0.0.1: ConnectError" in done.stderr
    assert list((path.parent / "out").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("places", "arguments", "said"),
    [
        ([], [], "no [[audit.ship]] says where to"),
        ([PLACES["file"]], ["--only", "siem"], "no [[audit.ship]] is named siem"),
        ([PLACES["file"]], [], "no log there"),
        ([{**PLACES["otlp"], "ca_file": "nowhere.pem"}], [], "audit.ship[0].ca_file"),
    ],
)
def test_command_that_cannot_ship_says_why(file, places, arguments, said):
    done = fastguard("--config", file(*places), *arguments)

    assert done.returncode == 1
    assert said in done.stderr


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
