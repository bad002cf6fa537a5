"""A collection's judged queries, and what people searched for, as the files rerank.zelo reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank.ranking.analysis import query_terms
from rerank.zelo.records import Candidates, Document, write_candidates
from searchapp.engine import local
from searchapp.engine.sockets import EmbedSocket
from searchapp.models import Checkpoint, TrainingJob
from searchapp.models import Document as DocumentRow
from searchapp.models.judgments import RELEVANT_FROM
from searchapp.search.result import Hit

from .asked import Asked, CannotTrain, Stopped
from .counting import (
    MINIMUM_HELD_OUT,
    MINIMUM_QUERIES,
    GradedQuery,
    graded_queries,
    held_out_count,
    logged_queries,
)
from .searching import best_passages, depth_of, first_stage

CANDIDATES = "candidates.jsonl"
QRELS = "qrels.tsv"
# Written last: an export that was interrupted begins again.
SUMMARY = "export.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Figures:
    """`not_found`: judged queries none of whose relevant documents the first stage brought.
    `one_sided`: those with only one kind among their candidates. `labels`: judged candidates of
    the queries trained on. `…_keys`: of queries."""

    judged: int
    not_found: int
    one_sided: int
    labels: int
    relevant: int
    searches: int
    trained_keys: Sequence[str]
    held_out_keys: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Found:
    """A judged query with its candidates and the grade of each: document id -> 0 to 3."""

    query: GradedQuery
    candidates: Candidates
    grades: Mapping[str, int]


def export(
    job: TrainingJob,
    asked: Asked,
    embedder: EmbedSocket,
    *,
    on_progress: Progress = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Figures:
    """Writes candidates and judgments of the queries to train on into the job's folder; what an
    earlier run wrote is kept. Raises CannotTrain, Stopped, OSError."""
    summary = job.folder / SUMMARY
    if summary.exists():
        return Figures(**json.loads(summary.read_text(encoding="utf-8")))
    work = _Export(job, asked, embedder, on_progress, stopped)
    figures = work.through()
    beside = summary.with_suffix(".part")
    beside.write_text(json.dumps(figures.as_json()) + "\n", encoding="utf-8")
    beside.replace(summary)
    return figures


class _Export:
    def __init__(
        self,
        job: TrainingJob,
        asked: Asked,
        embedder: EmbedSocket,
        on_progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        self.job, self.asked, self.embedder = job, asked, embedder
        self.collection, self.config = job.collection, job.config
        self.on_progress, self.stopped = on_progress, stopped
        self.paths = dict(
            DocumentRow.objects.filter(collection=self.collection).values_list("pk", "path")
        )
        self.there = set(self.paths.values())
        # `gone`: of those not found, the ones whose relevant documents are no more.
        self.not_found = self.one_sided = self.gone = 0

    def through(self) -> Figures:
        queries = graded_queries(self.collection)
        keys = {query.key for query in queries}
        logged = logged_queries(self.collection, keys) if self.asked.searches else []
        total = len(queries) + len(logged)
        found: list[_Found] = []
        for done, query in enumerate(queries):
            self._step(done, total)
            if query.has_relevant and (one := self._judged(query)) is not None:
                found.append(one)
        self._check(queries, found)
        held_out = split(found, self.collection.language, str(self.collection.pk), self._used())
        trained = [each for each in found if each.query.key not in held_out]
        others = []
        for done, text in enumerate(logged, start=len(queries)):
            self._step(done, total)
            candidates = self._candidates(f"log-{done}", text)
            if len(candidates.documents) > 1:
                others.append(candidates)
        self.job.folder.mkdir(parents=True, exist_ok=True)
        write_candidates(
            self.job.folder / CANDIDATES, [*(each.candidates for each in trained), *others]
        )
        _write_qrels(self.job.folder / QRELS, trained)
        self.on_progress(total, total)
        grades = [grade for each in trained for grade in each.grades.values()]
        return Figures(
            judged=len(queries),
            not_found=self.not_found,
            one_sided=self.one_sided,
            labels=len(grades),
            relevant=sum(grade >= RELEVANT_FROM for grade in grades),
            searches=len(others),
            trained_keys=[each.query.key for each in trained],
            held_out_keys=sorted(held_out),
        )

    def _step(self, done: int, total: int) -> None:
        if self.stopped():
            raise Stopped
        self.on_progress(done, total)

    def _judged(self, query: GradedQuery) -> _Found | None:
        """None where the candidates cannot teach anything."""
        candidates = self._candidates(query.key, query.text)
        by_id = {document.id: self._grade(query, document.id) for document in candidates.documents}
        grades = {name: grade for name, grade in by_id.items() if grade is not None}
        relevant = sum(grade >= RELEVANT_FROM for grade in grades.values())
        if not relevant:
            self.not_found += 1
            self.gone += not any(
                grade >= RELEVANT_FROM and path in self.there
                for path, grade in query.grades.items()
            )
            return None
        if relevant == len(grades):
            self.one_sided += 1
            return None
        # Of documents nobody judged nothing can be said, so nobody is asked to compare them.
        kept = tuple(each for each in candidates.documents if each.id in grades)
        return _Found(
            query,
            Candidates(candidates.query_id, candidates.query, kept, candidates.instruction),
            grades,
        )

    def _grade(self, query: GradedQuery, document: str) -> int | None:
        unjudged = 0 if self.asked.unjudged else None
        return query.grades.get(self.paths.get(int(document), ""), unjudged)

    def _candidates(self, query_id: str, text: str) -> Candidates:
        result = first_stage(text, self.collection, self.config, self.embedder)
        hits = list(best_passages(result, depth_of(self.config)))
        return Candidates(query_id, text, _documents(hits), result.instruction)

    def _used(self) -> set[str]:
        """Queries that a reranker of the comparison has learnt from already."""
        names = {self.asked.base, self.config.model}
        rows = [Checkpoint.objects.named(name, self.collection.pk) for name in names]
        return {key for row in rows if row is not None for key in row.trained_on}

    def _check(self, queries: Sequence[GradedQuery], found: Sequence[_Found]) -> None:
        if len(found) >= MINIMUM_QUERIES:
            return
        reasons = []
        if self.gone:
            reasons.append(
                f"of {self.gone} the relevant documents are no longer in the collection under the "
                "names they were judged by"
            )
        if self.not_found > self.gone:
            reasons.append(
                f"of {self.not_found - self.gone} the first stage brought no relevant document "
                f"among its {depth_of(self.config)} candidates"
            )
        if self.one_sided:
            reasons.append(f"{self.one_sided} had only relevant documents among them")
        because = f": {'; '.join(reasons)}" if reasons else ""
        raise CannotTrain(
            f"A training needs {MINIMUM_QUERIES} judged queries with a relevant document among the "
            f"candidates and one that is not; {len(found)} of {len(queries)} are so{because}."
        )


def split(
    found: Sequence[_Found], language: str, salt: str, used: Iterable[str] = ()
) -> frozenset[str]:
    """Keys of the queries held out: the same ones at every training, as far as can be, so that no
    reranker is measured on what an earlier one has learnt. Queries of the same words stay together.
    `used`: never held out. Raises CannotTrain."""
    taken = set(used)
    groups: dict[str, list[str]] = {}
    for each in found:
        words = " ".join(sorted(set(query_terms(each.query.text, language))))
        groups.setdefault(words or each.query.key, []).append(each.query.key)
    free = {words: keys for words, keys in groups.items() if not taken & set(keys)}
    order = sorted(free, key=lambda words: hashlib.sha256(f"{salt} {words}".encode()).digest())
    wanted = held_out_count(len(found))
    held_out: list[str] = []
    for words in order:
        if len(held_out) >= wanted:
            break
        held_out += free[words]
    if len(held_out) < MINIMUM_HELD_OUT:
        raise CannotTrain(
            f"{len(held_out)} judged queries are left that the reranker in use has not learnt "
            f"from; a fair comparison needs {MINIMUM_HELD_OUT}. Judge new queries first."
        )
    return frozenset(held_out)


def _documents(hits: Sequence[Hit]) -> tuple[Document, ...]:
    texts = local.passage_texts([hit.passage_id for hit in hits])
    return tuple(
        Document(str(hit.document_id), text, _share(hit.fused_score))
        for hit, text in zip(hits, texts, strict=True)
        if text.strip()
    )


def _share(score: float) -> float:
    return min(max(float(score), 0.0), 1.0)


def _write_qrels(path: Path, found: Sequence[_Found]) -> None:
    """As BEIR's files: query, document, grade."""
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [
        f"{each.query.key}\t{document}\t{grade}"
        for each in found
        for document, grade in each.grades.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
