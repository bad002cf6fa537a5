"""The built-in reranker from its data to its table.

    python -m benches.default_model ../shared/datasets --directory var/default-model

Mines lists from FOLDER/train, fits the six numbers of the untrained model ("step 0") to them,
compares with the file that is shipped (--ship writes it), and measures on FOLDER/eval by
benches.ship_gate. With --train it goes on: a challenger is trained from there, mixed half-way with
step 0, and measured. Started again it goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.default_head import (
    FittedHead,
    digest_of,
    fit_head,
    furthest,
    matched,
    report,
    source_of,
    usable,
)
from benches.default_lists import (
    ALL_SOURCES,
    HEAD_SOURCES,
    TOKENS,
    file_of,
    kept_lists,
    missing_files,
    untrained_reader,
)
from benches.default_training import (
    SHARE,
    VALIDATED,
    Training,
    halfway,
    settle_head,
    step_0,
    train_challenger,
    trained_files,
)
from benches.report import Report
from benches.ship_gate import QUERIES, STEP_0, holds, table
from benches.stages import Stages
from rerank.errors import RerankError
from rerank.inference.fingerprint import fingerprint
from rerank.inference.fused_head import BUILT_IN_HEAD, Head, read_head, write_head
from rerank.inference.loading import quietly
from rerank.inference.models import embedder_facts
from rerank.training.examples import TrainingList

COMMAND = "python -m benches.default_model FOLDER --ship"
HEAD_FILE = "head.json"
# Two machines' arithmetic may differ by so much in a number of the head.
SAME = 0.005
CHALLENGER, MIXED = "trained", "mixed"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def made_from(
    folder: Path, lists: Sequence[TrainingList], fitted: FittedHead, number_format: str
) -> dict[str, Any]:
    """The manifest of the head: the same for the same data, code and number format."""
    base = embedder_facts("")
    counts = Counter(source_of(each) for each in lists)
    files = [file_of(name, folder) for name in HEAD_SOURCES]
    return {
        "command": COMMAND,
        "fitted to": "the hybrid first stage's first candidates of held-out training queries",
        "base": {"name": base.name, "weights": fingerprint(base.directory)},
        "number format": number_format,
        "tokens of a document": TOKENS,
        "seed": 0,
        "lists": dict(counts),
        "lists in all": len(lists),
        "lists sha256": digest_of(lists),
        "95 % intervals": {
            "prior": [round(end, 2) for end in fitted.weights.prior_interval],
            "match": [round(end, 2) for end in fitted.weights.match_interval],
        },
        "nDCG@10 of these lists": {name: round(v, 4) for name, v in fitted.qualities.items()},
        "files sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
        },
    }


def fit_step_0(folder: Path, directory: Path, held_out: Sequence[TrainingList], ship: bool) -> Head:
    """Fits the head into DIRECTORY/head.json and says how it stands to the shipped one, which it
    becomes with `ship`."""
    lists = usable([each for each in held_out if source_of(each) in HEAD_SOURCES])
    reader = untrained_reader()
    read = matched(lists, reader)
    fitted = fit_head(read)
    made = made_from(folder, lists, fitted, reader.card.dtype)
    head = write_head(directory / HEAD_FILE, fitted.head, made)
    shipped = known_head(BUILT_IN_HEAD)
    if shipped is None:
        say("No head is shipped yet.")
    elif shipped == head:
        say("The head is that of the shipped model, to the last digit.")
    else:
        gap = furthest(shipped, head)
        same = "the shipped model, but for rounding" if gap <= SAME else "not the shipped model"
        say(f"The head is {same}: the largest difference of a number is {gap:.4f}.")
        say(report(shipped, fitted, read))
    if ship:
        write_head(BUILT_IN_HEAD, fitted.head, made)
        say("It is the shipped model's head now.")
    return head


def known_head(file: Path) -> Head | None:
    try:
        return read_head(file)
    except RerankError as error:
        say(str(error))
        return None


def verdict(model: str, tables: Sequence[Report]) -> str:
    """One line: the mean beside the hybrid's on each half, and whether the gate holds."""
    parts = []
    for each in tables:
        mean = next(row for row in each.parts["nDCG@10"] if row["set"] == "mean")
        passed = "passes the gate" if holds(each, model) else "does not pass the gate"
        half = each.name.rsplit("_", 1)[-1]
        parts.append(f"{half} half {mean[model]:.4f} (hybrid {mean['hybrid']:.4f}), {passed}")
    return f"Verdict, {model}: {'; '.join(parts)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train/ and eval/")
    parser.add_argument("--directory", type=Path, default=Path("var/default-model"))
    parser.add_argument(
        "--ship", action="store_true", help="write the fitted head into the package"
    )
    parser.add_argument("--train", action="store_true", help="train and measure a challenger")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="its settings")
    parser.add_argument("--lists", type=int, default=0, help="it learns from only so many")
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--queries", type=int, default=QUERIES, help="of each set's half, at most")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--cache", type=Path, default=Path("var/ship-gate"), help="of the tables")
    options = parser.parse_args()
    names = ALL_SOURCES if options.train else HEAD_SOURCES
    if missing := missing_files(names, options.folder):
        parser.error(f"{options.folder} lacks {', '.join(str(file) for file in missing)}")
    if not options.no_table and not (options.folder / "eval").is_dir():
        parser.error(f"{options.folder} has no eval/ to measure on; or ask for --no-table")
    timed = Stages(options.directory / "stages.json")
    training, held_out = kept_lists(options.folder, options.directory, names, timed)
    say(f"{len(training):,} lists to learn from, {len(held_out):,} held out")
    with timed("head of step 0"):
        start = step_0(fit_step_0(options.folder, options.directory, held_out, options.ship))

    def measured(half: str, files: dict[str, Any]) -> Report:
        with timed(f"table of the {half} half, {', '.join(files)}"):
            judged = options.folder / "eval"
            return table(judged, files, half, options.out, options.cache, None, options.queries)

    if not options.no_table:
        say(verdict(STEP_0, [measured(half, {STEP_0: start}) for half in ("dev", "final")]))
    if not options.train:
        return
    changed = dict(each.split("=", 1) for each in options.set)
    plan = Training(options.seed, options.lists, changed)
    own = options.directory / plan.name
    outcome = train_challenger(start, training, held_out, plan, own)
    say(str(outcome))
    # Of all its runs together.
    timed.note(f"training {plan.name}", outcome.seconds)
    checkpoint = own / "checkpoint"
    mixed = options.directory / f"{plan.name}-mixed" / "checkpoint"
    with timed(f"heads of {plan.name}"):
        halfway(start, checkpoint, mixed, SHARE)
        for each in (checkpoint, mixed):
            say(f"{each}: {settle_head(each, held_out[::VALIDATED])}")
    if options.no_table:
        return
    files = {STEP_0: start, CHALLENGER: trained_files(CHALLENGER, checkpoint)}
    files[MIXED] = trained_files(MIXED, mixed)
    tables = [measured("dev", files)]
    say(verdict(CHALLENGER, tables))
    # The final half is for a model that is chosen.
    if holds(tables[0], MIXED):
        tables.append(measured("final", {STEP_0: start, MIXED: files[MIXED]}))
    say(verdict(MIXED, tables))
    passed = all(holds(each, MIXED) for each in tables)
    say(f"{mixed} may become the default." if passed else "Step 0 stays the default.")


if __name__ == "__main__":
    try:
        with quietly():
            main()
    except RerankError as error:
        sys.exit(str(error))
