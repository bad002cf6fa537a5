"""All stages by a recipe (docs/zelo.md), each a file in --directory.

Stopped or killed and started again, the run goes on where it was. Judges that cost money are asked
only with a budget in the recipe or with --yes.
"""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from typing import Any, Self

from tqdm import tqdm

from rerank.zelo.evaluation_stage import evaluation_table
from rerank.zelo.recipe import Recipe, read_recipe
from rerank.zelo.run import run as run_pipeline
from rerank.zelo.spending import money
from rerank.zelo.watching import Event

CANCELLED = 130
UNAPPROVED = (
    "Set prices and a budget in [judging] of the recipe, or give --yes to go on without a limit."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where the stages leave their files (default: a folder named as the recipe, beside "
        "it)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="ask judges that cost money without a budget"
    )


def run(options: Namespace) -> int:
    recipe = read_recipe(options.recipe)
    directory = options.directory or options.recipe.parent / options.recipe.stem
    return run_and_show(recipe, directory, is_approved=options.yes)


def run_and_show(recipe: Recipe, directory: Path, *, is_approved: bool) -> int:
    """0 done, 1 the price was shown and nobody allowed it, 130 stopped."""
    with stop_flag() as stop, _Shown() as shown:
        outcome = run_pipeline(
            recipe,
            directory,
            on_event=shown.show,
            stopped=stop.is_set,
            approved=is_approved,
        )
    write = sys.stdout.write
    if outcome.state == "unapproved":
        write(f"Nothing was asked. {UNAPPROVED}\n")
        return 1
    if outcome.state == "cancelled":
        write("Stopped. The same command goes on from here.\n")
        return CANCELLED
    if outcome.evaluation is not None:
        write(f"\n{evaluation_table(outcome.evaluation)}")
    if outcome.cost:
        write(f"Judging cost {money(outcome.cost)}.\n")
    if outcome.checkpoint is not None:
        write(f"The trained reranker: {outcome.checkpoint}\n")
    return 0


@contextmanager
def stop_flag() -> Iterator[Flag]:
    """Set by the first Ctrl-C or SIGTERM, so that the state is saved; the next one interrupts."""
    flag = Flag()

    def stop(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()
        sys.stderr.write("Stopping after this step; once more to stop at once.\n")

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class TrainingBar:
    """A training as a bar on stderr, where somebody watches."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def move(self, name: str, event: Mapping[str, Any]) -> None:
        """`event`: one of the training loop's."""
        done, total = int(event.get("step") or 0), int(event.get("steps") or 0)
        if self._bar is None:
            # What an earlier run did is no part of this one's rate.
            self._bar = tqdm(total=total, initial=done, desc=name, unit=" steps", disable=None)
        self._bar.update(done - self._bar.n)
        if event.get("loss") is not None:
            self._bar.set_postfix(loss=f"{event['loss']:.4f}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Shown(TrainingBar):
    """Stages as lines on stdout, trainings as bars."""

    def show(self, event: Event) -> None:
        where = f"{event.stage}, round {event.round}" if event.round else event.stage
        if event.state == "training":
            assert event.training is not None
            self.move(where, event.training)
        elif event.state == "note":
            self._line(f"  {event.sentence}")
        elif event.state == "done":
            self._line(f"{where}: {'kept' if event.kept else 'done'}")

    def _line(self, text: str) -> None:
        self.close()
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
