"""Rows of queries with their passages -> candidates with hard negatives, and what is known of them.

What people wrote down is kept as judgments: a row's positives are relevant, its own negatives are
not. Of the negatives that were mined nobody has said anything; a judge decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rerank.errors import BadStage
from rerank.training.examples import TrainingList
from rerank.types import Embedder, FloatArray

from .mining import Corpus, Embed, Mining, Row, corpus_of, mine, name_of, read_rows
from .progress import Bar
from .records import (
    CANDIDATES,
    Candidates,
    Document,
    Header,
    Outcome,
    input_digest,
    is_current,
    read_header,
    untouched,
    write_candidates,
)

# Texts embedded between two steps of the progress.
_AT_ONCE = 64


def qrels_beside(candidates: Path) -> Path:
    """Where the judgments of mined candidates lie."""
    return candidates.with_suffix(".qrels.tsv")


def mine_candidates(
    files: Sequence[Path],
    output: Path,
    mining: Mining,
    *,
    embedder: str = "",
    instruction: str = "",
    load_embedder: Callable[[str], Embedder],
) -> Outcome:
    """Candidates of each query whose answer the first stage finds, and `qrels_beside` the output.

    Each file is a corpus of its own; its name is part of every id, so names must differ. Rows of
    one query, white space and case aside, are one row, or the answer of one would be a negative of
    another. `embedder` is a name for `load_embedder`, called only where there is work. Raises
    BadStage, BadInput and what loading raises.
    """
    qrels = qrels_beside(output)
    header = Header(
        CANDIDATES,
        {f"rows {name_of(path)}": input_digest(path) for path in files},
        {**asdict(mining), "embedder": embedder, "instruction": instruction},
    )
    is_there = is_current(output, header) and qrels.is_file()
    if is_there and read_header(output).notes.get("qrels") == input_digest(qrels):
        return untouched(output)
    model = load_embedder(embedder)
    found: list[Candidates] = []
    judged: list[str] = []
    sentences = []
    for path in files:
        name = name_of(path)
        rows = merged(read_rows(path, mining.language))
        corpus = corpus_of(rows, mining, name)
        lists = _mined(corpus, model, mining, name) if rows else []
        found += [_candidates(each, name, instruction) for each in lists]
        judged += _judgments(lists, rows, corpus, name)
        sentences.append(
            f"{name}: {len(lists):,} of {len(corpus.questions):,} queries find their answer among "
            f"{len(corpus.texts):,} passages."
        )
    if not found:
        raise BadStage(
            "No query of the rows finds its answer and anything else beside it, so there is "
            f"nothing to learn. {' '.join(sentences)} Are the rows in the language "
            f"{mining.language!r}?"
        )
    _write_qrels(qrels, judged)
    notes = {"sentences": sentences, "qrels": input_digest(qrels)}
    whole = Header(header.stage, header.made_from, header.settings, notes)
    return Outcome(output, write_candidates(output, found, whole), sentences=tuple(sentences))


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row a query, with all its positives; what is one in any row is a negative in none."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_plain(row.query).casefold(), []).append(row)
    found = []
    for group in groups.values():
        positives = {_plain(text): text for row in group for text in row.positives}
        negatives = {_plain(text): text for row in group for text in row.negatives}
        kept = tuple(text for plain, text in negatives.items() if plain not in positives)
        found.append(Row(group[0].query, tuple(positives.values()), kept))
    return found


def _mined(corpus: Corpus, model: Embedder, mining: Mining, name: str) -> list[TrainingList]:
    documents, queries = _embed(model.embed_documents), _embed(model.embed_queries)
    return mine(corpus, documents, mining, name, queries).training


def _candidates(each: TrainingList, name: str, instruction: str) -> Candidates:
    priors = each.priors or ()
    documents = tuple(
        Document(_id_of(text, name), text, round(prior, 6))
        for text, prior in zip(each.documents, priors, strict=True)
    )
    return Candidates(each.query_id, each.query, documents, instruction)


def _judgments(
    lists: Sequence[TrainingList], rows: Sequence[Row], corpus: Corpus, name: str
) -> Iterator[str]:
    """Lines of query, document and grade: 1 for positives, 0 for the row's own negatives."""
    negatives = {row.query: {_plain(text) for text in row.negatives} for row in rows}
    for each in lists:
        own = negatives[each.query]
        for text, target in zip(each.documents, each.targets, strict=True):
            if target or _plain(text) in own:
                yield f"{each.query_id}\t{_id_of(text, name)}\t{int(target)}"


def _id_of(text: str, name: str) -> str:
    return f"{name}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}"


def _embed(embed: Embed) -> Embed:
    def with_progress(texts: Sequence[str]) -> FloatArray:
        """Alike lengths together, so that little of a batch is padding."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        parts = []
        with Bar(CANDIDATES, "texts", len(texts)) as bar:
            for start in range(0, len(order), _AT_ONCE):
                places = order[start : start + _AT_ONCE].tolist()
                parts.append(embed([texts[place] for place in places]))
                bar.update(len(places))
        vectors: FloatArray = np.concatenate(parts)[np.argsort(order)]
        return vectors

    return with_progress


def _write_qrels(path: Path, lines: Sequence[str]) -> None:
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n", "utf-8")
        beside.replace(path)
    except OSError as error:
        raise BadStage(f"{path.name} cannot be written: {error.strerror or error}.") from error


def _plain(text: str) -> str:
    return " ".join(text.split())
