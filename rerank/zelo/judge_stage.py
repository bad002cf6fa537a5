"""The judges of a recipe: made, priced, asked, and a note left of what was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.errors import BadStage, JudgingStopped
from rerank.evaluation.beir import read_qrels
from rerank.remote.client import key_from_environment

from .chat_judges import ChatJudge, chat_judge
from .judges import HumanJudge, QrelsJudge
from .judging import Judge
from .recipe import CHAT_KINDS, JudgeRecipe
from .records import Header, input_digest, is_current, read_header, write_stage
from .spending import Price, Spending, money
from .stages import DO_IDS_AGREE, ask_judges, estimate_judging

JUDGED = "judged"
OWN_OPTIONS = {"model", "url", "key_env", "input_price", "output_price", "answer_tokens"}


@dataclass(frozen=True)
class Estimate:
    """`costs`: judge -> what it would cost, in the currency of the prices. `unpriced`: judges that
    may cost something, nobody knows how much."""

    costs: Mapping[str, float]
    unpriced: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return sum(self.costs.values())

    @property
    def is_free(self) -> bool:
        return not self.total and not self.unpriced

    def is_within(self, budget: float | None) -> bool:
        """Whether `budget` can hold what is asked: no budget does, nor any where a price is
        unknown. One that is too small is another matter, see `ask`."""
        return budget is not None and not self.unpriced

    def sentence(self) -> str:
        each = ", ".join(f"{name} {money(cost)}" for name, cost in self.costs.items() if cost)
        parts = []
        if self.total:
            parts.append(f"Judging would cost about {money(self.total)} ({each}).")
        if self.unpriced:
            parts.append(
                f"No price is known of {', '.join(self.unpriced)}: set input_price and "
                "output_price, 0 for a free endpoint; no budget holds without them."
            )
        return " ".join(parts)


@dataclass(frozen=True)
class Judged:
    """`names`: of the judges, under which their answers are kept. `cost`: of this asking."""

    path: Path
    names: tuple[str, ...]
    was_current: bool = False
    cost: float = 0.0
    sentences: tuple[str, ...] = ()


@contextmanager
def open_judges(recipes: Sequence[JudgeRecipe], device: str = "auto") -> Iterator[list[Judge]]:
    """Keys are read from the environment here. Raises BadRecipe, BadStage, BadInput and what
    loading a model raises."""
    judges = [_judge(recipe, device) for recipe in recipes]
    try:
        yield judges
    finally:
        for judge in judges:
            if isinstance(judge, ChatJudge):
                judge.close()


def already_judged(header: Header, output: Path, answers: Path) -> Judged | None:
    """What asking the same judges for the same pairs left; None when it was not finished."""
    if not (answers.exists() and is_current(output, header)):
        return None
    notes = read_header(output).notes
    return Judged(output, tuple(notes["names"]), True, 0.0, tuple(notes["sentences"]))


def judged_header(
    candidates: Path, pairs: Path, judges: Sequence[JudgeRecipe], seed: int
) -> Header:
    """Asking is done again when candidates, pairs, judges or a judge's own file change."""
    files = {f"judge {at}": each.path for at, each in enumerate(judges, start=1)}
    own = {
        name: input_digest(path) if path.is_file() else weights_digest(path)
        for name, path in files.items()
        if path is not None
    }
    return Header(
        JUDGED,
        {"candidates": input_digest(candidates), "pairs": input_digest(pairs), **own},
        {"judges": [_settings(each) for each in judges], "seed": seed},
    )


def weights_digest(directory: Path) -> str:
    """sha256 of a model's weights, whatever lies beside them. Raises BadStage for none."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise BadStage(f"{directory} holds no weights of a model.")
    return hashlib.sha256("".join(map(input_digest, weights)).encode()).hexdigest()


def estimate(
    candidates: Path, pairs: Path, answers: Path, judges: Sequence[Judge], seed: int
) -> Estimate:
    """Asks nobody."""
    costs = estimate_judging(candidates, pairs, answers, judges, seed=seed)
    unpriced = [j.name for j in judges if isinstance(j, ChatJudge) and j.price is None]
    return Estimate(costs, tuple(unpriced))


def judge(
    header: Header,
    candidates: Path,
    pairs: Path,
    answers: Path,
    output: Path,
    judges: Sequence[Judge],
    *,
    budget: float | None = None,
    spending: Spending | None = None,
) -> Judged:
    """Asks what is not answered yet, and leaves the note `output`. Raises JudgingStopped, BadStage;
    answers so far are kept."""
    seed = header.settings["seed"]
    report = ask_judges(
        candidates, pairs, answers, judges, seed=seed, budget=budget, spending=spending
    )
    silent = [each for each in report.judges if not each.answered + each.kept]
    if len(silent) == len(report.judges) and any(each.asked for each in report.judges):
        told = ["No judge gave a preference for any pair.", *report.sentences()]
        if any(each.abstained for each in silent):
            told.append(DO_IDS_AGREE)
        raise JudgingStopped(" ".join(told))
    names = tuple(each.name for each in judges)
    sentences = tuple(report.sentences())
    notes = {"names": list(names), "cost": report.cost, "sentences": list(sentences)}
    write_stage(output, Header(header.stage, header.made_from, header.settings, notes), [])
    return Judged(output, names, False, report.cost, sentences)


def _settings(recipe: JudgeRecipe) -> dict[str, Any]:
    """What answers depend on: how fast or at what price they come is not among it."""
    idle = {"parallel", "timeout_seconds", "max_retries", "key_env", "url"}
    idle |= {"input_price", "output_price", "answer_tokens"}
    options = {key: value for key, value in recipe.options.items() if key not in idle}
    return {"kind": recipe.kind, "options": options}


def _judge(recipe: JudgeRecipe, device: str) -> Judge:
    options = dict(recipe.options)
    if recipe.kind in CHAT_KINDS:
        rest = {key: value for key, value in options.items() if key not in OWN_OPTIONS}
        variable = options.get("key_env", "")
        return chat_judge(
            recipe.kind,
            options["model"],
            url=options.get("url", ""),
            key=key_from_environment(variable),
            key_name=variable,
            price=_price(options),
            **rest,
        )
    assert recipe.path is not None
    if recipe.kind == "qrels":
        grades = read_qrels(recipe.path)
        return QrelsJudge(grades, **{**options, "name": _name_of_file(recipe)})
    if recipe.kind == "people":
        return HumanJudge(recipe.path, **{**options, "name": _name_of_file(recipe)})
    from .pairwise import PairwiseJudge

    # The same weights have the same name, and so the same answers, wherever they lie.
    return PairwiseJudge(recipe.path, f"pairwise {weights_digest(recipe.path)[:16]}", device)


def _name_of_file(recipe: JudgeRecipe) -> str:
    """Answers are kept by name, so a file that was changed has another: it is asked anew."""
    assert recipe.path is not None
    return f"{recipe.options.get('name', recipe.kind)} {input_digest(recipe.path)[:8]}"


def _price(options: Mapping[str, Any]) -> Price | None:
    if "input_price" not in options:
        return None
    tokens = {"output_tokens": options["answer_tokens"]} if "answer_tokens" in options else {}
    return Price(options["input_price"], options["output_price"], **tokens)
