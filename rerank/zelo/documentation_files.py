"""Rows from documentation as files: the rows, and beside them where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rerank.errors import BadInput

from .documentation import Generated


def manifest_path(output: Path) -> Path:
    """Where the account of the rows in `output` lies: "x.jsonl" -> "x.manifest.json"."""
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.manifest.json")


def write_rows(
    output: Path, generated: Generated, *, seed: int, command: Sequence[str] = ()
) -> None:
    """Rows to `output`, and beside it where they come from and what was left out; each file is
    written whole or not at all. Raises BadInput when it cannot be."""
    lines = (
        json.dumps(
            {
                "query": each.row.query,
                "positives": each.row.positives,
                "negatives": each.row.negatives,
                "lang": "en",
                "source": each.source,
            },
            ensure_ascii=False,
        )
        for each in generated.rows
    )
    manifest = {
        "rows": len(generated.rows),
        "seed": seed,
        "command": list(command),
        "packages": [asdict(each) for each in generated.packages],
        "removed": generated.removed,
    }
    _write(output, lines)
    _write(manifest_path(output), [json.dumps(manifest, ensure_ascii=False, indent=1)])


def _write(path: Path, lines: Iterable[str]) -> None:
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise BadInput(f"{path} cannot be written: {error.strerror or error}.") from error
