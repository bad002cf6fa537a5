"""Whether a trained built-in reranker may replace the untrained one: nDCG@10 on judged sets.

    python -m benches.ship_gate FOLDER_OF_SETS --model DIR... --half dev|final

Each set's queries are divided by a hash of their names: the first half serves choosing among
models, the other half is opened once, for the chosen one. The gate: mean nDCG@10 over sets above
the best first stage and above step 0, both with a paired bootstrap interval above 0, and no set
more than 0.01 below its hybrid. Vectors are kept below var/, so that a second run is quick.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benches.differences import Span, picture
from benches.mean_vectors import mean_vectors
from benches.report import Report
from rerank.evaluation.beir import read_corpus, read_folder
from rerank.evaluation.first_stage import WordIndex
from rerank.inference.devices import choose_device, choose_dtype
from rerank.inference.fused_files import FusedFiles, fused_files, untrained
from rerank.inference.fused_maxsim import FusedMaxSim, latin_share
from rerank.inference.loading import load_embedder, quietly
from rerank.ranking.fusion import fuse_reciprocal_ranks, fuse_weighted
from rerank.ranking.metrics import per_query
from rerank.types import FloatArray

LANGUAGES = {"drcd-zh": "zh", "jsquad-ja": "ja", "norquad-no": "no"}
LEG_DEPTH = 200
DEPTH = 100
MOST_LOST = 0.01
# Of each set's half, at most.
QUERIES = 200
FIRST_STAGES = ("bm25", "dense", "rrf", "hybrid")
STEP_0 = "step 0"
_MEASURE = "nDCG@10"
_ROUNDS = 10_000

# system -> query -> nDCG@10
Values = dict[str, dict[str, float]]
# query -> MaxSim of its candidates, (candidates,)
Matches = dict[str, FloatArray]


@dataclass(frozen=True)
class Question:
    """A query, its candidates (places) in fused order with their priors, and each leg's order."""

    key: str
    text: str
    grades: Mapping[str, int]
    candidates: list[int]
    priors: list[float]
    orders: Mapping[str, list[int]]


@dataclass(frozen=True)
class JudgedSet:
    name: str
    ids: list[str]
    texts: list[str]
    questions: list[Question]


@dataclass(frozen=True)
class Contender:
    """`encoder`: changes with whatever the model's matches depend on."""

    model: FusedMaxSim
    encoder: str


def half_of(name: str, query: str) -> str:
    """ "dev" or "final", by the names alone."""
    digest = hashlib.sha256(f"{name}/{query}".encode()).digest()
    return "dev" if digest[0] % 2 == 0 else "final"


def read_all(
    model: FusedMaxSim, texts: Sequence[str], places: Sequence[int], name: str
) -> dict[int, torch.Tensor]:
    """Place -> unit token vectors, each document read once, alike lengths together."""
    order = sorted(set(places), key=lambda place: len(texts[place]))
    read: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        read |= zip(some, model.read_documents([texts[place] for place in some]), strict=True)
        sys.stderr.write(f"\r{name}: {start + len(some)} of {len(order)} documents read ")
    return read


def read_set(folder: Path, half: str, most: int, cache: Path, seed: int = 7) -> JudgedSet:
    """At most `most` queries of the half, drawn by `seed`."""
    data = read_folder(folder)
    corpus = read_corpus(data.corpus)
    ids, texts = list(corpus), list(corpus.values())
    language = LANGUAGES.get(folder.name, "en")
    weight = 0.7 if language == "en" else 0.3
    own = sorted(key for key in data.queries if half_of(folder.name, key) == half)
    chosen = random.Random(seed).sample(own, min(most, len(own)))
    words = WordIndex(texts, language)
    vectors = _vectors(folder.name, texts, cache)
    asked = load_embedder().embed_queries([data.queries[key] for key in chosen])
    questions = []
    for key, vector in zip(chosen, asked, strict=True):
        lexical = words.search(data.queries[key], LEG_DEPTH)
        cosines = vectors @ vector
        nearest = np.argsort(-cosines, kind="stable")[:LEG_DEPTH]
        dense = dict(zip(nearest.tolist(), cosines[nearest].tolist(), strict=True))
        fused = fuse_weighted(lexical, dense, weight)
        orders = {
            "bm25": list(lexical),
            "dense": list(dense),
            "rrf": list(fuse_reciprocal_ranks([list(lexical), list(dense)])),
            "hybrid": list(fused),
        }
        candidates = list(fused)[:DEPTH]
        priors = [min(max(fused[place], 0.0), 1.0) for place in candidates]
        questions.append(
            Question(key, data.queries[key], data.qrels[key], candidates, priors, orders)
        )
    return JudgedSet(folder.name, ids, texts, questions)


