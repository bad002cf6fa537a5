"""Small panels of lines over a logarithmic axis as an SVG file; higher is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_COLOURS = ("#2563eb", "#d97706", "#be123c", "#0d9488", "#7c3aed", "#64748b")
_WIDTH, _PANEL_WIDTH, _PANEL_HEIGHT = 760, 370, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 30, 40
_HEAD = 64


@dataclass(frozen=True)
class Panel:
    """`lines`: label -> (x, y) points, x above 0, y within 0 and 1."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def write_lines(
    path: Path, title: str, unit: str, ticks: Sequence[int], panels: Sequence[Panel]
) -> None:
    """Two panels a row on the same axes; `unit` names the horizontal one, marked at `ticks`."""
    points = [point for panel in panels for line in panel.lines.values() for point in line]
    every = [*(x for x, _ in points), *ticks]
    low, high = min(every), max(every)
    floor = math.floor(min(y for _, y in points) * 10) / 10
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    colours = {label: _COLOURS[at % len(_COLOURS)] for at, label in enumerate(labels)}
    lines = [_text(16, 26, title, "font-weight:600;font-size:15px")]
    for at, label in enumerate(labels):
        x = 16 + 130 * at
        lines.append(f'<circle cx="{x + 5}" cy="44" r="4" fill="{colours[label]}"/>')
        lines.append(_text(x + 15, 48, label))
    for at, panel in enumerate(panels):
        left = 5 + (at % 2) * (_PANEL_WIDTH + 5)
        top = _HEAD + (at // 2) * _PANEL_HEIGHT
        lines.append(f'<g transform="translate({left},{top})">')
        lines += _panel(panel, colours, (low, high), floor, ticks, unit)
        lines.append("</g>")
    height = _HEAD + _PANEL_HEIGHT * math.ceil(len(panels) / 2)
    body = "\n".join(lines)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _panel(
    panel: Panel,
    colours: Mapping[str, str],
    span: tuple[float, float],
    floor: float,
    ticks: Sequence[int],
    unit: str,
) -> list[str]:
    width, height = _PANEL_WIDTH - _LEFT - _RIGHT, _PANEL_HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + width * math.log(x / span[0]) / math.log(span[1] / span[0])

    def down(y: float) -> float:
        return _TOP + height * (1.0 - (y - floor) / (1.0 - floor))

    drawn = [_text(_LEFT, 18, panel.title, "font-weight:600")]
    for step in range(round(floor * 10), 11, 2 if floor < 0.5 else 1):
        y = down(step / 10)
        drawn.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>'
        )
        drawn.append(_text(_LEFT - 6, y + 4, f"{step / 10:.1f}", "text-anchor:end"))
    for tick in ticks:
        drawn.append(_text(across(tick), _TOP + height + 16, f"{tick:,}", "text-anchor:middle"))
    drawn.append(_text(_LEFT + width / 2, _TOP + height + 31, unit, "text-anchor:middle"))
    for label, points in panel.lines.items():
        colour = colours[label]
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in points
        ]
    return drawn


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#0f172a" style="{style}">{escape(text)}</text>'
