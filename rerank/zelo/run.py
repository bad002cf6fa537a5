"""The whole pipeline by a recipe, in one directory: run again, it goes on where it was.

Each stage leaves a file that says what it was made of; one whose inputs and settings are the same
is kept. `round-0` is the first pass, each further one a second pass on failures.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rerank.errors import RerankError, StageFailed
from rerank.evaluation.beir import read_qrels

from .answers import AnswerBook
from .calibration_stage import fit_calibration
from .candidates import Choice, find_candidates, find_mined, query_texts
from .checkpoint_stage import keep_checkpoint
from .evaluation_stage import AFTER, STEP_0, evaluate_models
from .judge_stage import already_judged, estimate, judge, judged_header, open_judges
from .mined_stage import qrels_beside
from .model_scores import served, serving, untrained
from .progress import watched
from .recipe import JudgeRecipe, Recipe, Training
from .records import Outcome as StageOutcome
from .records import input_digest, read_header
from .score_stage import score_documents
from .second_pass import Score, add_failures
from .spending import SPENDING, Spending
from .stages import combine_answers, make_pairs
from .training_stage import NOTE, Trained, best_of, check_training, train_pairwise, train_pointwise
from .training_stage import Watch as TrainingWatch
from .watching import Event, Stopped, Watch

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Outcome:
    """`state` "unapproved": judging costs money, nobody allowed it, and nobody was asked;
    `sentences` say how much. `checkpoint`: the trained reranker, None without [pointwise] or before
    there was one. `evaluation`: the file of the table, None where nothing is measured."""

    state: Literal["done", "cancelled", "unapproved"]
    directory: Path
    checkpoint: Path | None = None
    evaluation: Path | None = None
    cost: float = 0.0
    sentences: tuple[str, ...] = ()

    @property
    def table(self) -> Mapping[str, Any] | None:
        """folder -> row -> means and differences (evaluation_stage.py)."""
        if self.evaluation is None:
            return None
        found: Mapping[str, Any] = read_header(self.evaluation).notes["table"]
        return found


def run(
    recipe: Recipe,
    directory: Path,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    approved: bool = False,
    command: tuple[str, ...] = (),
) -> Outcome:
    """From candidates to a checkpoint and a table.

    Judges that cost money are asked only with a budget in the recipe or `approved`. `stopped` is
    asked several times a second. Raises StageFailed: a sentence that begins with the stage's name.
    """
    work = _Run(recipe, directory, on_event, stopped, approved, command or tuple(sys.argv))
    try:
        with _alone_in(directory):
            return work.through()
    except Stopped:
        return Outcome("cancelled", directory, None, None, work.cost, tuple(work.sentences))
    except _Unapproved as told:
        return Outcome("unapproved", directory, sentences=(*work.sentences, str(told)))


class _Unapproved(Exception):
    """Carries the estimate as a sentence."""


@dataclass
class _Round:
    """Files of one pass. `asked`: the pairs the judges answer."""

    number: int
    folder: Path
    asked: Path
    trained: list[Trained] = field(default_factory=list)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        directory: Path,
        on_event: Callable[[Event], None],
        stopped: Callable[[], bool],
        approved: bool,
        command: tuple[str, ...],
    ) -> None:
        self.directory = directory
        self.on_event, self.stopped = on_event, stopped
        self.approved, self.command = approved, command
        self.candidates = recipe.data.candidates or directory / "candidates.jsonl"
        mined = qrels_beside(self.candidates)
        self.recipe = recipe.with_qrels(mined) if recipe.data.rows else recipe
        self.cost = 0.0
        self.sentences: list[str] = []
        self._said: set[str] = set()

    def through(self) -> Outcome:
        recipe = self.recipe
        if recipe.data.folder is not None:
            self._find_candidates(recipe.data.folder, self.candidates, "candidates")
        elif recipe.data.rows:
            with self._stage("candidates") as watch:
                self._finish(watch, find_mined(recipe, self.candidates))
        round_ = self._first_round()
        self._train(round_)
        for number in range(1, recipe.second_pass.rounds + 1):
            following = self._next_round(round_, number)
            if following is None:
                break
            self._train(following)
            round_ = following
        if not round_.trained:
            return Outcome("done", self.directory, cost=self.cost, sentences=tuple(self.sentences))
        checkpoint = self._keep_best(round_, self._calibrate(round_))
        evaluation = self._evaluate(round_) if recipe.evaluation.folders else None
        said = tuple(self.sentences)
        return Outcome("done", self.directory, checkpoint, evaluation, self.cost, said)

    def _find_candidates(self, folder: Path, output: Path, stage: str) -> None:
        data, is_evaluation = self.recipe.data, stage != "candidates"
        split, most = data.split, data.queries
        without: frozenset[str] = frozenset()
        if is_evaluation:
            split, most = self.recipe.evaluation.split, self.recipe.evaluation.queries
            without = query_texts(self.candidates)
        with self._stage(stage) as watch:
            choice = Choice(split, most, self.recipe.seed, without)
            self._finish(watch, find_candidates(self.recipe, folder, output, choice))

    def _first_round(self) -> _Round:
        recipe, folder = self.recipe, self.directory / "round-0"
        pairs = recipe.pairs
        if recipe.pairwise is None:
            asked = folder / "pairs.jsonl"
            degrees = {"degree": pairs.degree, "bridge_degree": pairs.bridge_degree}
        else:
            asked = folder / "gold-pairs.jsonl"
            degrees = {"gold": pairs.gold, "bridge_degree": pairs.gold_bridge_degree}
        self._make_pairs(asked, degrees, 0)
        return _Round(0, folder, asked)

    def _make_pairs(self, output: Path, degrees: dict[str, int], number: int) -> None:
        if not self.recipe.fit.offsets:
            degrees = {**degrees, "bridge_degree": 0}
        with self._stage("pairs", number) as watch:
            outcome = make_pairs(self.candidates, output, seed=self.recipe.seed, **degrees)
            self._finish(watch, outcome)

    def _next_round(self, before: _Round, number: int) -> _Round | None:
        """None where no query fails any more."""
        recipe, folder = self.recipe, self.directory / f"round-{number}"
        assert recipe.data.qrels is not None
        best = best_of(before.trained)
        output = folder / before.asked.name

        def score() -> Score:
            return served(str(best.checkpoint), recipe.device)

        with self._stage("second pass", number) as watch:
            outcome = add_failures(
                self.candidates,
                before.asked,
                recipe.data.qrels,
                read_qrels,
                output,
                score,
                worst_rank=recipe.second_pass.worst_rank,
                model=input_digest(best.directory / NOTE),
            )
            round_ = _Round(number, folder, output)
            fails = bool(read_header(output).notes["failures"])
            if fails:
                # What was answered before is not asked again.
                name = "answers" if recipe.pairwise is None else "gold-answers"
                AnswerBook(round_.file(name)).add(AnswerBook(before.file(name)))
            self._finish(watch, outcome)
        return round_ if fails else None

    def _train(self, round_: _Round) -> None:
        """From the judges' answers to the pointwise models of a round."""
        recipe = self.recipe
        if recipe.pairwise is None:
            names = self._judge(round_, round_.asked, "answers", recipe.judges)
            self._combine(round_, round_.asked, "answers", "preferences", names)
        else:
            names = self._judge(round_, round_.asked, "gold-answers", recipe.judges)
            self._combine(round_, round_.asked, "gold-answers", "gold-preferences", names)
            model = self._train_pairwise(round_, recipe.pairwise)
            pairs = self.directory / "pairs.jsonl"
            bridge_degree = recipe.pairs.bridge_degree if recipe.pairs.gold_bridge_degree else 0
            degrees = {"degree": recipe.pairs.degree, "bridge_degree": bridge_degree}
            self._make_pairs(pairs, degrees, round_.number)
            judges = [JudgeRecipe("model", model)]
            names = self._judge(round_, pairs, "answers", judges, "pairwise judging")
            self._combine(round_, pairs, "answers", "preferences", names)
        with self._stage("scores", round_.number) as watch:
            fit = recipe.fit
            outcome = score_documents(
                self.candidates,
                round_.file("preferences"),
                round_.file("scores"),
                link=fit.link,
                ridge=fit.ridge,
                offset_ridge=fit.offset_ridge,
                mean_target=fit.mean_target,
            )
            self._finish(watch, outcome)
        if recipe.pointwise is not None:
            for seed in recipe.pointwise.seeds:
                round_.trained.append(self._train_pointwise(round_, recipe.pointwise, seed))

    def _judge(
        self,
        round_: _Round,
        pairs: Path,
        name: str,
        judges: Sequence[JudgeRecipe],
        stage: str = "judging",
    ) -> tuple[str, ...]:
        recipe, answers = self.recipe, round_.file(name)
        note = round_.file(name.replace("answers", "judged"))
        with self._stage(stage, round_.number) as watch:
            header = judged_header(self.candidates, pairs, judges, recipe.seed)
            found = already_judged(header, note, answers)
            if found is None:
                with open_judges(judges, recipe.device) as opened:
                    cost = estimate(self.candidates, pairs, answers, opened, recipe.seed)
                    budget = recipe.judging.budget
                    if not cost.is_free:
                        self._check_trainings()
                        self._say(watch, cost.sentence())
                        if not self.approved and not cost.is_within(budget):
                            raise _Unapproved("Set a budget in the recipe, or say yes to go on.")
                    found = judge(
                        header,
                        self.candidates,
                        pairs,
                        answers,
                        note,
                        opened,
                        budget=budget,
                        # One ledger for all rounds, and for all starts of the run.
                        spending=Spending(self.directory / SPENDING),
                    )
            self.cost += found.cost
            self._finish(watch, StageOutcome(answers, 0, found.was_current, found.sentences))
        return found.names

    def _check_trainings(self) -> None:
        """Before judges are paid for answers that no training could use."""
        recipe, queries = self.recipe, len(query_texts(self.candidates))
        for name, training in (("Pairwise", recipe.pairwise), ("Pointwise", recipe.pointwise)):
            try:
                if training is not None:
                    check_training(training, queries, recipe.device)
            except RerankError as error:
                raise StageFailed(f"{name} training: {error} Nothing was asked.") from error

    def _combine(
        self, round_: _Round, pairs: Path, answers: str, output: str, names: Sequence[str]
    ) -> None:
        with self._stage("preferences", round_.number) as watch:
            outcome = combine_answers(
                self.candidates,
                pairs,
                round_.file(answers),
                round_.file(output),
                names,
                calibrate=self.recipe.judging.calibrate,
                seed=self.recipe.seed,
            )
            self._finish(watch, outcome)

    def _train_pairwise(self, round_: _Round, training: Training) -> Path:
        with self._stage("pairwise training", round_.number) as watch:
            trained = train_pairwise(
                self.candidates,
                round_.file("gold-preferences"),
                round_.folder / "pairwise",
                training,
                device=self.recipe.device,
                watch=TrainingWatch(watch.training_event, self.stopped),
                command=self.command,
            )
            return self._finished_training(watch, trained)

    def _train_pointwise(self, round_: _Round, training: Training, seed: int) -> Trained:
        with self._stage("pointwise training", round_.number) as watch:
            trained = train_pointwise(
                self.candidates,
                round_.file("scores"),
                round_.folder / f"pointwise-{seed}",
                training,
                seed=seed,
                device=self.recipe.device,
                watch=TrainingWatch(watch.training_event, self.stopped),
                command=self.command,
            )
            self._finished_training(watch, trained)
            return trained

    def _finished_training(self, watch: Watch, trained: Trained) -> Path:
        if trained.was_cancelled or trained.checkpoint is None:
            raise Stopped
        outcome = StageOutcome(trained.checkpoint, 0, trained.was_current, trained.sentences)
        self._finish(watch, outcome)
        return trained.checkpoint

    def _calibrate(self, round_: _Round) -> Path:
        recipe, output = self.recipe, round_.file("calibration")
        checkpoint = best_of(round_.trained).checkpoint
        assert checkpoint is not None
        unjudged = any(each.options.get("unjudged") == "irrelevant" for each in recipe.judges)
        with self._stage("calibration", round_.number) as watch:
            outcome = fit_calibration(
                self.candidates,
                round_.file("scores"),
                checkpoint,
                output,
                lambda: serving(str(checkpoint), recipe.device),
                qrels=recipe.data.qrels,
                unjudged_count=unjudged,
            )
            self._finish(watch, outcome)
        return output

    def _keep_best(self, round_: _Round, calibration: Path) -> Path:
        output = self.directory / CHECKPOINT
        with self._stage("checkpoint", round_.number) as watch:
            notes = {
                "recipe": self.recipe.name,
                "rounds": round_.number + 1,
                "sentences": list(self.sentences),
            }
            keep_checkpoint(
                self.directory, output, self.candidates, round_.trained, calibration, notes
            )
            self._finish(watch, StageOutcome(output, 0))
        return output

    def _evaluate(self, round_: _Round) -> Path:
        from rerank.training.checkpoint import add_to_manifest

        recipe, best = self.recipe, best_of(round_.trained)
        assert recipe.pointwise is not None
        pointwise = recipe.pointwise
        folders = {}
        for folder in recipe.evaluation.folders:
            found = self.directory / "evaluation" / f"{folder.name}.jsonl"
            self._find_candidates(folder, found, "evaluation candidates")
            folders[folder] = found
        sources = {AFTER: (best.directory / NOTE, str(self.directory / CHECKPOINT))}
        if len(round_.trained) > 1:
            for each in round_.trained:
                row = each.directory.name.replace("pointwise-", "seed ")
                sources[row] = (each.directory / NOTE, str(each.checkpoint))
        models = {STEP_0: repr(pointwise.as_json())}
        models |= {row: input_digest(note) for row, (note, _) in sources.items()}

        def load(row: str) -> Score:
            if row == STEP_0:
                return untrained(pointwise, recipe.device, pointwise.seeds[0])
            return served(sources[row][1], recipe.device)

        output = self.directory / "evaluation.jsonl"
        with self._stage("evaluation", round_.number) as watch:
            outcome = evaluate_models(folders, output, models, load, split=recipe.evaluation.split)
            table = read_header(output).notes["table"]
            add_to_manifest(self.directory / CHECKPOINT, notes={"evaluation": table})
            self._finish(watch, outcome)
        return output

    @contextmanager
    def _stage(self, name: str, number: int = 0) -> Iterator[Watch]:
        watch = Watch(name, number, self.on_event, self.stopped)
        if self.stopped():
            raise Stopped
        watch.tell("started")
        try:
            with watched(watch.step):
                yield watch
        except (RerankError, OSError) as error:
            if isinstance(error, StageFailed):
                raise
            where = f"{name}, round {number}" if number else name
            reason = error if isinstance(error, RerankError) else f"{error.strerror or error}."
            raise StageFailed(f"{where[0].upper()}{where[1:]}: {reason}") from error

    def _finish(self, watch: Watch, outcome: StageOutcome) -> None:
        for sentence in outcome.sentences:
            self._say(watch, sentence)
        watch.tell("done", kept=outcome.was_current)

    def _say(self, watch: Watch, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.sentences.append(sentence)
            watch.tell("note", sentence=sentence)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Raises StageFailed where another run is at work there, or nothing can be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise StageFailed(f"{directory} cannot be written: {error.strerror or error}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StageFailed(f"Another run is at work in {directory}.") from error
        yield
