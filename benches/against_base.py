"""A change against its base, from the figures that ``compare.py --json`` wrote for both in turns.

Each figure is a ratio within one run, so a slow runner slows both of its sides. One is called worse when every run of the change
is worse than every run of the base, and the medians are more than a tenth apart. Then the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

#: Below this the medians of one commit differ from run to run.
NOISE = 0.10


def figures(files):
    """Ratios by name, and whether a small one is good."""
    ratios, small_is_good = {}, {}
    for file in files:
        for row in json.loads(file.read_text()):
            ratios.setdefault(row["name"], []).append(row["ratio"])
            small_is_good[row["name"]] = row["bar"].startswith("<")
    return ratios, small_is_good


def verdict(base, change, small_is_good):
    """How much better the change is (negative: worse), and the word for it."""
    before, after = statistics.median(base), statistics.median(change)
    gain = before / after - 1 if small_is_good else after / before - 1
    sign = -1 if small_is_good else 1
    base, change = [sign * ratio for ratio in base], [sign * ratio for ratio in change]
    if gain < -NOISE and max(change) < min(base):
        return gain, "worse"
    if gain > NOISE and min(change) > max(base):
        return gain, "better"
    return gain, "same"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", nargs="+", type=Path, required=True)
    parser.add_argument("--change", nargs="+", type=Path, required=True)
    options = parser.parse_args()
    base, _ = figures(options.base)
    change, small_is_good = figures(options.change)
    is_worse = False
    print("| figure | base | change | gain | |\n|---|---:|---:|---:|---|")
    for name, ratios in change.items():
        if name not in base:
            print(f"| {name} | | {statistics.median(ratios):.2f} | | new |")
            continue
        gain, word = verdict(base[name], ratios, small_is_good[name])
        is_worse |= word == "worse"
        before, after = statistics.median(base[name]), statistics.median(ratios)
        print(f"| {name} | {before:.2f} | {after:.2f} | {gain:+.1%} | {word} |")
    for name in base.keys() - change.keys():
        print(f"| {name} | {statistics.median(base[name]):.2f} | | | gone |")
    return 1 if is_worse else 0


if __name__ == "__main__":
    sys.exit(main())
