"""A bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: 600 }
.ours { fill: #2563eb } .theirs { fill: #9ca3af }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb } .ours { fill: #60a5fa } .theirs { fill: #6b7280 }
}
"""
_LABELS, _BARS, _STEP = 300, 360, 26


def bars(title: str, rows: Sequence[tuple[str, float, str, bool]]) -> str:
    """Rows are (name, length, what stands behind the bar, ours); lengths are not negative."""
    longest = max((length for _, length, _, _ in rows), default=0) or 1
    height = 44 + _STEP * len(rows)
    width = _LABELS + _BARS + 150
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
    ]
    for place, (name, length, note, ours) in enumerate(rows):
        top = 36 + _STEP * place
        lines += [
            f'<text x="{_LABELS - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{"ours" if ours else "theirs"}" x="{_LABELS}" y="{top + 2}" rx="2" '
            f'width="{max(_BARS * length / longest, 1):.1f}" height="{_STEP - 8}"/>',
            f'<text x="{_LABELS + _BARS * length / longest + 8:.1f}" y="{top + 15}">'
            f"{escape(note)}</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])