def _vectors(name: str, texts: Sequence[str], cache: Path) -> FloatArray:
    """The built-in embedder's vectors; made once."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    file = cache / f"{name}-{digest}.npy"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        device = choose_device()
        reader = FusedMaxSim(untrained(), device, choose_dtype(device))
        np.save(file, mean_vectors(texts, reader))
    vectors: FloatArray = np.load(file)
    return vectors


def matches(judged: JudgedSet, model: FusedMaxSim, encoder: str, cache: Path) -> Matches:
    """query -> MaxSim of its candidates; each document is read once for all queries. `encoder`
    names what is kept: MaxSim does not depend on the head, so another head costs nothing."""
    file = cache / f"{judged.name}-{digest_of(judged, encoder)}.npz"
    if file.is_file():
        kept = np.load(file)
        return {question.key: kept[question.key] for question in judged.questions}
    places = [place for question in judged.questions for place in question.candidates]
    read = read_all(model, judged.texts, places, judged.name)
    found = {
        question.key: model.match(question.text, "", [read[p] for p in question.candidates])
        for question in judged.questions
    }
    cache.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"new-{file.name}")
    np.savez(beside, **found)
    beside.replace(file)
    return found


def digest_of(judged: JudgedSet, encoder: str) -> str:
    asked = "\0".join(f"{q.key}\0{q.candidates}" for q in judged.questions)
    return hashlib.sha256(f"{encoder}\0{asked}".encode()).hexdigest()[:16]


def measured(judged: JudgedSet, models: Mapping[str, Contender], cache: Path) -> Values:
    runs: dict[str, dict[str, dict[str, float]]] = {}
    for question in judged.questions:
        for stage in FIRST_STAGES:
            runs.setdefault(stage, {})[question.key] = _run(judged, question.orders[stage])
    for name, contender in models.items():
        model = contender.model
        found = matches(judged, model, contender.encoder, cache)
        for question in judged.questions:
            logits = model.head.logits(
                found[question.key], question.priors, latin_share(question.text)
            )
            order = np.argsort(-logits, kind="stable")
            places = [question.candidates[at] for at in order.tolist()]
            rest = question.orders["hybrid"][DEPTH:]
            runs.setdefault(name, {})[question.key] = _run(judged, [*places, *rest])
    qrels = {question.key: question.grades for question in judged.questions}
    return {name: dict(per_query(run, qrels, [_MEASURE])[_MEASURE]) for name, run in runs.items()}


def _run(judged: JudgedSet, order: Sequence[int]) -> dict[str, float]:
    # Ranks settle ties by the order given.
    return {judged.ids[place]: -float(rank) for rank, place in enumerate(order)}


def interval(sets: Mapping[str, Values], before: str, after: str) -> tuple[float, float, float]:
    """Mean over the sets of the mean difference, and its 95 % interval when each set's queries are
    drawn with replacement (Efron 1979)."""
    chance = np.random.default_rng(0)
    total = np.zeros(_ROUNDS)
    difference = 0.0
    for values in sets.values():
        keys = sorted(values[before])
        own: NDArray[np.float64] = np.array([values[after][k] - values[before][k] for k in keys])
        drawn = chance.integers(0, len(own), (_ROUNDS, len(own)))
        total += own[drawn].mean(axis=1) / len(sets)
        difference += float(own.mean()) / len(sets)
    low, high = np.quantile(total, [0.025, 0.975])
    return difference, float(low), float(high)


def mean_of(values: Values, system: str) -> float:
    return float(np.mean(list(values[system].values())))


def gate(sets: Mapping[str, Values], model: str) -> list[dict[str, Any]]:
    """One row for each thing that must hold."""
    means = {s: float(np.mean([mean_of(v, s) for v in sets.values()])) for s in FIRST_STAGES}
    best = max(("dense", "rrf", "hybrid"), key=lambda stage: means[stage])
    rows: list[dict[str, Any]] = []
    for before in (best, STEP_0):
        if before == model:
            continue
        difference, low, high = interval(sets, before, model)
        rows.append(
            {
                "model": model,
                "condition": f"above {before} with an interval above 0",
                "value": f"{difference:+.4f} ({low:+.4f} to {high:+.4f})",
                "holds": "yes" if low > 0 else "no",
            }
        )
    lost = {name: mean_of(v, model) - mean_of(v, "hybrid") for name, v in sets.items()}
    worst = min(lost, key=lambda name: lost[name])
    rows.append(
        {
            "model": model,
            "condition": f"no set more than {MOST_LOST} below its hybrid",
            "value": f"{worst} {lost[worst]:+.4f}",
            "holds": "yes" if lost[worst] >= -MOST_LOST else "no",
        }
    )
    return rows


def spans(sets: Mapping[str, Values], models: Sequence[str]) -> dict[str, dict[str, Span]]:
    """Each model's difference to the hybrid with its 95 % interval: by set, and of their mean."""
    rows = {
        f"{name} ({len(values['hybrid'])})": {
            model: interval({name: values}, "hybrid", model) for model in models
        }
        for name, values in sets.items()
    }
    return rows | {"mean of sets": {model: interval(sets, "hybrid", model) for model in models}}


