"""The table of codes in the docs against the sources that give the codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mcp_fastguard import Denied, Guard, GuardFault, ToolRequest
from mcp_fastguard.transport.challenge import status_of
from support import Issuer

ROOT = Path(__file__).parents[1]
DENIAL = (ROOT / "rust/fastguard-core/src/denial.rs").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/codes.md").read_text(encoding="utf-8")

#: Faults that belong to a room; the source does not say so.
FAULT_ROOMS = {"audit_queue_full": "audit", "audit_failed": "audit", "clock_mixed": "limits"}


class Row(NamedTuple):
    code: str
    room: str
    status: int
    cause: str
    cure: str


def rows(heading: str) -> list[Row]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [Row(code.strip("`"), room, int(status), cause, cure) for code, room, status, cause, cure in cells]


def body_of(kind: str, function: str) -> str:
    """The match of one function of ``impl kind``."""
    implementation = re.search(rf"^impl {kind} \{{\n(.*?)^\}}\n", DENIAL, re.DOTALL | re.MULTILINE)
    assert implementation, kind
    found = re.search(
        rf"^    pub const fn {function}\(.*?\{{\n(.*?)^    \}}\n", implementation[1], re.DOTALL | re.MULTILINE
    )
    assert found, function
    return found[1]


def arms(text: str) -> list[tuple[list[str], str]]:
    """Each arm's variants and value."""
    found = re.findall(r"((?:Self::\w+(?: \{ \.\. \})?[\s|]*)+)=> (?:\{\s+)?(.+?)(?:,|\s+\})\n", text)
    assert found
    return [(re.findall(r"Self::(\w+)", patterns), value) for patterns, value in found]


def variants(kind: str) -> list[str]:
    declaration = re.search(rf"^pub enum {kind} \{{\n(.*?)^\}}\n", DENIAL, re.DOTALL | re.MULTILINE)
    assert declaration
    return re.findall(r"^    ([A-Z]\w+)", declaration[1], re.MULTILINE)


def codes(kind: str) -> dict[str, str]:
    return {variant: value.strip('"') for names, value in arms(body_of(kind, "code")) for variant in names}


def denials() -> dict[str, tuple[str, int]]:
    """Code of each denial -> room and status, read from the source."""
    rooms = {
        variant: value.removeprefix("Room::").lower()
        for names, value in arms(body_of("Denial", "room"))
        for variant in names
    }
    text = body_of("Denial", "status")
    by_room = {
        room.lower(): int(status)
        for names, status in re.findall(r"((?:Room::\w+[\s|]*)+)=> (\d+)", text)
        for room in re.findall(r"Room::(\w+)", names)
    }
    own = {variant: int(value) for names, value in arms(text.split("_ =>")[0]) for variant in names}
    return {
        code: (rooms[variant], own.get(variant, by_room[rooms[variant]])) for variant, code in codes("Denial").items()
    }


def raised_in_python(name: str) -> set[str]:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "python").rglob("*.py"))
    return set(re.findall(rf'\b\w*{name}\(\s*"(\w+)"', sources))


@pytest.mark.parametrize("kind", ["Denial", "Fault"])
def test_every_variant_has_a_code_of_its_own(kind: str) -> None:
    found = codes(kind)
    assert sorted(found) == sorted(variants(kind))
    assert len(set(found.values())) == len(found)
    assert all(re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", code) for code in found.values())


def test_denial_and_fault_share_no_code() -> None:
    assert not set(codes("Denial").values()) & (set(codes("Fault").values()) | raised_in_python("GuardFault"))


def test_every_denial_is_listed_with_room_and_status() -> None:
    assert {row.code: (row.room, row.status) for row in rows("Refusals")} == denials()


def test_every_fault_is_listed_with_status() -> None:
    faults = set(codes("Fault").values()) | raised_in_python("GuardFault")
    expected = {code: (FAULT_ROOMS.get(code, "-"), status_of(GuardFault(code))) for code in faults}
    assert {row.code: (row.room, row.status) for row in rows("Faults")} == expected


def test_python_refuses_with_codes_of_the_core_alone() -> None:
    assert raised_in_python("Denied") <= set(denials())


def test_rows_stand_in_the_order_of_the_source() -> None:
    assert [row.code for row in rows("Refusals")] == list(denials())


@pytest.mark.parametrize(
    ("tool", "make_token"),
    [
        ("secret", lambda issuer: issuer.token()),
        ("nowhere", lambda issuer: issuer.token()),
        ("never", lambda issuer: issuer.token()),
        ("ask", lambda issuer: issuer.token()),
        ("add", lambda issuer: issuer.token(exp=1)),
        ("add", lambda _: "x"),
        ("add", lambda _: None),
    ],
)
def test_status_is_the_one_that_is_raised(guard: Guard, issuer: Issuer, tool: str, make_token: Any) -> None:
    with pytest.raises(Denied) as denied:
        guard.check(ToolRequest.direct(tool=tool, token=make_token(issuer)))
    listed = {row.code: row.status for row in rows("Refusals")}
    assert listed[denied.value.code] == denied.value.status


@pytest.mark.parametrize("heading", ["Refusals", "Faults"])
def test_every_code_has_cause_and_cure(heading: str) -> None:
    listed = rows(heading)
    assert len({row.code for row in listed}) == len(listed)
    assert all(row.cause.endswith(".") and row.cure.endswith(".") for row in listed)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/rooms").glob("*.md")), ids=lambda page: page.stem)
def test_page_of_a_room_names_each_of_its_codes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    of_room = {row.code for row in [*rows("Refusals"), *rows("Faults")] if row.room == page.stem}
    assert {code for code in of_room if f"`{code}`" not in text} == set()
