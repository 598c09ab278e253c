"""A configuration that is read again and cannot be used (F30): the old one stays, whole, and it is said."""

from __future__ import annotations

import functools
import json
import threading

import pytest

from mcp_fastguard import Guard, ToolRequest
from mcp_fastguard.errors import Denied, GuardConfigError

GOOD = """
version = 1
resource.url = "https://mcp.example.com/mcp"
issuers = [{{ issuer = "https://auth.example.com", jwks = '{jwks}', algorithms = ["ES256"] }}]
limits.rules = [{{ per = "principal", quota = "1000000/minute" }}]
audit.path = "audit"
[tools]
{tools}
"""
ONE = 'add.open = true\nrun_query.scopes = ["warehouse:query:read"]'
OTHER = 'run_query.scopes = ["warehouse:query:read"]'

#: What an editor, a deployment or a full disk may leave behind.
BAD = {
    "empty": lambda good: b"",
    "cut off": lambda good: good[: len(good) // 2],
    "cut off before the rules": lambda good: good[: good.index(b"[tools]")] + b"[tools",
    "not TOML": lambda good: b"<html>Sign in</html>",
    "not UTF-8": lambda good: good + b"\xff\xfe",
    "zeros": lambda good: bytes(len(good)),
    "an unknown key": lambda good: good + b'\n[tools.extra]\nscope = ["a"]\n',
    "a rule that says nothing": lambda good: good + b"\n[tools.extra]\n",
    "no issuer": lambda good: good.replace(b"https://auth.example.com", b""),
    "no key that can verify": lambda good: good.replace(b'"crv": "P-256"', b'"crv": "P-999"'),
    "an issuer by http": lambda good: good.replace(b"https://auth", b"http://auth"),
    "another version": lambda good: good.replace(b"version = 1", b"version = 2"),
    "a quota of nothing": lambda good: good.replace(b"1000000/minute", b"many"),
    "too long": lambda good: good + b"#" * (4 * 1024 * 1024 + 1),
    "gone": lambda good: None,
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fastguard.toml"


@pytest.fixture
def good(issuer):
    def make(tools=ONE):
        return GOOD.format(jwks=json.dumps(issuer.jwks), tools=tools).encode()

    return make


def unlogged(good, tools=ONE):
    found = good(tools).replace(b'audit.path = "audit"', b"audit.enabled = false")
    return found.replace(b"1000000/minute", b"4000000000/minute")


def code(guard, token, tool="add"):
    try:
        guard.check(ToolRequest.direct(tool=tool, arguments={}, token=token))
    except Denied as denied:
        return denied.code
    return "allowed"


def decisions(guard, issuer):
    poor = issuer.token(scope="")
    asked = [(poor, "add"), (poor, "run_query"), (issuer.token(), "run_query"), (poor, "other"), ("a.b.c", "add")]
    return [code(guard, token, tool) for token, tool in asked]


@pytest.mark.parametrize("bad", BAD)
def test_f30_configuration_that_cannot_be_used_leaves_the_old_one_in_force(file, good, issuer, bad):
    file.write_bytes(good())
    with Guard.from_file(file) as guard:
        before, digest = decisions(guard, issuer), guard.gate.policy_digest
        content = BAD[bad](good())
        assert content != good()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)

        with pytest.raises(GuardConfigError) as said:
            guard.reload()

        assert str(file) in str(said.value)
        assert (
            decisions(guard, issuer)
            == before
            == ["allowed", "scope_insufficient", "allowed", "target_unknown", "token_malformed"]
        )
        assert guard.gate.policy_digest == digest
        # What was bad is no part of the next one.
        file.write_bytes(good(OTHER))
        guard.reload()
        assert decisions(guard, issuer)[0] == "target_unknown"


def test_f30_calls_while_the_configuration_changes_see_one_of_the_two_and_never_none(file, good, issuer):
    """One tool is in both, one in the first alone, one in neither; and every other file is bad."""
    # So many calls at once are more than a disk takes.
    good = functools.partial(unlogged, good)
    file.write_bytes(good())
    token = issuer.token()
    found = {"run_query": set(), "add": set(), "other": set()}
    over = threading.Event()

    def work(guard, tool):
        while not over.is_set():
            found[tool].add(code(guard, token, tool))

    with Guard.from_file(file) as guard:
        threads = [threading.Thread(target=work, args=(guard, tool)) for tool in found]
        for thread in threads:
            thread.start()
        refused = 0
        for number in range(60):
            bad = BAD["cut off"](good())
            file.write_bytes([good(OTHER), bad, good(ONE), b""][number % 4])
            try:
                guard.reload()
            except GuardConfigError:
                refused += 1
        over.set()
        for thread in threads:
            thread.join()

    assert refused == 30
    assert found == {"run_query": {"allowed"}, "add": {"allowed", "target_unknown"}, "other": {"target_unknown"}}
