"""Ratios with their spread as an SVG, written by hand so that nothing needs to be installed."""

import math
from typing import List, Sequence, Tuple
from xml.sax.saxutils import escape

Bar = Tuple[float, float, float]
"""Least, median and greatest ratio."""

COLOURS = ["#0b5fa5", "#c8511b", "#2b8a4b", "#8a3fa0", "#a08000", "#555555", "#c02060", "#208f9f"]
LEFT, RIGHT, ROW, GAP, LINE = 190, 30, 16, 12, 18
WIDTH = 860


def ticks(low: float, high: float) -> List[float]:
    """Round numbers within a range, at most a factor of about two apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for decade in decades for step in (1, 1.5, 2, 3, 5, 7) if low <= (tick := step * 10.0**decade) <= high]


def legend(names: Sequence[str]) -> Tuple[List[Tuple[int, int]], int]:
    """Where each name stands, in lines that fit, and where what follows may begin."""
    places, at, line = [], 12, 42
    for name in names:
        width = 30 + 7 * len(name)
        if at > 12 and at + width > WIDTH:
            at, line = 12, line + LINE
        places.append((at, line))
        at += width
    return places, line + 22


def ratios(title: str, names: Sequence[str], rows: Sequence[Tuple[str, Sequence[Tuple[int, Bar]]]]) -> str:
    """A plot with a logarithmic axis. `rows` are headings, each with bars and which of `names` they belong to."""
    every = [value for _, bars in rows for _, bar in bars for value in bar]
    low, high = min(every + [0.9]) / 1.1, max(every + [1.1]) * 1.1
    scale = (WIDTH - LEFT - RIGHT) / math.log(high / low)

    def x(value: float) -> float:
        return LEFT + math.log(value / low) * scale

    places, top = legend(names)
    height = top + sum(len(bars) * ROW + GAP for _, bars in rows) + 40
    bottom = height - 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (name, (at, line)) in enumerate(zip(names, places)):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<circle cx="{at + 5}" cy="{line - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{at + 14}" y="{line}">{escape(name)}</text>')
    for tick in ticks(low, high):
        line = "#222" if tick == 1 else "#ddd"
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 8}" x2="{x(tick):.1f}" y2="{bottom}" stroke="{line}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    y = top
    for heading, bars in rows:
        middle = y + len(bars) * ROW / 2
        parts.append(f'<text x="{LEFT - 10}" y="{middle + 4:.0f}" text-anchor="end">{escape(heading)}</text>')
        for index, (least, median, greatest) in bars:
            colour, centre = COLOURS[index % len(COLOURS)], y + ROW / 2
            parts.append(
                f'<line x1="{x(least):.1f}" y1="{centre}" x2="{x(greatest):.1f}" y2="{centre}" '
                f'stroke="{colour}" stroke-width="3" stroke-opacity="0.45"/>'
            )
            parts.append(f'<circle cx="{x(median):.1f}" cy="{centre}" r="4.5" fill="{colour}"/>')
            y += ROW
        y += GAP
    note = "times as good as llama.cpp: median of the pairs, least to greatest; to the right of 1 Wushi is better"
    parts.append(f'<text x="{LEFT}" y="{bottom + 30}" fill="#666">{note}</text>')
    return "\n".join([*parts, "</svg>", ""])
