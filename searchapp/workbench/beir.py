"""A judged collection in BEIR's format: corpus.jsonl, queries.jsonl (each plain or .gz) and
qrels/test.tsv."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A corpus goes into the product in files of this size: progress moves, and no upload is too large.
PART_BYTES = 4 * 1024 * 1024


class BadFolder(ValueError):
    """The folder cannot be evaluated on; the message is a sentence."""


@dataclass(frozen=True)
class BeirFolder:
    """`queries`: id -> text, only judged ones. `qrels`: query id -> document id -> grade."""

    corpus: Path
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def limited(self, count: int | None) -> BeirFolder:
        """The first `count` queries; the corpus stays whole."""
        kept = dict(list(self.queries.items())[:count])
        return BeirFolder(self.corpus, kept, {query: self.qrels[query] for query in kept})


def read_folder(folder: Path) -> BeirFolder:
    """Raises BadFolder."""
    if not folder.is_dir():
        raise BadFolder(f"There is no folder {folder}.")
    corpus = _file(folder, "corpus.jsonl")
    qrels = _qrels(folder / "qrels" / "test.tsv")
    texts = {
        str(row["_id"]): str(row["text"])
        for row in json_rows(_file(folder, "queries.jsonl"), ("_id", "text"))
    }
    judged = {query for query, grades in qrels.items() if any(g > 0 for g in grades.values())}
    queries = {query: text for query, text in texts.items() if query in judged and text.strip()}
    if not queries:
        raise BadFolder(f"None of the queries in {folder} has a relevant document in its qrels.")
    return BeirFolder(corpus, queries, {query: qrels[query] for query in queries})


def write_parts(corpus: Path, folder: Path) -> list[Path]:
    """The corpus as plain .jsonl files of about PART_BYTES in `folder`. Raises BadFolder."""
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
        raise BadFolder(f"{corpus} holds no documents.")
    return parts


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadFolder(f"{folder} is no BEIR folder: it has neither {name} nor {name}.gz.")


def json_rows(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl[.gz] file, each with the fields `needed`. Raises BadFolder."""
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadFolder(f"Line {number} of {path} is not JSON: {error}.") from error
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise BadFolder(f"Line {number} of {path} has no {' and no '.join(missing)}.")
        yield row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line), blank lines left out."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadFolder(f"{path} cannot be read: {error}.") from error


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    if not path.is_file():
        raise BadFolder(f"There are no judgments: {path} is missing.")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise BadFolder(
                f"Line {number} of {path} is not query, document and grade between tabs."
            ) from error
    return qrels
