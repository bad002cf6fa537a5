"""A small network over features of query and passage, the encoder frozen: what it adds.

    python -m benches.features ../shared/datasets --directory var/features

Cosine, BM25, MaxSim, best window, overlaps and lengths beside the first stage's score. Trained on
half of the queries of all groups of sources but one, measured on that one; three losses, three
seeds; "step 0" is the untrained built-in reranker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benches.default_head import Matched, likeliest
from benches.default_lists import SOURCES, untrained_reader
from benches.feature_columns import COLUMNS, Text, columns_of, read_texts, token_weights
from benches.report import Report, Row
from rerank.evaluation.first_stage import WordIndex
from rerank.inference.fused_head import built_in_head
from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.ranking.metrics import per_query
from rerank.ranking.significance import compare
from rerank.types import FloatArray
from rerank.zelo.mining import Corpus, Mining, corpus_of, fused_order, read_rows

GROUPS = {
    "code": ("conala", "cosqa-dev", "nl2bash"),
    "medicine": ("medquad", "pubmedqa"),
    "encyclopedia": ("nq-oracle", "nq-qed", "selqa", "squad", "squadshifts"),
    "documentation": ("business", "gov", "money", "oss", "tech", "textbooks"),
    "other languages": ("ja", "nl", "zh"),
}
LOSSES = ("listwise", "bce", "mse")
MEASURE = "nDCG@10"
# Candidates of a query.
DEPTH = 50
HIDDEN = 16
EPOCHS = 10
BATCH = 32
RATE = 3e-3
# Of the first stage's score where training starts, as far as a softmax can tell it from others.
PRIOR_WEIGHT = 10.0

Values = dict[str, float]


@dataclass(frozen=True)
class Query:
    """`columns` (documents, len(COLUMNS)) and `grades` (documents,) of its candidates, in
    first-stage order. `positives`: how many there are, found or not."""

    id: str
    columns: FloatArray
    grades: FloatArray
    positives: int

    def column(self, name: str) -> FloatArray:
        return self.columns[:, COLUMNS.index(name)]


# --- candidates and features -------------------------------------------------------------------


def source(
    name: str, folder: Path, reader: FusedMaxSim, weights: FloatArray, queries: int, passages: int
) -> list[Query]:
    """Of one of SOURCES, whatever the first stage finds; not only hard negatives."""
    corpus, mining = _corpus(name, folder, queries, passages)
    texts = read_texts(corpus.texts, reader)
    asked = read_texts([query for query, _ in corpus.questions], reader)
    words = WordIndex(corpus.texts, mining.language)
    vectors = np.stack([text.mean for text in texts])
    found = []
    for number, ((query, positives), question) in enumerate(
        zip(corpus.questions, asked, strict=True)
    ):
        fused = fused_order(words, vectors, query, question.mean, mining.dense_weight)
        places = list(fused)[:DEPTH]
        if not places:
            continue
        candidates: list[Text] = [texts[place] for place in places]
        priors = np.clip([fused[place] for place in places], 0, 1)
        found.append(
            Query(
                f"{name}-{number}",
                columns_of(query, question, candidates, priors.astype(np.float32), weights),
                np.isin(places, positives).astype(np.float32),
                len(positives),
            )
        )
    return found


def _corpus(name: str, folder: Path, queries: int, passages: int) -> tuple[Corpus, Mining]:
    file, language = SOURCES[name]
    weight = 0.7 if language == "en" else 0.3
    mining = Mining(passages=passages, queries=queries, dense_weight=weight, language=language)
    rows = read_rows(folder / f"{file}.jsonl.gz", language if file.startswith("docs-") else "")
    return corpus_of(rows, mining, name), mining


def kept_sources(
    folder: Path, directory: Path, names: Sequence[str], queries: int, passages: int
) -> dict[str, list[Query]]:
    """Read once for a directory and a size."""
    directory.mkdir(parents=True, exist_ok=True)
    size = f"{len(names)}-{queries}-{passages}"
    files = {name: directory / f"{name}-{size}.npz" for name in names}
    missing = [name for name in names if not files[name].is_file()]
    reader = untrained_reader() if missing else None
    if reader is not None:
        file = directory / f"weights-{size}.npy"
        weights = _kept_weights(file, folder, names, reader, queries, passages)
        for name in missing:
            started = time.perf_counter()
            _save(files[name], source(name, folder, reader, weights, queries, passages))
            sys.stdout.write(f"{name}: {time.perf_counter() - started:.0f} s\n")
            sys.stdout.flush()
    return {name: _load(file) for name, file in files.items()}


def _kept_weights(
    file: Path,
    folder: Path,
    names: Sequence[str],
    reader: FusedMaxSim,
    queries: int,
    passages: int,
) -> FloatArray:
    """Over the passages of all sources: nothing of them but how rare tokens are."""
    if not file.is_file():
        texts = [_corpus(name, folder, queries, passages)[0].texts for name in names]
        np.save(file, token_weights([text for own in texts for text in own], reader))
    weights: FloatArray = np.load(file)
    return weights


def _save(file: Path, queries: Sequence[Query]) -> None:
    beside = file.with_suffix(".part.npz")
    np.savez_compressed(
        beside,
        ids=np.array([each.id for each in queries]),
        columns=np.concatenate([each.columns for each in queries]),
        grades=np.concatenate([each.grades for each in queries]),
        counts=np.array([len(each.grades) for each in queries]),
        positives=np.array([each.positives for each in queries]),
    )
    beside.replace(file)


def _load(file: Path) -> list[Query]:
    with np.load(file) as kept:
        ends = np.cumsum(kept["counts"])[:-1]
        parts = zip(
            kept["ids"].tolist(),
            np.split(kept["columns"], ends),
            np.split(kept["grades"], ends),
            kept["positives"].tolist(),
            strict=True,
        )
        return [Query(*part) for part in parts]


# --- the network -------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """first stage x PRIOR_WEIGHT + a line and `HIDDEN` units over the columns, both 0 at first."""

    def __init__(self, columns: torch.Tensor) -> None:
        super().__init__()
        width = columns.shape[1]
        self.register_buffer("mean", columns.mean(dim=0))
        self.register_buffer("spread", columns.std(dim=0).clamp(min=1e-3))
        self.hidden = torch.nn.Linear(width, HIDDEN)
        self.out = torch.nn.Linear(HIDDEN, 1)
        self.line = torch.nn.Linear(width, 1, bias=False)
        for weights in (self.out.weight, self.out.bias, self.line.weight):
            torch.nn.init.zeros_(weights)
        # Even odds for what stands half-way up the first stage's scores.
        torch.nn.init.constant_(self.out.bias, -PRIOR_WEIGHT / 2)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        scaled = ((columns - self.mean) / self.spread).clamp(-4, 4)
        units = torch.nn.functional.gelu(self.hidden(scaled))
        prior = columns[..., COLUMNS.index("prior")]
        found: torch.Tensor = (
            PRIOR_WEIGHT * prior + self.line(scaled)[..., 0] + self.out(units)[..., 0]
        )
        return found


def trained(queries: Sequence[Query], loss: str, seed: int) -> Network:
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    known = [each for each in queries if each.grades.any()]
    columns, grades, real = _padded(known)
    network = Network(columns[real])
    steps = EPOCHS * -(-len(known) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=max(steps, 20), pct_start=0.1
    )
    for _ in range(EPOCHS):
        order = chance.permutation(len(known))
        for start in range(0, len(order), BATCH):
            batch = torch.from_numpy(order[start : start + BATCH])
            value = loss_of(loss, network(columns[batch]), grades[batch], real[batch])
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval()


def loss_of(
    kind: str, logits: torch.Tensor, grades: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Mean over lists ("listwise"), over documents ("bce", "mse" of the sigmoid)."""
    if kind == "listwise":
        shares = logits.masked_fill(~real, -torch.inf).log_softmax(dim=1).masked_fill(~real, 0.0)
        return -(grades / grades.sum(dim=1, keepdim=True) * shares).sum(dim=1).mean()
    logits, grades = logits[real], grades[real]
    if kind == "bce":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, grades)
    return ((torch.sigmoid(logits) - grades) ** 2).mean()


