"""Differences of systems to one of them, set by set, as dots with their intervals in an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

# (mean, low, high)
Span = tuple[float, float, float]

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: 600 }
.axis { stroke: #9ca3af } .floor { stroke: #b91c1c; stroke-dasharray: 4 4 }
.s0 { stroke: #2563eb; fill: #2563eb } .s1 { stroke: #b45309; fill: #b45309 }
.s2 { stroke: #0f766e; fill: #0f766e }
text.s0, text.s1, text.s2 { stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb } .axis { stroke: #6b7280 } .floor { stroke: #f87171 }
  .s0 { stroke: #60a5fa; fill: #60a5fa } .s1 { stroke: #fbbf24; fill: #fbbf24 }
  .s2 { stroke: #2dd4bf; fill: #2dd4bf }
}
"""
_NAMES, _PLOT, _NOTE, _LINE, _GAP, _TOP = 220, 420, 70, 18, 8, 62


def picture(title: str, rows: Mapping[str, Mapping[str, Span]], floor: float) -> str:
    """`rows`: set -> system -> difference with its interval. `floor`: a line that none should be
    below."""
    systems = list(dict.fromkeys(name for row in rows.values() for name in row))
    ends = [end for row in rows.values() for span in row.values() for end in span]
    low, high = min([floor, *ends]), max([0.0, *ends])
    scale = _PLOT / ((high - low) or 1.0)

    def x_of(value: float) -> float:
        return _NAMES + (value - low) * scale

    step = _LINE * len(systems) + _GAP
    height = _TOP + step * len(rows) + 30
    width = _NAMES + _PLOT + _NOTE
    bottom = height - 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
        *_legend(systems),
        *_upright("axis", x_of(0.0), bottom, "0"),
        *_upright("floor", x_of(floor), bottom, f"{floor:g}"),
    ]
    for place, (name, row) in enumerate(rows.items()):
        top = _TOP + step * place
        lines.append(f'<text x="8" y="{top + 13}">{escape(name)}</text>')
        for at, system in enumerate(systems):
            if system in row:
                middle = top + _LINE * at + 9
                lines += _dot(at, middle, *map(x_of, row[system]), note=f"{row[system][0]:+.3f}")
    return "\n".join([*lines, "</svg>", ""])


def _legend(systems: Sequence[str]) -> list[str]:
    return [
        f'<circle class="s{at % 3}" cx="{_NAMES + 130 * at}" cy="40" r="4"/>'
        f'<text x="{_NAMES + 130 * at + 10}" y="44">{escape(name)}</text>'
        for at, name in enumerate(systems)
    ]


def _upright(kind: str, x: float, bottom: int, label: str) -> list[str]:
    return [
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{bottom}"/>',
        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>',
    ]


def _dot(at: int, y: int, mean: float, low: float, high: float, *, note: str) -> list[str]:
    kind = f"s{at % 3}"
    return [
        f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke-width="2"/>',
        f'<circle class="{kind}" cx="{mean:.1f}" cy="{y}" r="4"/>',
        f'<text x="{_NAMES + _PLOT + 8}" y="{y + 4}">{note}</text>',
    ]
