"""Each stage of the pipeline by itself: files in, a file out."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rerank.commands.numbers import at_least, between
from rerank.commands.zelo_run import CANCELLED, UNAPPROVED, TrainingBar, stop_flag
from rerank.errors import BadInput, BadRecipe
from rerank.ranking.calibration_file import FILE_NAME, save_model_calibration
from rerank.zelo.calibration_stage import fit_calibration, read_calibration
from rerank.zelo.candidates import Choice, find_candidates, find_mined
from rerank.zelo.evaluation_stage import AFTER, evaluate_models, evaluation_table
from rerank.zelo.judge_stage import estimate, judge, judged_header, open_judges
from rerank.zelo.links import LINKS
from rerank.zelo.mined_stage import qrels_beside
from rerank.zelo.model_scores import served, serving
from rerank.zelo.offsets import DEFAULT_OFFSET_RIDGE
from rerank.zelo.recipe import Training, read_recipe
from rerank.zelo.records import Outcome, read_header
from rerank.zelo.score_stage import score_documents
from rerank.zelo.scoring import DEFAULT_RIDGE
from rerank.zelo.spending import SPENDING, Spending
from rerank.zelo.stages import DEFAULT_BRIDGE_DEGREE, DEFAULT_DEGREE, combine_answers, make_pairs
from rerank.zelo.training_stage import Trained, Watch, train_pairwise, train_pointwise


@dataclass(frozen=True)
class Stage:
    name: str
    summary: str
    description: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def _files(*names: str) -> Callable[[ArgumentParser], None]:
    """The last one is written."""

    def add(parser: ArgumentParser) -> None:
        for name in names:
            parser.add_argument(name, type=Path, metavar=name.upper())
        parser.set_defaults(read=names[:-1], written=names[-1])

    return add


def refuse_own_inputs(options: Namespace) -> None:
    """Raises BadInput where a stage would write over what it reads."""
    output = getattr(options, options.written)
    for name in options.read:
        if output.resolve() == getattr(options, name).resolve():
            raise BadInput(
                f"{output} would be written over, and it is {name.upper()}: name another "
                f"{options.written.upper()}."
            )


def _candidates(options: Namespace) -> int:
    recipe = read_recipe(options.recipe)
    data = recipe.data
    if data.rows:
        return _told(find_mined(recipe, options.output))
    if data.folder is None:
        raise BadRecipe(
            "The recipe's [data] names no folder and no rows: its candidates are there already."
        )
    choice = Choice(data.split, data.queries, recipe.seed)
    return _told(find_candidates(recipe, data.folder, options.output, choice))


def _pairs_arguments(parser: ArgumentParser) -> None:
    _files("candidates", "output")(parser)
    parser.add_argument(
        "--degree", type=at_least(2), default=DEFAULT_DEGREE, help="of a document (8)"
    )
    parser.add_argument(
        "--bridge-degree", type=at_least(0), default=DEFAULT_BRIDGE_DEGREE, help="of a query (8)"
    )
    parser.add_argument(
        "--gold", type=at_least(0), default=0, help="so many pairs a query instead of the graph"
    )
    parser.add_argument("--seed", type=at_least(0), default=0)


def _pairs(options: Namespace) -> int:
    outcome = make_pairs(
        options.candidates,
        options.output,
        degree=options.degree,
        bridge_degree=options.bridge_degree,
        gold=options.gold,
        seed=options.seed,
    )
    return _told(outcome)


def _judge_arguments(parser: ArgumentParser) -> None:
    _files("recipe", "candidates", "pairs", "answers")(parser)
    parser.add_argument(
        "--yes", action="store_true", help="ask judges that cost money without a budget"
    )


def _judge(options: Namespace) -> int:
    recipe = read_recipe(options.recipe)
    if recipe.data.rows:
        recipe = recipe.with_qrels(qrels_beside(options.candidates))
    candidates, pairs, answers = options.candidates, options.pairs, options.answers
    header = judged_header(candidates, pairs, recipe.judges, recipe.seed)
    with open_judges(recipe.judges, recipe.device) as judges:
        cost = estimate(candidates, pairs, answers, judges, recipe.seed)
        if not cost.is_free:
            sys.stdout.write(f"{cost.sentence()}\n")
            if not options.yes and not cost.is_within(recipe.judging.budget):
                sys.stdout.write(f"Nothing was asked. {UNAPPROVED}\n")
                return 1
        found = judge(
            header,
            candidates,
            pairs,
            answers,
            _note_of(answers),
            judges,
            budget=recipe.judging.budget,
            spending=Spending(answers.parent / SPENDING),
        )
    for sentence in found.sentences:
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{answers}: answers of {', '.join(found.names)}\n")
    return 0


def _combine_arguments(parser: ArgumentParser) -> None:
    _files("candidates", "pairs", "answers", "output")(parser)
    parser.add_argument(
        "--judges",
        nargs="+",
        metavar="NAME",
        help="whose answers count (default: all that `zelo judge` asked)",
    )
    parser.add_argument("--plain", action="store_true", help="all judges count alike")
    parser.add_argument(
        "--seed",
        type=at_least(0),
        help="as when they were asked (default: what `zelo judge` noted)",
    )


def _combine(options: Namespace) -> int:
    note, seed, names = _note_of(options.answers), options.seed, options.judges
    if not names or (seed is None and note.is_file()):
        asked = read_header(note)
        names = names or asked.notes.get("names", [])
        # The order a judge was shown is drawn by the seed, and its answers are found by it.
        seed = asked.settings.get("seed", 0) if seed is None else seed
    outcome = combine_answers(
        options.candidates,
        options.pairs,
        options.answers,
        options.output,
        names,
        calibrate=not options.plain,
        seed=seed or 0,
    )
    return _told(outcome)


def _fit_arguments(parser: ArgumentParser) -> None:
    _files("candidates", "preferences", "output")(parser)
    parser.add_argument("--link", choices=list(LINKS), default="thurstone")
    parser.add_argument("--ridge", type=float, default=DEFAULT_RIDGE, help=f"({DEFAULT_RIDGE:g})")
    parser.add_argument(
        "--offset-ridge", type=float, default=DEFAULT_OFFSET_RIDGE, help="of queries"
    )
    parser.add_argument("--mean-target", type=between(0, 1), default=0.5, help="(0.5)")


def _fit(options: Namespace) -> int:
    outcome = score_documents(
        options.candidates,
        options.preferences,
        options.output,
        link=options.link,
        ridge=options.ridge,
        offset_ridge=options.offset_ridge,
        mean_target=options.mean_target,
    )
    return _told(outcome)


def _pairwise(options: Namespace) -> int:
    recipe = read_recipe(options.recipe)
    training = _wanted(recipe.pairwise, "pairwise")
    with stop_flag() as stop, TrainingBar() as bar:
        trained = train_pairwise(
            options.candidates,
            options.preferences,
            options.directory,
            training,
            device=recipe.device,
            watch=Watch(partial(bar.move, "pairwise training"), stop.is_set),
            command=tuple(sys.argv),
        )
    return _trained(trained)


def _pointwise_arguments(parser: ArgumentParser) -> None:
    _files("recipe", "candidates", "scores", "directory")(parser)
    parser.add_argument("--seed", type=at_least(0), help="(default: the recipe's first)")


def _pointwise(options: Namespace) -> int:
    recipe = read_recipe(options.recipe)
    training = _wanted(recipe.pointwise, "pointwise")
    with stop_flag() as stop, TrainingBar() as bar:
        trained = train_pointwise(
            options.candidates,
            options.scores,
            options.directory,
            training,
            seed=training.seeds[0] if options.seed is None else options.seed,
            device=recipe.device,
            watch=Watch(partial(bar.move, "pointwise training"), stop.is_set),
            command=tuple(sys.argv),
        )
    return _trained(trained)


def _calibrate_arguments(parser: ArgumentParser) -> None:
    _files("candidates", "scores", "checkpoint", "output")(parser)
    parser.add_argument("--qrels", type=Path, help="human judgments (default: the targets)")
    parser.add_argument(
        "--unjudged-count", action="store_true", help="documents nobody judged are not relevant"
    )
    parser.add_argument("--device", default="auto")


def _calibrate(options: Namespace) -> int:
    outcome = fit_calibration(
        options.candidates,
        options.scores,
        options.checkpoint,
        options.output,
        lambda: serving(str(options.checkpoint), options.device),
        qrels=options.qrels,
        unjudged_count=options.unjudged_count,
    )
    if (fitted := read_calibration(outcome.path)) is not None:
        save_model_calibration(options.checkpoint, fitted)
        sys.stdout.write(f"{options.checkpoint / FILE_NAME} is written.\n")
    return _told(outcome)


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", help="a checkpoint, or any other reranker")
    _files("folder", "candidates", "output")(parser)
    parser.add_argument("--split", default="test", help="of the folder's qrels (test)")
    parser.add_argument("--device", default="auto")


def _evaluate(options: Namespace) -> int:
    outcome = evaluate_models(
        {options.folder: options.candidates},
        options.output,
        {AFTER: options.model},
        lambda row: served(options.model, options.device),
        split=options.split,
    )
    sys.stdout.write(evaluation_table(outcome.path))
    return 0


def _wanted(training: Training | None, table: str) -> Training:
    if training is None:
        raise BadRecipe(f"The recipe has no [{table}] table, which this stage needs.")
    return training


def _trained(trained: Trained) -> int:
    if trained.was_cancelled:
        sys.stdout.write("Stopped. The same command goes on from here.\n")
        return CANCELLED
    if os.environ.get("RANK", "0") != "0":
        # Under torchrun one process speaks.
        return 0
    for name, value in trained.metrics.items():
        before = f", before the first step {trained.before[name]:.4f}"
        sys.stdout.write(f"{name} {value:.4f}{before if name in trained.before else ''}\n")
    for sentence in trained.sentences:
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{trained.checkpoint}{': kept' if trained.was_current else ''}\n")
    return 0


def _told(outcome: Outcome) -> int:
    for sentence in outcome.sentences:
        sys.stdout.write(f"{sentence}\n")
    kept = ", kept" if outcome.was_current else ""
    sys.stdout.write(f"{outcome.path}: {outcome.records:,} queries{kept}\n")
    return 0


def _note_of(answers: Path) -> Path:
    """What `zelo judge` leaves beside the answers."""
    return answers.with_suffix(".judged.jsonl")


STAGES = (
    Stage(
        "candidates",
        "the first stage over the recipe's folder or rows -> candidates",
        "The best documents of each query, by words and meaning, with the first stage's scores; of "
        "rows, answers with hard negatives.",
        _files("recipe", "output"),
        _candidates,
    ),
    Stage(
        "pairs",
        "which documents to compare: candidates -> pairs",
        "Random cycles over each query's documents, and comparisons between queries.",
        _pairs_arguments,
        _pairs,
    ),
    Stage(
        "judge",
        "what the recipe's judges answer: candidates, pairs -> answers",
        "Answers are kept one by one; what is answered is not asked again.",
        _judge_arguments,
        _judge,
    ),
    Stage(
        "combine",
        "one preference a pair: candidates, pairs, answers -> preferences",
        "Judges are weighed by how reliable they prove; one that chooses by place is left out.",
        _combine_arguments,
        _combine,
    ),
    Stage(
        "fit",
        "scores and targets: candidates, preferences -> scores",
        "One score a document with its deviation, one scale for all queries, targets in [0, 1].",
        _fit_arguments,
        _fit,
    ),
    Stage(
        "train-pairwise",
        "a model that answers as the judges do: candidates, preferences -> directory",
        "By [pairwise] of the recipe. Stopped and started again, it goes on where it was.",
        _files("recipe", "candidates", "preferences", "directory"),
        _pairwise,
    ),
    Stage(
        "train-pointwise",
        "the reranker: candidates, scores -> directory",
        "By [pointwise] of the recipe. Stopped and started again, it goes on where it was.",
        _pointwise_arguments,
        _pointwise,
    ),
    Stage(
        "calibrate",
        "what a checkpoint's scores are worth: candidates, scores, checkpoint -> a map",
        "By the queries that its training held out. The map is written into the checkpoint, too.",
        _calibrate_arguments,
        _calibrate,
    ),
    Stage(
        "evaluate",
        "nDCG@10 before and after a model: judged folder and its candidates -> table",
        "The first stage's order beside the model's, with paired bootstrap intervals.",
        _evaluate_arguments,
        _evaluate,
    ),
)
