"""What the training changed: judged folders in the first stage's order, reranked by the untrained
base, and by the trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerank.evaluation.beir import read_folder
from rerank.ranking.metrics import per_query
from rerank.ranking.significance import compare

from .progress import Bar
from .records import (
    Candidates,
    Header,
    Outcome,
    Record,
    input_digest,
    is_current,
    read_candidates,
    read_header,
    untouched,
    write_stage,
)
from .second_pass import Score

BEFORE, STEP_0, AFTER = "before", "step 0", "after"
MEASURE = "nDCG@10"


def evaluate_models(
    folders: Mapping[Path, Path],
    output: Path,
    models: Mapping[str, str],
    load: Callable[[str], Score],
    *,
    split: str = "test",
) -> Outcome:
    """nDCG@10 of each query: `{"query_id": "<folder>/<id>", "values": {row: value}}`; the notes'
    `table` has the means and the differences with their intervals (`significance.compare`).

    `folders`: judged folder -> candidates of its queries. `models`: row of the table -> what stands
    for its content, for the header; `load` opens one by its row. The row `before` is the first
    stage's order, to which equal scores fall. Raises BadStage, BadInput and what loading raises.
    """
    made_from = {}
    for folder, candidates in folders.items():
        made_from[f"{folder.name} candidates"] = input_digest(candidates)
        made_from[f"{folder.name} qrels"] = input_digest(folder / "qrels" / f"{split}.tsv")
    header = Header("evaluation", made_from, {"models": dict(models), "split": split})
    if is_current(output, header):
        return untouched(output)
    queries = {folder.name: list(read_candidates(path)) for folder, path in folders.items()}
    orders = _orders(queries, models, load)
    values: dict[str, dict[str, dict[str, float]]] = {}
    for folder in folders:
        name = folder.name
        qrels = read_folder(folder, split).qrels
        kept = {each.query_id: qrels[each.query_id] for each in queries[name]}
        values[name] = {
            row: per_query(run, kept, [MEASURE])[MEASURE] for row, run in orders[name].items()
        }
    rows = {name: _rows(found) for name, found in values.items()}
    if len(rows) > 1:
        rows["mean of folders"] = _mean_rows(rows)
    table = {"measure": MEASURE, "folders": rows}
    header = Header(header.stage, header.made_from, header.settings, {"table": table})
    return Outcome(output, write_stage(output, header, _records(values)))


def evaluation_table(path: Path) -> str:
    """The table for people, of a file `evaluate_models` wrote. Raises BadStage."""
    table = read_header(path).notes["table"]
    lines = []
    for name, rows in table["folders"].items():
        count = rows[BEFORE].get("queries")
        lines.append(f"{name}: {table['measure']}" + (f", {count:,} queries" if count else ""))
        for row, figures in rows.items():
            line = f"  {row:<16}{figures['mean']:>8.4f}"
            for other, gap in figures.get("minus", {}).items():
                line += (
                    f"   minus {other} {gap['difference']:+.4f} "
                    f"[{gap['low']:+.4f}, {gap['high']:+.4f}] p = {gap['p_value']:.4f}"
                )
            lines.append(line)
    lines.append("Intervals: paired bootstrap over queries, 95 %; p: paired randomisation test.")
    return "\n".join(lines) + "\n"


def _orders(
    queries: Mapping[str, Sequence[Candidates]],
    models: Mapping[str, str],
    load: Callable[[str], Score],
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """folder -> row -> run. One model is in memory at a time."""
    orders: dict[str, dict[str, dict[str, dict[str, float]]]] = {
        name: {BEFORE: {each.query_id: _run(each, None) for each in found}}
        for name, found in queries.items()
    }
    total = len(models) * sum(map(len, queries.values()))
    with Bar("evaluation", "queries", total) as bar:
        for row in models:
            score = load(row)
            for name, found in queries.items():
                orders[name][row] = {}
                for each in found:
                    orders[name][row][each.query_id] = _run(each, score(each))
                    bar.update(1)
    return orders


def _run(query: Candidates, scores: Sequence[float] | None) -> dict[str, float]:
    """id -> minus its place: ties of a model fall to the first stage's order."""
    places = range(len(query.documents))
    order = places if scores is None else sorted(places, key=lambda at: -scores[at])
    return {query.documents[at].id: -float(rank) for rank, at in enumerate(order)}


def _rows(values: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for row, found in values.items():
        minus = {
            other: {
                key: round(value, 4)
                for key, value in asdict(compare(values[other], found)).items()
                if key in {"difference", "low", "high", "p_value"}
            }
            for other in (BEFORE, STEP_0)
            if row not in {BEFORE, STEP_0} and other in values
        }
        mean = sum(found.values()) / max(1, len(found))
        rows[row] = {"mean": round(mean, 4), "queries": len(found)}
        if minus:
            rows[row]["minus"] = minus
    return rows


def _mean_rows(folders: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(iter(folders.values()))
    return {
        row: {"mean": round(sum(each[row]["mean"] for each in folders.values()) / len(folders), 4)}
        for row in first
    }


def _records(values: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Record]:
    for name, rows in values.items():
        for query_id in rows[BEFORE]:
            yield {
                "query_id": f"{name}/{query_id}",
                "values": {row: round(found[query_id], 6) for row, found in rows.items()},
            }
