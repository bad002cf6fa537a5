"""How much GPU memory training a model takes, in full and by LoRA, by arithmetic (docs/lora.md)."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from rerank.commands.numbers import between
from rerank.training.memory_plan import plan_table


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="DIR|1.7b|4b", help="a Qwen3 directory, or a size"
    )
    parser.add_argument(
        "--gpu-gb",
        type=between(0, 1e6),
        metavar="N",
        help="memory of one GPU (default: 16 to 80)",
    )


def run(options: Namespace) -> int:
    sys.stdout.write(plan_table(options.model, options.gpu_gb).rstrip("\n") + "\n")
    return 0
