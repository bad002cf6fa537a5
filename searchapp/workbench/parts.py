"""A judged corpus as files that can be uploaded."""

from __future__ import annotations

import json
from pathlib import Path

from rerank.errors import BadInput
from rerank.reading import json_rows

# A corpus goes into the product in files of this size: progress moves, and no upload is too large.
PART_BYTES = 4 * 1024 * 1024


def write_parts(corpus: Path, folder: Path) -> list[Path]:
    """The corpus as plain .jsonl files of about PART_BYTES in `folder`. Raises BadInput."""
    parts: list[Path] = []
    part, size = None, 0
    try:
        for row in json_rows(corpus, ("_id", "text")):
            if part is None or size >= PART_BYTES:
                if part is not None:
                    part.close()
                parts.append(folder / f"corpus-{len(parts) + 1:04}.jsonl")
                part, size = parts[-1].open("w", encoding="utf-8"), 0
            kept = {"_id": str(row["_id"]), "title": row.get("title") or "", "text": row["text"]}
            size += part.write(json.dumps(kept, ensure_ascii=False) + "\n")
    finally:
        if part is not None:
            part.close()
    if not parts:
        raise BadInput(f"{corpus} holds no documents.")
    return parts
