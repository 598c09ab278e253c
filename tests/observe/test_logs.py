"""Lines of decisions, as handlers write them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mcp_fastguard import Guard, GuardError, ToolRequest
from mcp_fastguard.observe import JSONFormatter, log_decisions
from mcp_fastguard.observe.logs import FIELDS, MAX_VALUE
from support import ISSUER, Issuer, records

pytestmark = pytest.mark.anyio


class Lines:
    """What two handlers wrote: one of JSON, one of plain text."""

    def __init__(self) -> None:
        self.json, self.text = io.StringIO(), io.StringIO()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.json.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    found = Lines()
    logger = logging.getLogger("mcp_fastguard")
    handlers = [logging.StreamHandler(found.json), logging.StreamHandler(found.text)]
    handlers[0].setFormatter(JSONFormatter())
    before = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(before)


async def call(guard: Guard, tool: str, token: str | None, **arguments: Any) -> None:
    request = ToolRequest.direct(tool=tool, token=token, arguments=arguments)
    with suppress(GuardError):
        await guard.authorize(request)


async def test_allowed_call_is_a_line_with_caller_and_record(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions())
    await call(guard, "add", issuer.token())
    [line] = lines.read()
    assert line.pop("time").endswith("Z")
    assert isinstance(line.pop("record"), int)
    assert line == {
        "level": "INFO",
        "logger": "mcp_fastguard.decisions",
        "message": "allowed tools/call 'add'",
        "outcome": "allowed",
        "method": "tools/call",
        "tool": "add",
        "subject": "alice",
        "client_id": "agent",
        "issuer": ISSUER,
    }


async def test_refusal_is_a_warning_with_room_and_code(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions())
    await call(guard, "secret", issuer.token())
    [line] = lines.read()
    named = {name: line[name] for name in ("level", "outcome", "room", "code", "tool")}
    assert named == {
        "level": "WARNING",
        "outcome": "denied",
        "room": "policy",
        "code": "scope_insufficient",
        "tool": "secret",
    }


async def test_spent_quota_says_when_to_come_back(make_guard: Any, issuer: Issuer, lines: Lines) -> None:
    guard = make_guard(limits={"rules": [{"per": "principal", "quota": "1/minute"}]})
    guard.on_decision(log_decisions())
    for _ in range(2):
        await call(guard, "add", issuer.token())
    assert 0 < lines.read()[-1]["retry_after"] <= 61


async def test_fault_is_an_error(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions())
    guard.close()
    await call(guard, "add", issuer.token())
    [line] = lines.read()
    assert (line["level"], line["outcome"], line["code"]) == ("ERROR", "fault", "closed")


async def test_levels_are_chosen(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions(allowed=logging.DEBUG, denied=logging.INFO))
    await call(guard, "add", issuer.token())
    await call(guard, "secret", issuer.token())
    assert [line["level"] for line in lines.read()] == ["DEBUG", "INFO"]


async def test_callers_are_left_out_where_asked(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions(callers=False))
    await call(guard, "add", issuer.token())
    assert not {"subject", "client_id", "issuer"} & set(lines.read()[0])


async def test_fields_are_attributes_of_the_record(
    guard: Guard, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    guard.on_decision(log_decisions())
    with caplog.at_level(logging.INFO, "mcp_fastguard"):
        await call(guard, "add", issuer.token())
    assert {name for name in FIELDS if name in vars(caplog.records[0])} == set(FIELDS)


async def test_line_has_the_id_of_its_record(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions(guard=guard))
    await call(guard, "add", issuer.token())
    [decision] = records(guard, "decision")
    assert lines.read()[0]["record_id"] == decision["id"]


async def test_line_without_its_guard_has_the_number_alone(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions())
    await call(guard, "add", issuer.token())
    [line] = lines.read()
    assert "record" in line
    assert "record_id" not in line


async def test_name_of_a_tool_cannot_begin_a_line(guard: Guard, issuer: Issuer, lines: Lines) -> None:
    guard.on_decision(log_decisions())
    await call(guard, "x\n2026 INFO allowed\u2028'y\x1b[31m" + "z" * 1_000, issuer.token())
    assert len(lines.text.getvalue().splitlines()) == len(lines.json.getvalue().splitlines()) == 1
    assert lines.text.getvalue().isascii()
    assert "\x1b" not in lines.text.getvalue()
    assert len(lines.read()[0]["tool"]) == MAX_VALUE


@pytest.mark.parametrize("tool", ["add", "secret", "nowhere", "never", "ask"])
async def test_no_line_holds_a_secret(guard: Guard, issuer: Issuer, lines: Lines, tool: str) -> None:
    guard.on_decision(log_decisions())
    token = issuer.token()
    broken = token[:-20] + "A" * 20
    for text in [token, broken, f"{token}.x", "opaque-secret-token"]:
        await call(guard, tool, text, password="hunter2-argument")
    written = lines.text.getvalue() + lines.json.getvalue()
    assert len(lines.read()) == 4
    for secret in [*token.split("."), *broken.split("."), "opaque-secret-token", "hunter2-argument"]:
        assert secret not in written


def test_formatter_writes_errors_on_one_line() -> None:
    error = ValueError("wrong\nvalue")
    record = logging.LogRecord("test", logging.ERROR, "", 1, "failed %s", ("so",), (ValueError, error, None))
    text = JSONFormatter().format(record)
    assert len(text.splitlines()) == 1
    assert json.loads(text)["message"] == "failed so"
    assert "ValueError: wrong" in json.loads(text)["exception"]
