"""Renamed keys of the configuration: the old name holds for a while, and says so."""

from __future__ import annotations

import json

import pytest

from mcp_fastguard import Guard, GuardConfig, GuardConfigError, renamed

TOML = """
version = 1
[resource]
url = "https://mcp.example.com/mcp"
[[issuers]]
issuer = "https://auth.example.com"
key_set = "https://auth.example.com/jwks"
[tokens]
skew = "20s"
[tools.run_query]
needs = ["warehouse:query:read"]
[audit]
enabled = false
"""


@pytest.fixture(autouse=True)
def names(monkeypatch):
    table = {"tokens.skew": "tokens.leeway", "issuers.key_set": "issuers.jwks_uri", "tools.*.needs": "tools.*.scopes"}
    monkeypatch.setattr(renamed, "RENAMED", table)


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "fastguard.toml"
    found.write_text(TOML)
    return found


def test_old_name_is_read_and_warned_of(file):
    with pytest.warns(FutureWarning) as warned, Guard.from_file(file) as guard:
        text = guard.gate.config_json()
    assert ("https://auth.example.com/jwks" in text, "warehouse:query:read" in text) == (True, True)
    said = sorted(str(warning.message) for warning in warned)
    assert [line.split(": ")[1].split(";")[0] for line in said] == [
        "`issuers.key_set` is now `issuers.jwks_uri`",
        "`tokens.skew` is now `tokens.leeway`",
        "`tools.*.needs` is now `tools.*.scopes`",
    ]
    assert all(str(file) in line for line in said)


def test_old_name_holds_after_a_reload(file):
    with pytest.warns(FutureWarning):
        guard = Guard.from_file(file)
    before = json.loads(guard.gate.config_json())["tokens"]["leeway"]
    file.write_text(TOML.replace("20s", "25s"))
    with guard, pytest.warns(FutureWarning):
        guard.reload()
    assert json.loads(guard.gate.config_json())["tokens"]["leeway"] != before


def test_old_and_new_name_together_are_refused(file):
    file.write_text(TOML.replace('skew = "20s"', 'skew = "20s"\nleeway = "20s"'))
    with pytest.raises(GuardConfigError, match=r"`tokens\.skew` is the old name of `tokens\.leeway`"):
        Guard.from_file(file)


def test_new_names_are_read_without_a_word(file):
    new = TOML.replace("skew", "leeway").replace("key_set", "jwks_uri").replace("needs", "scopes")
    file.write_text(new)
    assert GuardConfig.from_file(file).text == new


def test_dict_is_left_as_it_was(file):
    config = {"version": 1, "resource": {"url": "https://x.example/mcp"}, "tokens": {"skew": 20}}
    with pytest.warns(FutureWarning):
        text = GuardConfig.from_dict(config).text
    assert '"leeway": 20' in text
    assert config["tokens"] == {"skew": 20}


def test_text_that_is_no_toml_is_left_to_the_core(file):
    file.write_text("version = ")
    with pytest.raises(GuardConfigError, match=r":1: not TOML"):
        Guard.from_file(file)
