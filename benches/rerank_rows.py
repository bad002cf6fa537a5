"""One row of the rerank bench in a process of its own: reads a request's place per line, answers
with milliseconds and scores as JSON. Runs under another interpreter as well, so it imports the
product only for the product's own rows.

    python -m benches.rerank_rows ROW FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Score = Callable[[str, Sequence[str]], np.ndarray]
MAX_TOKENS = 300
# FlashRank finds a model by one of its own names.
_FLASHRANK_NAME = "ms-marco-MiniLM-L-12-v2"
_FLASHRANK_FILE = "flashrank-MiniLM-L-12-v2_Q.onnx"


def main(row: str, folder: Path) -> None:
    # What libraries print belongs to the log, not into the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests = json.loads((folder / "requests.json").read_text())
    score = ROWS[row](folder)
    score(requests[0]["query"], requests[0]["documents"][:8])
    _say(answers, {"ready": True})
    for line in sys.stdin:
        if line.strip() == "grow":
            _say(answers, growth(score))
            continue
        asked = requests[int(line)]
        started = time.perf_counter()
        scores = np.asarray(score(asked["query"], asked["documents"]), dtype=np.float64)
        # To the sorted result.
        np.argsort(-scores, kind="stable")
        elapsed = (time.perf_counter() - started) * 1000
        _say(answers, {"ms": elapsed, "scores": scores.tolist(), "peak_mb": peak_mb()})


def growth(score: Score, requests: int = 2000) -> dict[str, float]:
    """Resident MB after 200 and after all of so many small requests."""
    sizes = {}
    for number in range(1, requests + 1):
        score(f"question {number}", [f"answer {number} " * (1 + number % 7), "another answer"])
        if number in {200, requests}:
            sizes[f"mb_at_{number}"] = resident_mb()
    return sizes


def peak_mb() -> float:
    # Not from getrusage, whose figure begins with the parent's at the fork.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def _podium(dtype: str) -> Callable[[Path], Score]:
    def made(folder: Path) -> Score:
        import torch

        from rerank.inference.cross_encoder import CrossEncoderReranker
        from rerank.types import RerankRequest

        reranker = CrossEncoderReranker(
            "bench", folder / "model", torch.device("cpu"), getattr(torch, dtype)
        )
        return lambda query, documents: reranker.score(RerankRequest(query, documents)).logits

    return made


def _predict(backend: str = "torch", **model: Any) -> Callable[[Path], Score]:
    def made(folder: Path) -> Score:
        import torch
        from sentence_transformers import CrossEncoder

        options = {"model_kwargs": model} if model else {}
        encoder = CrossEncoder(
            str(folder / ("model" if backend == "torch" else backend)),
            device="cpu",
            backend=backend,
            **options,
        )
        identity = torch.nn.Identity()

        def score(query: str, documents: Sequence[str]) -> np.ndarray:
            pairs = [(query, document) for document in documents]
            return encoder.predict(pairs, activation_fn=identity)

        return score

    return made


def _flashrank(folder: Path) -> Score:
    from flashrank import Ranker, RerankRequest

    place = folder / "flashrank" / _FLASHRANK_NAME
    if not place.is_dir():
        shutil.copytree(folder / "model", place)
        (place / "model.safetensors").unlink()
        shutil.copy(folder / "onnx" / "onnx" / "model.onnx", place / _FLASHRANK_FILE)
    ranker = Ranker(_FLASHRANK_NAME, str(folder / "flashrank"), MAX_TOKENS, log_level="ERROR")

    def score(query: str, documents: Sequence[str]) -> np.ndarray:
        passages = [{"id": place, "text": text} for place, text in enumerate(documents)]
        found = ranker.rerank(RerankRequest(query, passages))
        scores = np.zeros(len(documents))
        for passage in found:
            scores[passage["id"]] = passage["score"]
        return np.log(scores) - np.log1p(-scores)

    return score


def _export(backend: str) -> Callable[[Path], Score]:
    """Not a row: writes the model as `backend` wants it."""

    def made(folder: Path) -> Score:
        from sentence_transformers import CrossEncoder

        encoder = CrossEncoder(str(folder / "model"), device="cpu", backend=backend)
        encoder.save_pretrained(str(folder / backend))
        return lambda query, documents: np.zeros(len(documents))

    return made


def _say(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


ROWS: dict[str, Callable[[Path], Score]] = {
    "predict": _predict(),
    "predict_bf16": _predict(torch_dtype="bfloat16"),
    "podium": _podium("float32"),
    "podium_bf16": _podium("bfloat16"),
    "onnx": _predict("onnx"),
    "openvino": _predict("openvino", ov_config={"INFERENCE_PRECISION_HINT": "f32"}),
    "openvino_bf16": _predict("openvino", ov_config={"INFERENCE_PRECISION_HINT": "bf16"}),
    "flashrank": _flashrank,
    "export_onnx": _export("onnx"),
    "export_openvino": _export("openvino"),
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
