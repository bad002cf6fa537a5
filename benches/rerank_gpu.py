"""A model of the true zerank-2 size on a GPU: time, memory, agreement of the number formats.

    python -m benches.rerank_gpu

Planned for one run of under nine minutes on an H100 or H200. The weights are random (only time and
memory count), drawn on the device, and shared with sentence-transformers' `CrossEncoder.predict`,
which is timed in the same run. Every time is from texts to scores, tokenising included. The floor
of a row is the arithmetic of its prompts, each read whole, at the rate of a large matrix product
measured first. Tables and JSON are written anew after every part, so a run that is cut short keeps
what it has. `--tiny --device cpu` takes the same way with a tiny model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from tokenizers import Tokenizer
from torch.nn import functional as F
from torch.nn.functional import ScalingType
from transformers.utils import logging as transformers_logging

from benches.bars import write_bars
from benches.gpu_memory import clean, growth_of, held, peak_of, synchronise
from benches.random_zerank import FULL_SIZE, TINY_SIZE, Writer, floor_flops, save, tokenizer
from benches.report import Report, Row
from rerank.errors import RerankError
from rerank.inference import fp8
from rerank.inference.devices import choose_device, describe
from rerank.inference.prompts import with_instruction
from rerank.inference.qwen_frame import QwenFrame
from rerank.inference.zerank import ZerankReranker
from rerank.inference.zerank_files import zerank_files
from rerank.types import FloatArray, RerankRequest

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = (8_192, 16_384, 32_768, 65_536)
# What the frame adds to query and document.
FRAME_TOKENS = 13
NO_TIME = "not measured: out of time"
THEIRS = "sentence-transformers bf16"
SIX, FIFTY, HUNDRED = "6 documents x 2 KB", "50 documents x 2 KB", "100 documents x 512 tokens"


@dataclass(frozen=True)
class Options:
    device: torch.device
    tiny: bool
    compiled: bool
    seconds: float
    out: Path


@dataclass(frozen=True)
class Workload:
    """`lengths`: tokens of each prompt, read whole."""

    name: str
    request: RerankRequest
    lengths: Sequence[int]


class Bench:
    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.device = options.device
        self.folder = folder
        self.report = Report(
            options.out,
            "rerank_gpu",
            "Reranking at zerank-2 size on a GPU",
            "One run of `make bench-rerank-gpu`. Random weights; every time is from texts to "
            "scores, tokenising included. A floor is the arithmetic of the prompts, each read "
            "whole, at the rate of a large matrix product in the same run.",
        )
        self.started = time.monotonic()
        self.tokenizer: Tokenizer = tokenizer()
        self.rates: dict[str, float] = {}

    @property
    def seconds_left(self) -> float:
        return self.options.seconds - (time.monotonic() - self.started)

    def run(self) -> None:
        """Each part in the order of its worth, with the seconds it is likely to take."""
        parts: list[tuple[str, float, Callable[[], None]]] = [
            ("ceilings", 0, self.ceilings),
            ("model", 0, self.model),
            ("time", 30, lambda: self.time_ours("podium bf16", torch.bfloat16)),
            ("time", 40, self.time_sentence_transformers),
            ("time", 30, lambda: self.time_ours("podium fp8", fp8.DTYPE)),
            ("prefix", 30, self.prefix_sharing),
            ("agreement", 30, self.agreement),
            ("memory", 40, self.memory),
        ]
        if self.options.compiled:
            for name, dtype in (("bf16", torch.bfloat16), ("fp8", fp8.DTYPE)):
                part = self._compiled(f"podium {name} compiled", dtype)
                parts.append(("time", 120, part))
        for name, needs, part in parts:
            if self.seconds_left < needs and not self.options.tiny:
                self.report.add(name, {"system": NO_TIME})
                continue
            self.run_part(name, part)
        sys.stdout.write(f"written to {self.options.out}\n")

    def run_part(self, name: str, part: Callable[[], None]) -> None:
        """A part that fails leaves its reason; the files are written anew after each."""
        begun = time.monotonic()
        try:
            part()
        except (RerankError, RuntimeError, torch.cuda.OutOfMemoryError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.report.add(name, {"system": f"not measured: {first[:200]}"})
        clean(self.device)
        self._summarise()
        sys.stdout.write(f"    {name}: {time.monotonic() - begun:.0f} s\n")
        sys.stdout.flush()

    def _compiled(self, name: str, dtype: torch.dtype) -> Callable[[], None]:
        return lambda: self.time_ours(name, dtype, compiled=True)

    def _summarise(self) -> None:
        """Ratios between systems, the aims, the picture and the files."""
        rows = [row for row in self.report.parts.get("time", []) if "p50_ms" in row]
        theirs = {row["workload"]: row["p50_ms"] for row in rows if row["system"] == THEIRS}
        for row in rows:
            if row["system"] != THEIRS and row["workload"] in theirs:
                row["times_faster_than_predict"] = theirs[row["workload"]] / row["p50_ms"]
        if rows and not self.options.tiny:
            self.report.parts["aims"] = list(_aims(rows))
        groups: dict[str, dict[str, float]] = {}
        for row in rows:
            bars = groups.setdefault(row["workload"], {"bf16 floor": row["bf16_floor_ms"]})
            bars[row["system"]] = row["p50_ms"]
        self.options.out.mkdir(parents=True, exist_ok=True)
        if groups:
            title = f"Milliseconds per request on {self.report.machine['device']}, p50"
            write_bars(self.options.out / "rerank_gpu.svg", title, "ms", groups)
        self.report.write()

    # --- ceilings ------------------------------------------------------------------------------

    def ceilings(self) -> None:
        """Rates of large matrix products on random numbers, and of a large copy."""
        self.report.machine = {
            "device": describe(self.device),
            "torch": torch.__version__,
            "size": "tiny" if self.options.tiny else "zerank-2 (4B)",
        }
        size = 512 if self.options.tiny else 8192
        first, second = (torch.randn(size, size, device=self.device) for _ in range(2))
        flops = 2.0 * size**3
        a, b = first.to(torch.bfloat16), second.to(torch.bfloat16)
        self.rates["bf16"] = flops / self._quickest(lambda: a @ b)
        self.report.add("ceilings", {"product": "bf16", "TFLOP/s": self.rates["bf16"] / 1e12})
        self.rates["fp8"] = self.rates["bf16"]
        self._refuse_fp8()
        qa, sa = fp8.quantise_rows(first)
        qb, sb = fp8.quantise_weight(second)

        def product() -> torch.Tensor:
            return F.scaled_mm(
                qa,
                qb.t(),
                sa,
                ScalingType.RowWise,
                sb,
                ScalingType.RowWise,
                output_dtype=torch.bfloat16,
                use_fast_accum=self.device.type == "cuda",
            )

        self.rates["fp8"] = flops / self._quickest(product)
        self.report.add("ceilings", {"product": "fp8", "TFLOP/s": self.rates["fp8"] / 1e12})

    def _refuse_fp8(self) -> None:
        """A CPU computes 8-bit products too, only without gain; here it shows the way."""
        if self.device.type == "cuda":
            fp8.require_device(self.device)

    def _quickest(self, work: Callable[[], Any]) -> float:
        """Median seconds of one call, each group of calls timed together."""
        repeats = 2 if self.options.tiny else 20
        for _ in range(3):
            work()
        times = []
        for _ in range(5):
            synchronise(self.device)
            begun = time.perf_counter()
            for _ in range(repeats):
                work()
            synchronise(self.device)
            times.append((time.perf_counter() - begun) / repeats)
        return float(np.median(times))

    # --- the model -----------------------------------------------------------------------------

    def model(self) -> None:
        size = TINY_SIZE if self.options.tiny else FULL_SIZE
        begun = time.monotonic()
        self.config = save(self.folder / "large", size, self.tokenizer, self.device, torch.bfloat16)
        bytes_ = sum(path.stat().st_size for path in (self.folder / "large").glob("*.safetensors"))
        self.workloads = self._workloads()
        text = Writer(2).bytes(20_000)
        row = {
            "weights_gb": bytes_ / 1e9,
            "seconds_to_draw_and_save": time.monotonic() - begun,
            "bytes_per_token": len(text) / len(self._ids(text)),
        }
        self.report.add("model", row)

    def _workloads(self) -> list[Workload]:
        writer = Writer(3)
        shrink = 8 if self.options.tiny else 1
        query = writer.words(8)
        wanted = 512 // shrink - FRAME_TOKENS - len(self._ids(query))
        texts = {
            SIX: [writer.bytes(2048 // shrink) for _ in range(6)],
            FIFTY: [writer.bytes(2048 // shrink) for _ in range(50)],
            HUNDRED: [writer.tokens(wanted, self.tokenizer) for _ in range(100)],
        }
        return [self._workload(name, query, found) for name, found in texts.items()]

    def _workload(
        self, name: str, query: str, documents: list[str], instruction: str | None = None
    ) -> Workload:
        frame = QwenFrame(self.folder / "large" / "tokenizer.json", 32_768)
        prefix = frame.prefix(with_instruction(query, instruction))
        lengths = [len(prefix) + len(each.ids) for each in frame.documents(prefix, documents)]
        return Workload(name, RerankRequest(query, documents, instruction), lengths)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _load(self, dtype: torch.dtype, folder: str = "large", **options: Any) -> ZerankReranker:
        if dtype == fp8.DTYPE:
            self._refuse_fp8()
        files = zerank_files("random zerank", self.folder / folder)
        if files is None:
            raise SystemExit("The saved model was not recognised.")
        return ZerankReranker(files, self.device, dtype, **options)

    # --- time ----------------------------------------------------------------------------------

    def time_ours(self, system: str, dtype: torch.dtype, compiled: bool = False) -> None:
        begun = time.monotonic()
        model = self._load(dtype, compiled=compiled)
        self.report.add("loading", {"system": system, "seconds": time.monotonic() - begun})
        for workload in self.workloads:
            self._time(system, workload, lambda w=workload: model.score(w.request))  # type: ignore[misc]

    def time_sentence_transformers(self) -> None:
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(
            str(self.folder / "large"),
            device=str(self.device),
            model_kwargs={"dtype": torch.bfloat16},
        )
        for workload in self.workloads:
            pairs = [(workload.request.query, text) for text in workload.request.documents]
            predict = lambda pairs=pairs: model.predict(pairs, show_progress_bar=False)  # noqa: E731
            self._time(THEIRS, workload, predict)

    def _time(self, system: str, workload: Workload, work: Callable[[], Any]) -> None:
        times = self._times(work)
        p50, p95 = (float(np.quantile(times, share) * 1000) for share in (0.5, 0.95))
        matrices, attention = floor_flops(self.config, workload.lengths)
        floors = {
            name: (matrices / self.rates[name] + attention / self.rates["bf16"]) * 1000
            for name in ("bf16", "fp8")
        }
        own = "fp8" if "fp8" in system else "bf16"
        row = {
            "workload": workload.name,
            "system": system,
            "p50_ms": p50,
            "p95_ms": p95,
            "requests": len(times),
            "tokens": sum(workload.lengths),
            "bf16_floor_ms": floors["bf16"],
            "times_own_floor": p50 / floors[own],
        }
        self.report.add("time", row)

    def _times(self, work: Callable[[], Any]) -> list[float]:
        """Seconds of each call: at least five, then for four seconds, at most a hundred."""
        for _ in range(1 if self.options.tiny else 3):
            work()
        least, most, patience = (2, 3, 0.0) if self.options.tiny else (5, 100, 4.0)
        times: list[float] = []
        while len(times) < least or (sum(times) < patience and len(times) < most):
            synchronise(self.device)
            begun = time.perf_counter()
            work()
            synchronise(self.device)
            times.append(time.perf_counter() - begun)
        return times

    # --- prefix sharing ------------------------------------------------------------------------

    def prefix_sharing(self) -> None:
        """50 documents of 60 to 240 tokens below an instruction of 400 tokens."""
        writer = Writer(4)
        chance = np.random.default_rng(4)
        shrink = 8 if self.options.tiny else 1
        documents = [
            writer.tokens(int(chance.integers(60, 240)) // shrink, self.tokenizer)
            for _ in range(50)
        ]
        instruction = writer.tokens(400 // shrink, self.tokenizer)
        workload = self._workload("prefix", writer.words(8), documents, instruction)
        found: dict[bool, tuple[float, FloatArray, int]] = {}
        for share in (True, False):
            model = self._load(torch.bfloat16, share_prefix=share)
            scores = model.score(workload.request)
            work = lambda model=model: model.score(workload.request)  # noqa: E731
            found[share] = (float(np.median(self._times(work))), scores.logits, scores.tokens)
            del model
            clean(self.device)
        for share, (seconds, _, tokens) in found.items():
            row = {"shared": "yes" if share else "no", "p50_ms": seconds * 1000, "tokens": tokens}
            self.report.add("prefix", row)
        gain = {
            "shared": "times less",
            "p50_ms": found[False][0] / found[True][0],
            "tokens": found[False][2] / found[True][2],
            "largest_difference": float(np.abs(found[True][1] - found[False][1]).max()),
        }
        self.report.add("prefix", gain)

    # --- agreement -----------------------------------------------------------------------------

    def agreement(self) -> None:
        """A smaller model in each number format, held to float32. Untrained weights tell documents
        apart by little more than what rounding changes, so trained ones agree better."""
        small = {
            **TINY_SIZE,
            **(
                {}
                if self.options.tiny
                else {
                    "hidden_size": 1024,
                    "num_hidden_layers": 8,
                    "num_attention_heads": 8,
                    "head_dim": 128,
                    "intermediate_size": 3072,
                }
            ),
        }
        save(self.folder / "small", small, self.tokenizer, self.device, torch.float32, 0.05)
        writer = Writer(5)
        chance = np.random.default_rng(5)
        asked = [
            RerankRequest(
                writer.words(6), [writer.words(int(chance.integers(5, 120))) for _ in range(30)]
            )
            for _ in range(2 if self.options.tiny else 20)
        ]
        logits: dict[str, FloatArray] = {}
        for name, dtype, options in [
            ("float32", torch.float32, {}),
            ("bfloat16", torch.bfloat16, {}),
            ("float16", torch.float16, {}),
            ("fp8", fp8.DTYPE, {}),
        ]:
            model = self._load(dtype, "small", **options)
            logits[name] = np.stack([model.score(each).logits for each in asked])
            del model
        pairs = [("bfloat16", "float32"), ("float16", "float32"), ("fp8", "bfloat16")]
        for name, held_to in pairs:
            mine, reference = logits[name], logits[held_to]
            taus = [kendalltau(a, b).statistic for a, b in zip(mine, reference, strict=True)]
            row = {
                "format": name,
                "held_to": held_to,
                "largest_logit_error": float(np.abs(mine - reference).max()),
                "mean_logit_error": float(np.abs(mine - reference).mean()),
                "spread_of_logits": float(reference.std(axis=1).mean()),
                "mean_kendall_tau": float(np.mean(taus)),
            }
            self.report.add("agreement", row)

    # --- memory --------------------------------------------------------------------------------

    def memory(self) -> None:
        """Peaks by batch budget, and what 2,000 small requests leave behind."""
        for name, dtype in (("bf16", torch.bfloat16), ("fp8", fp8.DTYPE)):
            try:
                model = self._load(dtype)
            except RerankError as error:
                self.report.add("memory", {"format": name, "batch_tokens": str(error)})
                continue
            weights = held(self.device)
            for budget in BUDGETS:
                tokens = budget // (16 if self.options.tiny else 1)
                peak = peak_of(model, self.tokenizer, self.device, tokens)
                self.report.add("memory", {"format": name, "weights_gb": weights, **peak})
            if name == "bf16":
                grown = growth_of(model, self.device, 200 if self.options.tiny else 2000)
                self.report.add("memory", {"format": name, **grown})
            del model
            clean(self.device)


def _aims(rows: Sequence[Row]) -> Iterator[Row]:
    """What was aimed at, with the best bf16 row and, where time alone counts, the best of all."""

    def best(workload: str, key: str, sign: str) -> float | None:
        found = [row[key] for row in rows if row["workload"] == workload and sign in row["system"]]
        return min(found, default=None)

    ours = [row for row in rows if row["system"] != THEIRS and "bf16" in row["system"]]
    gains = [row["times_faster_than_predict"] for row in ours if "times_faster_than_predict" in row]
    for aim, limit, found in [
        ("12 KB p50, ms, at most", 45.0, best(SIX, "p50_ms", "podium")),
        (
            "100 x 512 tokens, times the bf16 floor, at most",
            1.6,
            best(HUNDRED, "times_own_floor", "podium bf16"),
        ),
        ("12 KB p50, ms, published mark", 149.7, best(SIX, "p50_ms", "podium")),
        ("100 documents p50, ms, published mark", 620.0, best(HUNDRED, "p50_ms", "podium")),
    ]:
        if found is not None:
            yield {"aim": aim, "limit": limit, "measured": found, "met": found <= limit}
    if gains:
        worst = min(gains)
        yield {
            "aim": "times faster than CrossEncoder.predict in bf16, each workload, at least",
            "limit": 3.0,
            "measured": worst,
            "met": worst >= 3.0,
        }


def read_options(arguments: list[str]) -> Options:
    """Exits with a sentence when the device is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short texts")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also measure torch.compile; unless told, on GPUs only",
    )
    parser.add_argument(
        "--seconds", type=float, default=510, help="no part begins that would end later"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    found = parser.parse_args(arguments)
    try:
        device = choose_device(found.device)
    except RerankError as error:
        raise SystemExit(str(error)) from error
    if device.type == "cpu" and not found.tiny:
        raise SystemExit("A model of this size takes hours on a CPU. Add --tiny, or use a GPU.")
    compiled = device.type == "cuda" if found.compiled is None else found.compiled
    return Options(device, found.tiny, compiled, found.seconds, found.out)


def main(arguments: list[str]) -> None:
    options = read_options(arguments)
    transformers_logging.disable_progress_bar()
    if options.device.type == "cpu":
        # 8-bit products on several CPU threads wait for one another.
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="podium-bench-") as folder:
        Bench(options, Path(folder)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
