"""The register of faults: each has a test that is named after it and runs by `make test`, and a row of the docs that is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "faults.md"

#: The faults of keys, tokens, processes and attacks; those of stores and of the log are tested where their rooms are.
FAULTS = [*range(1, 10), *range(14, 23), 29, 30, 33, 34]


class Named(NamedTuple):
    """A test that names faults: `test_f1_...`, `test_f1_f7_...`."""

    name: str
    file: str
    faults: frozenset[int]
    is_soak: bool


def is_soak(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator) == "pytest.mark.soak" for decorator in function.decorator_list)


def named_tests() -> list[Named]:
    found = []
    for file in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # Of modules alone: what is nested in another function is collected by nobody.
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
                match := re.match(r"test_((?:f\d+_)+)", node.name)
            ):
                faults = frozenset(int(number) for number in re.findall(r"f(\d+)_", match[1]))
                found.append(Named(node.name, file.relative_to(TESTS).as_posix(), faults, is_soak(node)))
    return found


TESTS_OF_FAULTS = named_tests()


def rows() -> dict[int, list[str]]:
    """The cells of the row of each fault."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| F\d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {int(row[0].removeprefix("F")): row for row in cells}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_a_test_that_is_named_after_it(fault: int) -> None:
    assert [test.name for test in TESTS_OF_FAULTS if fault in test.faults and not test.is_soak]


def test_page_has_a_row_for_each_fault_and_says_all_of_it() -> None:
    assert list(rows()) == FAULTS
    assert {fault for fault, row in rows().items() if len(row) != 6 or not all(row)} == set()


@pytest.mark.parametrize("fault", FAULTS)
def test_files_of_the_row_have_tests_of_that_name(fault: int) -> None:
    """All of them, and no others: who moves a test or adds one says so."""
    listed = re.findall(r"`([a-z_/]+\.py)`", rows()[fault][5])
    assert listed == sorted({test.file for test in TESTS_OF_FAULTS if fault in test.faults})
