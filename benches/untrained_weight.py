"""How much MaxSim the untrained baseline may add: nDCG@10 of the blend against the fused order.

    python -m benches.untrained_weight ../shared/datasets/eval

Reads BEIR folders, samples queries, and prints one row per set and weight, as in
docs/experiments.md. Corpora are cut to the sampled queries' judged documents and random others,
texts to 128 tokens for the embedder, so figures compare with each other only.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray

from rerank.evaluation.beir import read_folder
from rerank.inference.devices import choose_device, choose_dtype
from rerank.inference.joint_maxsim import LAYERS, JointMaxSim
from rerank.inference.loading import load_embedder
from rerank.inference.models import embedder_facts
from rerank.ranking.analysis import query_terms, terms
from rerank.ranking.fusion import fuse_weighted
from rerank.ranking.metrics import per_query
from rerank.reading import json_rows
from rerank.types import RerankRequest
from searchapp.workbench.parts import write_parts

LANGUAGES = {"drcd-zh": "zh", "jsquad-ja": "ja", "norquad-no": "no"}
LEG_DEPTH = 200
DENSE_WEIGHT = 0.7


class Judged:
    """One query's candidates in fused order, with their MaxSim and grades."""

    def __init__(
        self, documents: list[str], prior: NDArray[np.float64], maxsim: NDArray[np.float32]
    ) -> None:
        self.documents, self.prior, self.maxsim = documents, prior, maxsim

    def scores(self, weight: float) -> dict[str, float]:
        blended = (1 - weight) * self.prior + weight * self.maxsim
        order = np.argsort(-blended, kind="stable")
        return {self.documents[place]: -float(rank) for rank, place in enumerate(order)}


def measure(
    folder: Path, queries: int, documents: int, depth: int, layers: int, seed: int
) -> tuple[list[Judged], dict[str, dict[str, int]]]:
    data = read_folder(folder)
    chosen = random.Random(seed).sample(sorted(data.queries), min(queries, len(data.queries)))
    language = LANGUAGES.get(folder.name, "en")
    ids, texts = _corpus(data.corpus, {d for q in chosen for d in data.qrels[q]}, documents, seed)
    embedder = load_embedder()
    embedder._max_tokens = 128
    vectors = embedder.embed_documents(texts)
    lexical = bm25s.BM25(k1=0.9, b=0.4)
    lexical.index([terms(text, language) for text in texts], show_progress=False)
    device = choose_device()
    reranker = JointMaxSim(embedder_facts(""), device, choose_dtype(device), layers=layers)
    judged = []
    for query in chosen:
        text = data.queries[query]
        fused = fuse_weighted(
            _top(lexical.get_scores(query_terms(text, language)), positive=True),
            _top(vectors @ embedder.embed_queries([text])[0]),
            DENSE_WEIGHT,
        )
        places = list(fused)[:depth]
        request = RerankRequest(text, [texts[place] for place in places])
        prior = np.array([fused[place] for place in places])
        judged.append(Judged([ids[p] for p in places], prior, reranker.score(request).logits))
        sys.stderr.write(f"\r{folder.name}: {len(judged)} of {len(chosen)} queries ")
    sys.stderr.write("\n")
    return judged, {str(i): dict(data.qrels[query]) for i, query in enumerate(chosen)}


def _corpus(path: Path, needed: set[str], size: int, seed: int) -> tuple[list[str], list[str]]:
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            row
            for part in write_parts(path, Path(scratch))
            for row in json_rows(part, ("_id", "text"))
        ]
    texts = {row["_id"]: f"{row['title']}\n{row['text']}" for row in rows}
    others = sorted(set(texts) - needed)
    random.Random(seed).shuffle(others)
    ids = sorted(needed & set(texts)) + others
    ids = ids[: max(size, len(needed))]
    return ids, [texts[key] for key in ids]


def _top(scores: NDArray[np.float32], positive: bool = False) -> dict[int, float]:
    best = np.argsort(-scores, kind="stable")[:LEG_DEPTH]
    return {int(i): float(scores[i]) for i in best if scores[i] > 0 or not positive}


def ndcg(judged: Sequence[Judged], qrels: dict[str, dict[str, int]], weight: float) -> float:
    run = {str(i): one.scores(weight) for i, one in enumerate(judged)}
    return float(np.mean(list(per_query(run, qrels, ["nDCG@10"])["nDCG@10"].values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="holds one BEIR folder per set")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    write = sys.stdout.write
    write("set".ljust(30) + "fused".rjust(8))
    write("".join(f"w={weight:g}".rjust(9) for weight in options.weights) + "\n")
    for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        judged, qrels = measure(
            folder,
            options.queries,
            options.documents,
            options.depth,
            options.layers,
            options.seed,
        )
        fused = ndcg(judged, qrels, 0.0)
        write(folder.name.ljust(30) + f"{fused:8.3f}")
        for weight in options.weights:
            write(f"{ndcg(judged, qrels, weight) - fused:+9.3f}")
        write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
