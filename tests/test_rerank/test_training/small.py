"""Small data whose answers a tiny model can learn: a document is good when it names a fruit. Run
as a program it trains in a process of its own: `MODEL DIRECTORY [KILL AT STEP]`."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from rerank.training.examples import PairExample, TrainingList
from rerank.training.settings import Settings

FRUIT = ["apples", "pears", "plums", "cherries"]
OTHER = ["cars", "stones", "clouds", "books", "trains"]
SETTINGS = Settings(
    loss="bce", epochs=2, batch=4, rate=1e-3, save_every=3, micro_batch_tokens=256, held_out=0.2
)


def lists(count: int = 20, documents: int = 6) -> list[TrainingList]:
    chance = random.Random(5)
    made = []
    for number in range(count):
        good = [chance.random() < 0.4 for _ in range(documents)]
        texts = tuple(
            f"about {chance.choice(FRUIT if each else OTHER)} and {chance.choice(OTHER)} {number} "
            f"{place}"
            for place, each in enumerate(good)
        )
        targets = tuple(0.9 if each else 0.1 for each in good)
        made.append(TrainingList(f"q{number}", f"fruit {number}", "", texts, targets))
    return made


def pairs(count: int = 24) -> list[PairExample]:
    chance = random.Random(6)
    made = []
    for number in range(count):
        better, worse = f"fresh {chance.choice(FRUIT)} {number}", f"old {chance.choice(OTHER)}"
        if number % 2:
            made.append(PairExample(f"fruit {number}", "", worse, better, 0.1))
        else:
            made.append(PairExample(f"fruit {number}", "", better, worse, 0.9))
    return made


def gradients(base: Any, settings: Settings, rank: int = 0, count: int = 1) -> float:
    """Of the first step's lists, left in the weights; the loss's share."""
    from rerank.training.steps import StepReader, unit_of

    units = [unit_of(example, settings, 0, place) for place, example in enumerate(lists(5))]
    return StepReader(base, settings).read(units, rank, count)[0]


def main(model: str, directory: str, kill: str = "0") -> None:
    import torch
    from safetensors.torch import save_file

    from rerank.training.bases import open_base
    from rerank.training.loop import train
    from rerank.training.processes import Processes

    torch.set_num_threads(1)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)

    train(
        open_base(model, device="cpu"),
        lists(),
        SETTINGS,
        directory=Path(directory),
        on_event=on_event,
    )
    base = open_base(model, device="cpu")
    processes = Processes(base.device)
    gradients(base, SETTINGS, processes.rank, processes.count)
    processes.sum_gradients(base.module.parameters())
    if processes.is_first:
        found = {name: w.grad for name, w in base.module.named_parameters() if w.grad is not None}
        save_file(found, Path(directory) / "gradients.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
