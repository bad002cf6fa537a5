"""Groups of horizontal bars as an SVG file; smaller is better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

_COLOURS = ("#94a3b8", "#2563eb", "#0d9488", "#7c3aed", "#d97706", "#be123c")
_LEFT, _RIGHT, _BAR, _GAP = 190, 90, 18, 26
_WIDTH = 760


def write_bars(
    path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, float]]
) -> None:
    """`groups`: heading -> label -> value. Each group has a scale of its own."""
    labels = list(dict.fromkeys(label for bars in groups.values() for label in bars))
    colours = {label: _COLOURS[at % len(_COLOURS)] for at, label in enumerate(labels)}
    lines, y = [_text(16, 28, title, "font-weight:600;font-size:16px")], 56
    for heading, bars in groups.items():
        lines.append(_text(16, y, heading, "font-weight:600"))
        y += 8
        largest = max(bars.values(), default=1.0) or 1.0
        for label, value in bars.items():
            width = (_WIDTH - _LEFT - _RIGHT) * value / largest
            lines.append(_text(_LEFT - 8, y + 13, label, "text-anchor:end"))
            lines.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 4}" rx="2" '
                f'fill="{colours[label]}"/>'
            )
            lines.append(_text(_LEFT + width + 6, y + 12, f"{value:,.1f} {unit}", ""))
            y += _BAR
        y += _GAP
    body = "\n".join(lines)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="#0f172a" style="{style}">{escape(text)}</text>'