def holds(report: Report, model: str) -> bool:
    """Whether each condition of the gate holds for the model."""
    return all(row["holds"] == "yes" for row in report.parts["gate"] if row["model"] == model)


def table(
    folder: Path,
    files: Mapping[str, FusedFiles],
    half: str,
    out: Path,
    cache: Path,
    sets: Sequence[str] | None = None,
    queries: int = QUERIES,
) -> Report:
    """Measures the first stages and models, one of which is STEP_0, and writes the table."""
    device = choose_device()
    dtype = choose_dtype(device)
    with quietly():
        models = {
            name: Contender(FusedMaxSim(each, device, dtype), each.encoder_revision(dtype))
            for name, each in files.items()
        }
    report = Report(
        out,
        f"default_model_{half}",
        f"The built-in reranker on judged sets, {half} half",
        "nDCG@10; `hybrid` is the weighted fusion (.7 dense, other languages than English .3), "
        "`step 0` the untrained model, each reranking the hybrid's first 100. Command: "
        "`make default-model` (benches/default_model.py) ends with this table.",
        {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "number format": str(dtype).removeprefix("torch."),
        },
    )
    found: dict[str, Values] = {}
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or (sets and each.name not in sets):
            continue
        started = time.perf_counter()
        judged = read_set(each, half, queries, cache)
        values = measured(judged, models, cache)
        found[each.name] = values
        row: dict[str, Any] = {"set": each.name, "queries": len(judged.questions)}
        row |= {system: round(mean_of(values, system), 4) for system in values}
        report.add("nDCG@10", row)
        sys.stderr.write(f"\r{each.name}: {time.perf_counter() - started:.0f} s\n")
    means = {
        system: round(float(np.mean([mean_of(v, system) for v in found.values()])), 4)
        for system in [*FIRST_STAGES, *models]
    }
    count = sum(len(v["hybrid"]) for v in found.values())
    report.add("nDCG@10", {"set": "mean", "queries": count, **means})
    for name in models:
        for row in gate(found, name):
            report.add("gate", row)
    report.out.mkdir(parents=True, exist_ok=True)
    drawn = picture(f"nDCG@10 minus hybrid, {half} half", spans(found, list(models)), -MOST_LOST)
    (report.out / f"{report.name}.svg").write_text(drawn, encoding="utf-8")
    report.write()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds one BEIR folder per set")
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="checkpoint directories")
    parser.add_argument("--half", choices=["dev", "final"], default="dev")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--queries", type=int, default=QUERIES, help="of each set's half, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--cache", type=Path, default=Path("var/ship-gate"))
    options = parser.parse_args()
    files: dict[str, FusedFiles] = {STEP_0: untrained()}
    for directory in options.model:
        found = fused_files(directory.name, directory)
        if found is None:
            parser.error(f"{directory} holds no built-in reranker")
        files[directory.parent.name if directory.name == "checkpoint" else directory.name] = found
    table(
        options.folder,
        files,
        options.half,
        options.out,
        options.cache,
        options.sets,
        options.queries,
    )


if __name__ == "__main__":
    main()