def _padded(queries: Sequence[Query]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (len(queries), DEPTH)
    columns = torch.zeros(*shape, len(COLUMNS))
    grades, real = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for place, each in enumerate(queries):
        count = len(each.grades)
        columns[place, :count] = torch.from_numpy(each.columns)
        grades[place, :count] = torch.from_numpy(each.grades)
        real[place, :count] = True
    return columns, grades, real


# --- the table ---------------------------------------------------------------------------------


def step_0(query: Query) -> FloatArray:
    """As the untrained built-in reranker scores it."""
    trust = float(query.column("latin")[0])
    return built_in_head().logits(query.column("maxsim"), query.column("prior").tolist(), trust)


@torch.no_grad()
def by_network(network: Network, query: Query) -> FloatArray:
    scores: FloatArray = network(torch.from_numpy(query.columns)).numpy()
    return scores


def measured(queries: Sequence[Query], scores: Sequence[FloatArray]) -> Values:
    """Query id -> nDCG@10; ties fall to the first stage's order."""
    run, qrels = {}, {}
    for query, own in zip(queries, scores, strict=True):
        order = np.argsort(-own, kind="stable")
        run[query.id] = {f"{place:03d}": -float(rank) for rank, place in enumerate(order)}
        good = {f"{place:03d}": 1 for place in np.flatnonzero(query.grades)}
        missed = {f"missed {n}": 1 for n in range(query.positives - len(good))}
        qrels[query.id] = {**good, **missed}
    return per_query(run, qrels, [MEASURE])[MEASURE]


def row(
    label: Row, first: dict[str, Values], base: dict[str, Values], own: dict[str, Values]
) -> Row:
    """Mean differences over sources, each counting alike; intervals over all queries together."""
    gaps = {name: _mean(own[name]) - _mean(first[name]) for name in own}
    latin = [gap for name, gap in gaps.items() if name not in ("ja", "zh")]
    found: Row = {
        **label,
        "mean": float(np.mean([_mean(values) for values in own.values()])),
        "minus_hybrid": _signed(float(np.mean(list(gaps.values())))),
        "minus_hybrid_Latin_letters": _signed(float(np.mean(latin))),
        "worst_source": f"{min(gaps, key=lambda name: gaps[name])} {min(gaps.values()):+.4f}",
    }
    for against, other in (("hybrid", first), ("step_0", base)):
        gap = compare(_joined(other), _joined(own))
        found[f"queries_minus_{against}"] = (
            f"{gap.difference:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        )
    for group, names in GROUPS.items():
        if known := [gaps[name] for name in names if name in gaps]:
            found[group.replace(" ", "_")] = _signed(float(np.mean(known)))
    return found


def likeliest_row(sources: dict[str, list[Query]]) -> Row:
    """The head of step 0, fitted to these lists (benches/default_head.py)."""
    english = [q for name, each in sources.items() if SOURCES[name][1] == "en" for q in each]
    lists = [
        Matched((), query.column("prior"), query.column("maxsim"), query.grades)
        for query in english
        if query.grades.any()
    ]
    found = likeliest(lists)
    return {
        "lists": len(lists),
        "first_stage": f"{found.prior:.2f} ({_interval(found.prior_interval)})",
        "MaxSim": f"{found.match:.2f} ({_interval(found.match_interval)})",
        "shipped": f"{built_in_head().prior:g} : {built_in_head().match:g}",
    }


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def leave_one_out(sources: dict[str, list[Query]], loss: str, seed: int) -> dict[str, Values]:
    """Each source by the network that has not seen its group."""
    found: dict[str, Values] = {}
    for names in GROUPS.values():
        own = [name for name in names if name in sources]
        others = [q for name, each in sources.items() if name not in own for q in each[::2]]
        if own and others:
            network = trained(others, loss, seed)
            for name in own:
                scores = [by_network(network, query) for query in sources[name]]
                found[name] = measured(sources[name], scores)
    return found


def _mean(values: Values) -> float:
    return float(np.mean(list(values.values())))


def _joined(values: dict[str, Values]) -> Values:
    return {query: value for own in values.values() for query, value in own.items()}


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train/")
    parser.add_argument("--directory", type=Path, default=Path("var/features"))
    parser.add_argument("--queries", type=int, default=450, help="of a source (450)")
    parser.add_argument("--passages", type=int, default=4000, help="of a source (4000)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sources = kept_sources(
        options.folder / "train",
        options.directory,
        options.sources,
        options.queries,
        options.passages,
    )
    table(sources, options.seeds, options.passages, options.out)


def table(sources: dict[str, list[Query]], seeds: int, passages: int, out: Path) -> None:
    count = sum(map(len, sources.values()))
    report = Report(
        out,
        "features",
        "A small network over features",
        f"{len(sources)} sources of training rows, {count:,} queries, up to {passages:,} passages "
        f"a source, first {DEPTH} candidates. nDCG@10 of each source by a network that has not "
        "seen its group, minus the hybrid first stage; means over sources, then over all queries "
        "with paired bootstrap intervals. Step 0 is the untrained built-in reranker. "
        f"{len(COLUMNS)} columns, {HIDDEN} hidden units, {EPOCHS} epochs. "
        "`python -m benches.features` (benches/features.py).",
        {"cores": os.cpu_count(), "torch": torch.__version__},
    )
    report.add("likeliest weights in English", likeliest_row(sources))
    first = {
        name: measured(each, [query.column("prior") for query in each])
        for name, each in sources.items()
    }
    base = {
        name: measured(each, [step_0(query) for query in each]) for name, each in sources.items()
    }
    report.add("all", row({"loss": "step 0", "seed": "", "seconds": ""}, first, base, base))
    for loss in LOSSES:
        for seed in range(seeds):
            started = time.perf_counter()
            own = leave_one_out(sources, loss, seed)
            seconds = round(time.perf_counter() - started, 1)
            label: Row = {"loss": loss, "seed": seed, "seconds": seconds}
            report.add("all", row(label, first, base, own))
            report.write()


if __name__ == "__main__":
    main()
