"""`python -m rerank zelo following`: does a model do what instructions say?

Each pair of documents answers the same query; two opposite instructions must order it in opposite
ways. A model that ignores instructions gets 50 % of the orders right and no pair under both.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace

from tqdm import tqdm

from rerank.zelo.instructions.following import evaluate_following
from rerank.zelo.instructions.generate import SPLITS, contrasts
from rerank.zelo.instructions.wrapped import read_rows

from .zelo_instructions import add_source_arguments, plan_of

_LEGEND = (
    "both right, right: of the pairs under both opposite instructions, of the orders under one; "
    "shift: of relevance; topic: answers above what does not answer, without instruction; damage: "
    "what an instruction that concerns no document takes from that; told: the wanted answer above "
    "what does not answer; reordered: document pairs that such an instruction turns round. All in "
    "% with 95 % intervals.\n"
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="hub name or directory (default: built in)")
    parser.add_argument(
        "--count", type=int, default=300, metavar="N", help="pairs, four calls each (300)"
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="held_out",
        help="held_out: wordings, domains and one kind that training never sees (default); wording "
        "or domain: one of the two; train: neither",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="float32, bfloat16, ... (default: what suits the device)")
    parser.add_argument("--json", action="store_true")


def run(options: Namespace) -> int:
    made = list(contrasts(plan_of(options), read_rows(options.rows)))
    # torch takes seconds to import; wrong rows are said at once.
    from rerank.ranked import load_reranker

    reranker = load_reranker(options.model, options.device, options.dtype)
    with tqdm(total=len(made), desc="pairs", unit=" pairs", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        report = evaluate_following(reranker, made, on_progress=show)
    if options.json:
        figures = {"split": options.split, "seed": options.seed, **report.as_json()}
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(f"{report.model}, split {options.split}, seed {options.seed}\n")
        sys.stdout.write(f"{report.as_text()}\n\n{_LEGEND}")
    return 0
