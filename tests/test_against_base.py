"""The comparison of a change with its base, on figures that stand for what CI measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benches" / "against_base.py"


def compare(folder: Path, bar: str, base: list[float], change: list[float]) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(SCRIPT)]
    for side, ratios in (("base", base), ("change", change)):
        arguments.append(f"--{side}")
        for turn, ratio in enumerate(ratios):
            file = folder / f"{side}-{turn}.json"
            file.write_text(json.dumps([{"name": "figure", "bar": bar, "ratio": ratio}]))
            arguments.append(str(file))
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("bar", "change", "word", "status"),
    [
        (">= 60", [50.0, 52.0, 51.0], "worse", 1),
        (">= 60", [80.0, 82.0, 81.0], "better", 0),
        (">= 60", [95.0, 96.0, 97.0], "same", 0),
        # A run as good as the base's shows that the runner was slow, not the change.
        (">= 60", [50.0, 51.0, 68.0], "same", 0),
        ("<= 4", [50.0, 52.0, 51.0], "better", 0),
        ("<= 4", [80.0, 82.0, 81.0], "worse", 1),
    ],
)
def test_change_is_worse_only_beyond_the_noise(
    tmp_path: Path, bar: str, change: list[float], word: str, status: int
) -> None:
    base = [65.0, 67.0, 66.0] if word != "same" or max(change) < 90 else [96.0, 95.5, 96.5]
    done = compare(tmp_path, bar, base, change)
    assert (done.returncode, done.stdout.splitlines()[-1].split("|")[-2].strip()) == (status, word)


def test_figure_that_is_new_or_gone_is_named(tmp_path: Path) -> None:
    for side in ("base", "change"):
        (tmp_path / side).write_text(json.dumps([{"name": f"of the {side}", "bar": "", "ratio": 1.0}]))
    arguments = [sys.executable, str(SCRIPT), "--base", str(tmp_path / "base"), "--change", str(tmp_path / "change")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "| of the change | | 1.00 | | new |" in done.stdout
    assert "| of the base | 1.00 | | | gone |" in done.stdout
