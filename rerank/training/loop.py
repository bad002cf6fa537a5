"""The training itself: steps over lists or pairs, validation, states to go on from."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from rerank.errors import TrainingFailed
from rerank.inference.weights import refuse_broken_weights

from . import bases
from .bases import Trainable
from .checkpoint import Manifest, recover, surroundings, write_checkpoint
from .events import Event, EventLog
from .examples import Examples, PairExample, check, digest
from .order import steps_of_epoch, steps_per_epoch
from .outcome import Outcome, read_outcome, write_outcome
from .processes import Processes
from .settings import Settings
from .splitting import split
from .state import Progress, load_state, remove_state, save_state, saved_progress
from .steps import StepReader, rough_length, unit_of
from .validation import better, validate

__all__ = ["Event", "Outcome", "train"]

# So many losses in a row that are no numbers send a run back to its last good state.
_BAD_IN_A_ROW = 3
# Where steps are long, a state is saved at least this often.
_SAVE_SECONDS = 600.0


def train(
    base: Trainable,
    examples: Examples,
    settings: Settings,
    *,
    directory: Path,
    held_out: Examples | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    data: Mapping[str, Any] | None = None,
    command: tuple[str, ...] = (),
) -> Outcome:
    """Trains `base` in place and leaves `directory/checkpoint`, `directory/events.jsonl`.

    `held_out`: what to validate on; None splits `settings.held_out` of the examples off by
    splitting.py, () validates on nothing. `stopped` is asked before each step; True saves the state
    and returns "cancelled". Started again with the same base, examples and settings it goes on from
    `directory/state`, and ends with the same weights as a run that was never stopped; a run that
    was done returns its outcome again. `data` and `command` go to the manifest.

    Under torchrun every process calls it with the same arguments; the first one writes. Raises
    TrainingFailed (bad examples, another run's directory, a full disk, losses that are no numbers
    even at half the rate, no memory for the smallest batch).
    """
    check(examples)
    if held_out:
        check(held_out)
    pairs = isinstance(examples[0], PairExample)
    if pairs != (settings.loss == "pair_bce"):
        raise TrainingFailed("The loss pair_bce is for pairs, the other losses are for lists.")
    parts = split(examples, settings.held_out, settings.seed) if held_out is None else None
    sentences = parts.sentences if parts else ()
    if parts:
        examples, held_out = parts.train, parts.held_out
    run = _Run(base, examples, held_out or (), settings, directory, on_event, sentences)
    return run.go(stopped, dict(data or {}), command)


class _Run:
    def __init__(
        self,
        base: Trainable,
        examples: Examples,
        held_out: Examples,
        settings: Settings,
        directory: Path,
        on_event: Callable[[Event], None],
        sentences: tuple[str, ...],
    ) -> None:
        self.base, self.examples, self.held_out = base, examples, held_out
        self.settings, self.directory, self.sentences = settings, directory, sentences
        self.processes = Processes(base.device)
        self.digest = _digest(base, examples, held_out, settings)
        self.per_epoch = steps_per_epoch(len(examples), settings.batch)
        self.steps = self.per_epoch * settings.epochs
        if settings.max_steps:
            self.steps = min(self.steps, settings.max_steps)
        self.validate_every = settings.validate_every or self.per_epoch
        self.lengths = [rough_length(example) for example in examples]
        self.reader = StepReader(base, settings)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self._on_event = on_event
        self._first_step = 0
        self._first_rows = 0
        self._earlier = 0.0
        self._started = self._saved = time.monotonic()

    def go(
        self, stopped: Callable[[], bool], data: dict[str, Any], command: tuple[str, ...]
    ) -> Outcome:
        """Opens or reopens the run, steps to its end, writes the checkpoint."""
        self.data, self.command = {**data, **self._counts()}, command
        if self.processes.is_first:
            recover(self.directory / "checkpoint")
        self.processes.any(False)
        done = read_outcome(self.directory, self.digest)
        if done is not None:
            return done
        self._open()
        while self.progress.step < self.steps and not self._is_patience_over():
            if self.processes.any(stopped()):
                self._save()
                self._tell("cancelled")
                return self._outcome("cancelled")
            self._step()
        return self._finish()

    def _open(self) -> None:
        found = saved_progress(self.directory)
        if found is not None and found.digest != self.digest:
            raise TrainingFailed(
                f"{self.directory} holds a training with other data, settings or another base. "
                "Choose another directory, or remove that one."
            )
        torch.manual_seed(self.settings.seed)
        groups = self.base.parameter_groups(self.settings)
        self.rates = [group["lr"] for group in groups]
        self.optimiser = torch.optim.AdamW(
            [{key: value for key, value in group.items() if key != "names"} for group in groups],
            # Otherwise a step on a GPU takes another copy of all weights.
            fused=True if self.base.device.type == "cuda" else None,
        )
        self.weights = {
            name: weight
            for name, weight in self.base.module.named_parameters()
            if weight.requires_grad
        }
        self.processes.share_weights(self.weights.values())
        self.base.checkpoint_layers(self.settings.checkpointing)
        self.base.module.train()
        self.progress = self._load() or Progress(self.digest)
        self._first_step = self.progress.step
        self._first_rows, self._earlier = self.progress.rows, self.progress.seconds
        self.events = EventLog(
            self.directory, self._on_event, self.processes.is_first, self.progress.step
        )
        self._tell(
            "started",
            sentences=list(self.sentences),
            resumed=self.progress.step > 0,
            examples=len(self.examples),
            held_out=len(self.held_out),
        )
        if self.held_out and self.progress.step == 0:
            self.progress.before = self._validate()

    def _step(self) -> None:
        """One step; skipped where loss or gradient is no number."""
        progress, settings = self.progress, self.settings
        epoch, place = divmod(progress.step, self.per_epoch)
        if self._epoch[0] != epoch:
            order = steps_of_epoch(self.lengths, settings.batch, settings.seed, epoch)
            self._epoch = (epoch, order)
        units = [
            unit_of(self.examples[each], settings, epoch, each) for each in self._epoch[1][place]
        ]
        chance = f"{settings.seed} {progress.step} {self.processes.rank}"
        torch.manual_seed(int(hashlib.sha256(chance.encode()).hexdigest()[:12], 16))
        missed = self.reader.unreadable
        part, read = self.reader.read(units, self.processes.rank, self.processes.count)
        missed = self.reader.unreadable - missed
        loss, rows, unreadable = self.processes.sum([part, float(read), float(missed)])
        self.processes.sum_gradients(self.weights.values())
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), settings.clip)
        is_good = math.isfinite(loss) and math.isfinite(float(norm))
        if is_good:
            progress.bad = 0
            is_late = self.processes.any(time.monotonic() - self._saved > _SAVE_SECONDS)
            if progress.step % settings.save_every == 0 or is_late:
                # Here and not after the step: these weights have just given a number.
                self._save()
        progress.rows += round(rows)
        progress.unreadable += round(unreadable)
        if not is_good:
            self._skip()
            return
        factor = progress.factor * _schedule(progress.step, self.steps, settings.warmup)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if rows:
            self.optimiser.step()
        progress.step += 1
        self._tell(
            "step",
            loss=loss,
            lr=max(self.rates) * factor,
            norm=float(norm),
            rows=progress.rows,
            **self._speed(),
        )
        if progress.step % self.validate_every == 0 or progress.step == self.steps:
            self._validate_and_keep()

    def _skip(self) -> None:
        """Raises TrainingFailed when half the rate did not help."""
        progress = self.progress
        progress.bad += 1
        progress.skipped += 1
        if progress.bad < _BAD_IN_A_ROW:
            progress.step += 1
            self._tell("skipped", loss=None)
            return
        returns, skipped, factor = progress.returns + 1, progress.skipped, progress.factor / 2
        last = self._load() if returns == 1 else None
        if last is None:
            raise TrainingFailed(
                f"The loss was no number {_BAD_IN_A_ROW} times in a row at step "
                f"{progress.step + 1}"
                + (", again with half the rate" if returns > 1 else " before any good step")
                + ". Choose a smaller rate, or full precision instead of autocast; if it happens "
                "at once, the base is broken."
            )
        # The best checkpoint on the disk stays the best, also where it is newer than the state.
        self.progress = replace(
            progress, step=last.step, bad=0, returns=returns, skipped=skipped, factor=factor
        )
        self._save()
        self._tell("returned", loss=None, factor=factor)

    def _validate_and_keep(self) -> None:
        if not self.held_out:
            return
        progress = self.progress
        found = progress.last = self._validate()
        if not found or not better(found, progress.best):
            progress.since_best += 1
            return
        progress.best, progress.best_step, progress.since_best = found, progress.step, 0
        if self.settings.keep_best:
            self._write_checkpoint()

    def _validate(self) -> dict[str, float]:
        found = validate(
            self.base,
            self.held_out,
            self.reader.tokens,
            self.settings.autocast,
            self.processes,
        )
        self._tell("validation", metrics=found)
        return found

    def _is_patience_over(self) -> bool:
        return bool(self.settings.patience) and self.progress.since_best >= self.settings.patience

    def _finish(self) -> Outcome:
        progress = self.progress
        if not progress.rows:
            raise TrainingFailed(
                "No example could be read: the queries leave documents no room, or the texts are "
                "no valid Unicode. Raise max_tokens, or shorten the instruction."
            )
        is_there = (self.directory / "checkpoint").is_dir()
        if progress.best is None or not (is_there and self.settings.keep_best):
            refuse_broken_weights(self.base.name, self.weights.items())
            progress.best, progress.best_step = progress.last or None, progress.step
            self._write_checkpoint()
        outcome = self._outcome("done")
        if self.processes.is_first:
            write_outcome(self.directory, self.digest, outcome)
            remove_state(self.directory)
        self._tell("done", sentences=list(outcome.sentences), metrics=dict(outcome.metrics))
        return outcome

    def _outcome(self, state: Literal["done", "cancelled"]) -> Outcome:
        progress = self.progress
        checkpoint = self.directory / "checkpoint"
        sentences = list(self.sentences)
        if progress.skipped:
            sentences.append(f"{progress.skipped} steps were skipped: their loss was no number.")
        if progress.returns:
            sentences.append("Training went back to a good state once and on at half the rate.")
        if progress.unreadable:
            sentences.append(
                f"{progress.unreadable} times an example was left out: its query leaves documents "
                "no room, or a text is no valid Unicode."
            )
        if state == "done" and progress.step < self.steps:
            sentences.append(
                f"Training ended at step {progress.step} of {self.steps}: the last "
                f"{self.settings.patience} validations were no better than step "
                f"{progress.best_step}."
            )
        return Outcome(
            state,
            checkpoint if checkpoint.is_dir() else None,
            progress.step,
            progress.best_step,
            self._metrics(),
            dict(progress.before),
            progress.skipped,
            self._seconds(),
            tuple(sentences),
        )

    def _write_checkpoint(self) -> None:
        if not self.processes.is_first:
            return
        manifest = Manifest(
            task="pairwise" if self.settings.loss == "pair_bce" else "pointwise",
            base=bases.facts(self.base),
            data=self.data,
            settings=asdict(self.settings),
            metrics=self._metrics(),
            before=dict(self.progress.before),
            steps=self.progress.step,
            skipped=self.progress.skipped,
            seconds=round(self._seconds(), 3),
            seed=self.settings.seed,
            command=self.command,
            device=str(self.base.device),
            **surroundings(),
        )
        write_checkpoint(self.directory / "checkpoint", self.base, manifest)

    def _metrics(self) -> dict[str, float]:
        """Of the checkpoint."""
        return dict((self.progress.best or {}) if self.settings.keep_best else self.progress.last)

    def _counts(self) -> dict[str, Any]:
        unit = "pairs" if self.settings.loss == "pair_bce" else "queries"
        return {
            name: {"sha256": digest(given), unit: len(given)}
            for name, given in (("train", self.examples), ("held_out", self.held_out))
        }

    def _save(self) -> None:
        self.progress.seconds = self._seconds()
        if self.processes.is_first:
            save_state(self.directory, self.progress, self.weights, self.optimiser)
        self._saved = time.monotonic()
        self.processes.any(False)  # nobody goes on before the file is there

    def _load(self) -> Progress | None:
        return load_state(self.directory, self.weights, self.optimiser)

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def _speed(self) -> dict[str, float | None]:
        here = time.monotonic() - self._started
        done = self.progress.step - self._first_step
        left = self.steps - self.progress.step
        return {
            "pairs_per_second": (self.progress.rows - self._first_rows) / max(here, 1e-9),
            "eta_seconds": left * here / done if done > 0 else None,
        }

    def _tell(self, event: str, **more: Any) -> None:
        self.events.add(
            {
                "event": event,
                "step": self.progress.step,
                "steps": self.steps,
                "seconds": round(self._seconds(), 3),
                **more,
            }
        )


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the rate at `step` (from 0): up on a line over the first `warmup` share of the
    steps, then down to 0 behind the last."""
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(steps - rising, 1)


def _digest(base: Trainable, examples: Examples, held_out: Examples, settings: Settings) -> str:
    parts = {
        "kind": base.kind,
        "revision": base.revision,
        "lora": None if base.lora is None else asdict(base.lora),
        "max_tokens": base.max_tokens,
        "settings": asdict(settings),
        "examples": digest(examples),
        "held_out": digest(held_out),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
