"""Rows of a measurement by part: on the terminal as they come, in files after each part."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class Report:
    """`name`: of the files, NAME.json and NAME.md in `out`. `machine`: what it was measured on."""

    out: Path
    name: str
    title: str
    about: str
    machine: Row = field(default_factory=dict)
    parts: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, part: str, row: Row) -> None:
        self.parts.setdefault(part, []).append(row)
        said = "  ".join(f"{key}={_shown(value)}" for key, value in row.items())
        sys.stdout.write(f"[{part}] {said}\n")
        sys.stdout.flush()

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.name}.json"
        path.write_text(
            json.dumps({"machine": self.machine, **self.parts}, indent=2) + "\n", encoding="utf-8"
        )
        (self.out / f"{self.name}.md").write_text(self._markdown(), encoding="utf-8")

    def _markdown(self) -> str:
        facts = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        lines = [f"# {self.title}", "", self.about, "", f"Measured on: {facts}."]
        if (self.out / f"{self.name}.svg").is_file():
            lines += ["", f"![{self.title}]({self.name}.svg)"]
        for part, rows in self.parts.items():
            keys = list(dict.fromkeys(key for row in rows for key in row))
            heads = [key.replace("_", " ") for key in keys]
            lines += ["", f"## {part}", "", f"| {' | '.join(heads)} |", "|---" * len(keys) + "|"]
            lines += [f"| {' | '.join(_shown(row.get(key, '')) for key in keys)} |" for row in rows]
        return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
