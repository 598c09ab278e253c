"""Every code stands in the documentation once, with its status, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def in_source():
    text = (ROOT / "rust/fastguard-core/src/denial.rs").read_text()
    found = re.findall(r'Self::\w+(?: \{ \.\. \})? => "(\w+)"', text[text.index("pub const fn code(&self)") :])
    python = "".join(file.read_text() for file in (ROOT / "python/mcp_fastguard").rglob("*.py"))
    return found + re.findall(r'(?:GuardFault|Denied)\(\s*"(\w+)"', python)


def in_documentation():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", (ROOT / "docs/codes.md").read_text(), re.MULTILINE)
    return [(code, int(re.search(r"\b([45]\d\d)\b", rest).group(1))) for code, rest in rows]


def test_codes_of_the_core_are_unique():
    text = (ROOT / "rust/fastguard-core/src/denial.rs").read_text()
    found = re.findall(r'Self::\w+(?: \{ \.\. \})? => "(\w+)"', text[text.index("pub const fn code(&self)") :])
    assert len(found) == len(set(found)) > 40


def test_documentation_lists_each_code_once():
    documented = [code for code, _ in in_documentation()]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(in_source())


def test_statuses_are_those_that_are_sent(guard, issuer):
    from mcp_fastguard import Denied, ToolRequest

    statuses = dict(in_documentation())
    for tool, token in (
        ("secret", issuer.token()),
        ("nowhere", issuer.token()),
        ("add", None),
        ("add", "x"),
        ("add", issuer.token(exp=1)),
    ):
        try:
            guard.check(ToolRequest.direct(tool=tool, token=token))
        except Denied as denied:
            assert statuses[denied.code] == denied.status
