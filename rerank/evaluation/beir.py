"""A judged collection in BEIR's format: corpus.jsonl, queries.jsonl (each plain or .gz) and
qrels/test.tsv, or another split's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rerank.errors import BadInput
from rerank.reading import json_rows, numbered_lines


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


def read_folder(folder: Path, split: str = "test") -> BeirFolder:
    """The queries judged in qrels/<split>.tsv. Raises BadInput."""
    texts = read_queries(folder)
    corpus = corpus_file(folder)
    qrels = read_qrels(folder / "qrels" / f"{split}.tsv")
    judged = {query for query, grades in qrels.items() if any(g > 0 for g in grades.values())}
    queries = {query: text for query, text in texts.items() if query in judged and text.strip()}
    if not queries:
        raise BadInput(f"None of the queries in {folder} has a relevant document in its qrels.")
    return BeirFolder(corpus, queries, {query: qrels[query] for query in queries})


def read_queries(folder: Path) -> dict[str, str]:
    """id -> text of all queries, judged or not. Raises BadInput."""
    return {
        str(row["_id"]): str(row["text"])
        for row in json_rows(_file(folder, "queries.jsonl"), ("_id", "text"))
    }


def corpus_file(folder: Path) -> Path:
    """Raises BadInput."""
    return _file(folder, "corpus.jsonl")


def read_corpus(corpus: Path) -> dict[str, str]:
    """id -> title and text in one, in the order of the file. Raises BadInput."""
    texts = {
        str(row["_id"]): f"{row.get('title') or ''} {row['text'] or ''}".strip()
        for row in json_rows(corpus, ("_id", "text"))
    }
    if not texts:
        raise BadInput(f"{corpus} holds no documents.")
    return texts


def _file(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.")
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadInput(f"{folder} is no BEIR folder: it has neither {name} nor {name}.gz.")


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """query id -> document id -> grade, of a file of three columns. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"There are no judgments: {path} is missing.")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise BadInput(
                f"Line {number} of {path} is not query, document and grade between tabs."
            ) from error
    return qrels
