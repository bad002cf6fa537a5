"""The two trainings: preferences -> pairwise model, targets -> pointwise model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank.errors import BadStage, TrainingFailed
from rerank.training.examples import Examples, TrainingList

from .recipe import Training
from .records import Header, input_digest, is_current, read_candidates, read_header, read_stage
from .records import write_stage as write_note

if TYPE_CHECKING:
    from rerank.training.bases import Trainable

NOTE = "stage.jsonl"
CHECKPOINT = "checkpoint"

Event = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """`checkpoint` None: cancelled before there was one. `metrics` by held-out queries, `before`
    the same of the untrained base."""

    directory: Path
    checkpoint: Path | None
    was_cancelled: bool = False
    was_current: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    sentences: tuple[str, ...] = ()

    def as_notes(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "before": dict(self.before),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "sentences": list(self.sentences),
        }


@dataclass(frozen=True)
class Watch:
    """Who follows a training, and may end it."""

    on_event: Callable[[Event], None] = lambda event: None
    stopped: Callable[[], bool] = lambda: False


def train_pairwise(
    candidates: Path,
    preferences: Path,
    directory: Path,
    training: Training,
    *,
    device: str = "auto",
    watch: Watch | None = None,
    command: tuple[str, ...] = (),
) -> Trained:
    """A model that says which of two documents is better, from what the judges prefer; soft labels,
    binary cross-entropy. Raises BadStage, TrainingFailed and what loading the base raises."""

    def examples() -> Examples:
        from .pairwise import pair_examples

        return list(pair_examples(candidates, preferences))

    files = {"candidates": candidates, "preferences": preferences}
    stage = _Stage("pairwise", files, directory, training, training.seeds[0], device, command)
    return stage.run(examples, watch or Watch())


def train_pointwise(
    candidates: Path,
    scores: Path,
    directory: Path,
    training: Training,
    *,
    seed: int = 0,
    device: str = "auto",
    watch: Watch | None = None,
    command: tuple[str, ...] = (),
) -> Trained:
    """A reranker that gives documents their targets. Raises BadStage, TrainingFailed and what
    loading the base raises."""
    files = {"candidates": candidates, "scores": scores}
    stage = _Stage("pointwise", files, directory, training, seed, device, command)
    return stage.run(lambda: list(training_lists(candidates, scores)), watch or Watch())


def training_lists(candidates: Path, scores: Path) -> Iterator[TrainingList]:
    """Each query with its distinct documents and their targets; queries without documents are left
    out. Raises BadStage."""
    targets = {
        record["query_id"]: {each["id"]: each["target"] for each in record["documents"]}
        for record in read_stage(scores, "scores")
    }
    for query in read_candidates(candidates):
        known = targets.get(query.query_id, {})
        distinct = set(query.distinct())
        documents = [each for each in query.documents if each.id in distinct]
        if not documents:
            continue
        try:
            aims = tuple(float(known[each.id]) for each in documents)
        except KeyError as error:
            raise BadStage(
                f"{scores} has no target for {error} of query {query.query_id}: run the stages "
                "before again."
            ) from error
        priors = [each.prior for each in documents if each.prior is not None]
        yield TrainingList(
            query.query_id,
            query.query,
            query.instruction,
            tuple(each.text for each in documents),
            aims,
            tuple(priors) if len(priors) == len(documents) else None,
        )


def open_training_base(training: Training, device: str, seed: int) -> Trainable:
    """The base as it comes, with LoRA where the recipe says so."""
    from rerank.inference.loading import quietly
    from rerank.training.bases import open_base
    from rerank.training.lora import LoraSettings

    lora = LoraSettings(rank=training.lora_rank) if training.method == "lora" else None
    with quietly():
        return open_base(
            training.base,
            device=device,
            dtype_name=training.dtype,
            max_tokens=training.max_tokens,
            lora=lora,
            seed=seed,
        )


def check_training(training: Training, queries: int, device: str) -> None:
    """Raises what a training on so many queries would trip over at once: DeviceError,
    ModelNotFound, TrainingFailed."""
    from rerank.training.bases import found_base
    from rerank.training.splitting import check_held_out

    check_held_out(queries, training.settings.held_out)
    found_base(training.base, device, training.dtype, training.method == "lora")


class _Stage:
    """A training whose directory says what it was made of, so that it is not done twice, goes on
    after a kill, and begins anew when its inputs changed."""

    def __init__(
        self,
        name: str,
        files: Mapping[str, Path],
        directory: Path,
        training: Training,
        seed: int,
        device: str,
        command: tuple[str, ...],
    ) -> None:
        self.files, self.directory, self.training = files, directory, training
        self.seed, self.device, self.command = seed, device, command
        self.made_from = {name: input_digest(path) for name, path in files.items()}
        self.header = Header(name, self.made_from, {**training.as_json(), "seed": seed})
        self.note = directory / NOTE

    def run(self, examples: Callable[[], Examples], watch: Watch) -> Trained:
        if found := self._done_before():
            return found
        self._make_room()
        from rerank.training.loop import train

        base = open_training_base(self.training, self.device, self.seed)
        outcome = train(
            base,
            examples(),
            replace(self.training.settings, seed=self.seed),
            directory=self.directory,
            on_event=watch.on_event,
            stopped=watch.stopped,
            data={name: {"sha256": digest} for name, digest in self.made_from.items()},
            command=self.command,
        )
        trained = Trained(
            self.directory,
            outcome.checkpoint,
            outcome.state == "cancelled",
            False,
            dict(outcome.metrics),
            dict(outcome.before),
            outcome.steps,
            outcome.seconds,
            outcome.sentences,
        )
        if not trained.was_cancelled:
            self._write_note({"is_done": True, **trained.as_notes()})
        return trained

    def _done_before(self) -> Trained | None:
        if not is_current(self.note, self.header):
            return None
        notes = read_header(self.note).notes
        checkpoint = self.directory / CHECKPOINT
        if not (notes.get("is_done") and checkpoint.is_dir()):
            return None
        return Trained(
            self.directory,
            checkpoint,
            was_current=True,
            metrics=notes["metrics"],
            before=notes["before"],
            steps=notes["steps"],
            seconds=notes["seconds"],
            sentences=tuple(notes["sentences"]),
        )

    def _make_room(self) -> None:
        """What another run left is cleared away; what this one left is gone on from."""
        # Under torchrun one process does, and the others may come before, while or after it does.
        if os.environ.get("RANK", "0") != "0" or is_current(self.note, self.header):
            return
        gone = self.directory.with_name(f".{self.directory.name}.cleared")
        # Of a run that was killed while it cleared away.
        shutil.rmtree(gone, ignore_errors=True)
        if self.directory.exists() and not self.directory.is_dir():
            raise BadStage(f"{self.directory} is a file: name a directory for the training.")
        if self.directory.exists():
            beside = self.note.with_name(self.note.name + ".part")
            # A run that was killed before its note was whole left nothing else.
            others = [path for path in self.directory.iterdir() if path != beside]
            if others and not self.note.is_file():
                raise BadStage(
                    f"{self.directory} exists and was not made by this stage: move it away, or "
                    "choose another directory."
                )
            if others and int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise TrainingFailed(
                    f"{self.directory} holds another training. Remove it before several processes "
                    "train together."
                )
            # Its note must not go before the rest, or nobody knew whose that was.
            self.directory.rename(gone)
            shutil.rmtree(gone)
        self._write_note({"is_done": False})

    def _write_note(self, notes: Mapping[str, Any]) -> None:
        # Under torchrun one process writes.
        if os.environ.get("RANK", "0") == "0":
            header = Header(
                self.header.stage, self.header.made_from, self.header.settings, dict(notes)
            )
            write_note(self.note, header, [])


def best_of(trained: Sequence[Trained], metric: str = "nDCG@10") -> Trained:
    """The one with the best held-out queries; the first without any."""
    return max(trained, key=lambda each: each.metrics.get(metric, 0.0))
