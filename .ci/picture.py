"""Draws docs/path.svg, the path of one call, from the table of the rooms. `make docs` runs it; a test holds the picture to it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

PICTURE: Final = Path(__file__).resolve().parents[1] / "docs" / "path.svg"


class Room(NamedTuple):
    """One room, what it asks, and what its refusal answers."""

    word: str
    asks: str
    refuses: str


#: In the order of the path; the first five are one crossing into Rust.
ROOMS: Final = (
    Room("request", "one message, read one way?", "no: 400, 404, 405, 413, 415"),
    Room("token", "signed, for us, alive?", "no: 401, 503"),
    Room("binding", "its holder?", "no: 401"),
    Room("limits", "quota left?", "no: 429"),
    Room("policy", "this tool, these arguments?", "no: 403"),
    Room("approval", "does a human agree?", "no: 403"),
    Room("execute", "runs the tool", "the tool's own error"),
    Room("mask", "what may the caller see?", ""),
)
HOT: Final = 5
WIDTH, HEIGHT, GAP, TOP = 196, 78, 24, 46
COLUMNS: Final = 4


def box(room: Room, index: int) -> str:
    x, y = 10 + index % COLUMNS * (WIDTH + GAP), TOP + index // COLUMNS * (HEIGHT + 58)
    kind = "hot" if index < HOT else "cool"
    return f"""<g transform="translate({x} {y})">
<rect class="{kind}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>
<text class="word" x="12" y="25">{index} {room.word}</text>
<text x="12" y="45">{room.asks}</text>
<text class="no" x="12" y="65">{room.refuses}</text>
</g>"""


def arrow(index: int) -> str:
    row, column = divmod(index, COLUMNS)
    y = TOP + row * (HEIGHT + 58) + HEIGHT / 2
    if column < COLUMNS - 1:
        x = 10 + column * (WIDTH + GAP) + WIDTH
        return f'<path class="way" d="M{x} {y}h{GAP - 4}"/>'
    x, down = 10 + column * (WIDTH + GAP) + WIDTH / 2, TOP + row * (HEIGHT + 58) + HEIGHT
    return f'<path class="way" d="M{x} {down}v22H{10 + WIDTH / 2}v32"/>'


def picture() -> str:
    width = 20 + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    rows = -(-len(ROOMS) // COLUMNS)
    bottom = TOP + rows * (HEIGHT + 58) - 30
    boxes = "\n".join(box(room, index) for index, room in enumerate(ROOMS))
    arrows = "\n".join(arrow(index) for index in range(len(ROOMS) - 1))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 56}" role="img" aria-labelledby="t">
<title id="t">The path of one call through the rooms</title>
<style>
svg {{ color: #1b1f24; }}
text {{ font: 12.5px system-ui, sans-serif; fill: currentColor; }}
.word {{ font-weight: 600; font-size: 15px; }}
.no {{ fill: #a3261c; }}
.hot {{ fill: #fde9d9; stroke: #c2570c; }}
.cool {{ fill: #e3eefb; stroke: #2f6db5; }}
.log {{ fill: #e8f3e6; stroke: #3f7d39; }}
.way {{ fill: none; stroke: currentColor; stroke-width: 1.5; marker-end: url(#tip); }}
.tip {{ fill: currentColor; }}
@media (prefers-color-scheme: dark) {{
svg {{ color: #e6e8eb; }}
.no {{ fill: #ff9a90; }}
.hot {{ fill: #4a2a12; stroke: #f08c3f; }}
.cool {{ fill: #16304d; stroke: #6fa8e8; }}
.log {{ fill: #1d3a1a; stroke: #7cc274; }}
}}
</style>
<defs>
<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path class="tip" d="M0 0 8 4 0 8z"/>
</marker>
</defs>
<text x="10" y="24">A call, with its token</text>
<text x="{width - 10}" y="24" text-anchor="end">0 to {HOT - 1}: one crossing into Rust, microseconds</text>
{boxes}
{arrows}
<rect class="log" x="10" y="{bottom}" width="{width - 20}" height="40" rx="8"/>
<text class="word" x="22" y="{bottom + 25}">8 audit</text>
<text x="98" y="{bottom + 25}">a record of every decision, and of every ending: no record, no call</text>
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
