"""Many contrasts, mixed by kind and origin, and the files of training made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rerank.errors import BadInput
from rerank.training.examples import TrainingList
from rerank.zelo.records import (
    Candidates,
    Document,
    Header,
    Outcome,
    Record,
    write_candidates,
    write_stage,
)

from .composed import composed
from .contrasts import LABEL_KINDS, UNSEEN_KINDS, Contrast, Priors
from .wrapped import Row, Rows

# "train": wordings and domains of training; "wording", "domain": one of the two is new; "held_out":
# both are, and so are the kinds of UNSEEN_KINDS.
Split = Literal["train", "wording", "domain", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "wording", "domain", "held_out")
KINDS = ("recency", "version", *LABEL_KINDS, "facet", "priority", "form", "term")
DEFAULT_ROWS_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """`count` contrasts, each four lists. `rows_share`: of them around given passages, in [0, 1].
    `kinds`: () for all that the split and the rows allow, in equal parts."""

    count: int
    seed: int = 0
    split: Split = "train"
    rows_share: float = DEFAULT_ROWS_SHARE
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises BadInput for values that make no sense."""
        if self.count < 1:
            raise BadInput(f"The count is {self.count}; it must be at least 1.")
        if self.split not in SPLITS:
            raise BadInput(f"There is no split {self.split!r}: it is one of {', '.join(SPLITS)}.")
        if not 0 <= self.rows_share <= 1:
            raise BadInput(f"The share of rows is {self.rows_share}, not within 0 and 1.")

    @property
    def held_wording(self) -> bool:
        return self.split in ("wording", "held_out")

    @property
    def held_domain(self) -> bool:
        return self.split in ("domain", "held_out")


def contrasts(plan: Plan, rows: Sequence[Row] = ()) -> Iterator[Contrast]:
    """The same for the same plan and rows. Raises BadInput for unknown kinds and for rows of which
    too few are usable."""
    given = Rows(rows, plan.held_domain) if rows and plan.rows_share > 0 else None
    own_kinds, row_kinds = _kinds(plan, given)
    taken = made = 0
    for at in range(plan.count):
        name = f"{plan.split}-{plan.seed}-{at:06}"
        # Evenly spread, so that the first part of a longer plan is a shorter plan.
        is_row = int((at + 1) * plan.rows_share) > int(at * plan.rows_share)
        if given is not None and row_kinds and (is_row or not own_kinds):
            kind = row_kinds[taken % len(row_kinds)]
            taken += 1
            yield given.contrast(name, kind, held_wording=plan.held_wording, seed=plan.seed)
            continue
        kind = own_kinds[made % len(own_kinds)]
        made += 1
        yield composed(
            name,
            kind,
            held_wording=plan.held_wording,
            held_domain=plan.held_domain,
            seed=plan.seed,
        )


def _kinds(plan: Plan, given: Rows | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of composed documents and those of given passages."""
    own = KINDS + (UNSEEN_KINDS if plan.split == "held_out" else ())
    of_rows = given.kinds() if given else ()
    if plan.split != "held_out":
        of_rows = tuple(kind for kind in of_rows if kind not in UNSEEN_KINDS)
    unknown = [kind for kind in plan.kinds if kind not in (*own, *of_rows)]
    if unknown:
        raise BadInput(
            f"There are no contrasts of the kind {unknown[0]!r} here: choose from "
            f"{', '.join(dict.fromkeys((*own, *of_rows)))}."
        )
    if plan.kinds:
        own = tuple(kind for kind in own if kind in plan.kinds)
        of_rows = tuple(kind for kind in of_rows if kind in plan.kinds)
    return own, of_rows


def training_lists(
    plan: Plan, rows: Sequence[Row] = (), priors: Priors | None = None
) -> Iterator[TrainingList]:
    """Four for each contrast: under opposite instructions, none, and one beside the matter.
    `priors`: for bases that start from the first stage's scores."""
    for contrast in contrasts(plan, rows):
        yield from contrast.lists(priors)


def scores_path(output: Path) -> Path:
    """Where the targets of the candidates in `output` lie: "x.jsonl" -> "x.scores.jsonl"."""
    return output.with_name(f"{output.stem}.scores.jsonl")


def write_training(output: Path, plan: Plan, rows: Sequence[Row] = ()) -> Outcome:
    """Writes candidates with instructions to `output` and beside it their targets, as the stage
    `scores` does. Raises BadInput, BadStage."""
    made = list(contrasts(plan, rows))
    settings: dict[str, Any] = {
        "count": plan.count,
        "seed": plan.seed,
        "split": plan.split,
        "rows_share": plan.rows_share if rows else 0.0,
        "kinds": list(plan.kinds),
        "rows": len(rows),
    }
    counts = dict(Counter(each.kind for each in made))
    sentences = (f"{len(made)} contrasts of the split {plan.split}, each four queries.",)
    header = Header("scores", {}, settings, {"kinds": counts, "sentences": sentences})
    lists = [each for contrast in made for each in contrast.lists()]
    write_candidates(output, (_candidates(each) for each in lists))
    written = write_stage(scores_path(output), header, (_scores(each) for each in lists))
    return Outcome(output, written, sentences=sentences)


def _candidates(each: TrainingList) -> Candidates:
    documents = tuple(
        Document(f"{each.query_id}-{at}", text) for at, text in enumerate(each.documents)
    )
    return Candidates(each.query_id, each.query, documents, each.instruction)


def _scores(each: TrainingList) -> Record:
    return {
        "query_id": each.query_id,
        "documents": [
            {"id": f"{each.query_id}-{at}", "target": target}
            for at, target in enumerate(each.targets)
        ],
    }
