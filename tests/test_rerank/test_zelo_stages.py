"""From candidates to targets, file by file: each stage alone, resumed, repeated and misused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from rerank.errors import BadStage, JudgingStopped
from rerank.zelo.judges import LocalJudge
from rerank.zelo.judging import Comparison, Judge, Verdict
from rerank.zelo.links import THURSTONE
from rerank.zelo.records import (
    Candidates,
    Document,
    Header,
    is_current,
    read_candidates,
    read_header,
    read_stage,
    write_candidates,
    write_stage,
)
from rerank.zelo.score_stage import score_documents
from rerank.zelo.spending import Price
from rerank.zelo.stages import ask_judges, combine_answers, estimate_judging, make_pairs

QUERIES, DOCUMENTS = 12, 20


class Run:
    """The files of one run, over documents whose text says how good they are."""

    def __init__(self, folder: Path, sizes: Sequence[int] = (DOCUMENTS,) * QUERIES) -> None:
        random = np.random.default_rng(0)
        self.candidates = folder / "candidates.jsonl"
        self.pairs = folder / "pairs.jsonl"
        self.answers = folder / "answers.jsonl"
        self.preferences = folder / "preferences.jsonl"
        self.scores = folder / "scores.jsonl"
        # Easy queries have good documents, hopeless ones bad ones.
        self.worth = {
            f"q{at}": random.normal(size=size) + (2.0 * at / max(1, len(sizes) - 1) - 1.0)
            for at, size in enumerate(sizes)
        }
        write_candidates(
            self.candidates,
            [
                Candidates(
                    query_id,
                    f"query {query_id}",
                    tuple(Document(f"d{at}", f"worth {w:.12f}") for at, w in enumerate(worth)),
                )
                for query_id, worth in self.worth.items()
            ],
        )

    def judge(self, shown: Sequence[Comparison]) -> list[float | None]:
        gaps = [float(each.a.text[6:]) - float(each.b.text[6:]) for each in shown]
        return [float(each) for each in THURSTONE.probability(np.array(gaps))]

    def through(self, judges: Sequence[Judge] | None = None, **options: Any) -> None:
        judges = judges or [LocalJudge("exact", self.judge)]
        make_pairs(self.candidates, self.pairs)
        ask_judges(self.candidates, self.pairs, self.answers, judges)
        names = [judge.name for judge in judges]
        combine_answers(
            self.candidates, self.pairs, self.answers, self.preferences, names, **options
        )
        score_documents(self.candidates, self.preferences, self.scores)

    def found(self, field: str = "score") -> dict[str, list[float]]:
        return {
            record["query_id"]: [document[field] for document in record["documents"]]
            for record in read_stage(self.scores, "scores")
        }


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_exact_judge_gives_the_true_order_and_targets_that_compare_across_queries(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.through(calibrate=False)
    scores, aims = run.found(), run.found("target")
    for query_id, worth in run.worth.items():
        assert kendalltau(worth, scores[query_id])[0] > 0.95
        assert abs(sum(scores[query_id])) < 1e-3
    every = np.concatenate(list(aims.values()))
    assert ((every > 0) & (every < 1)).all()
    assert every.mean() == pytest.approx(0.5, abs=1e-4)
    assert kendalltau(np.concatenate(list(run.worth.values())), every)[0] > 0.8
    assert np.mean(aims["q0"]) < np.mean(aims["q11"]) - 0.2


def test_files_say_what_they_were_made_of_and_hold_one_query_a_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.through()
    for path, stage in (
        (run.pairs, "pairs"),
        (run.preferences, "preferences"),
        (run.scores, "scores"),
    ):
        header, *records = lines(path)
        assert header["stage"] == stage
        assert len(header["made_from"]["candidates"]) == 64
        assert [record["query_id"] for record in records] == list(run.worth)
    pairs = lines(run.pairs)[1]["pairs"]
    assert len(pairs) == DOCUMENTS * 8 // 2
    notes = read_header(run.preferences).notes
    assert notes["raters"][0]["name"] == "exact"


def test_a_stage_with_nothing_new_does_nothing_and_a_setting_changes_that(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.through()
    before = run.pairs.stat().st_mtime_ns
    outcome = make_pairs(run.candidates, run.pairs)
    assert outcome.was_current and outcome.records == QUERIES
    assert run.pairs.stat().st_mtime_ns == before
    assert not make_pairs(run.candidates, run.pairs, seed=1).was_current
    assert not make_pairs(run.candidates, run.pairs, degree=4).was_current
    assert score_documents(run.candidates, run.preferences, run.scores).was_current
    assert not score_documents(
        run.candidates, run.preferences, run.scores, link="bradley-terry"
    ).was_current


def test_the_pairs_of_a_query_do_not_depend_on_the_other_queries(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make_pairs(run.candidates, run.pairs)
    before = {record["query_id"]: record["pairs"] for record in read_stage(run.pairs, "pairs")}
    write_candidates(run.candidates, list(read_candidates(run.candidates))[3:])
    make_pairs(run.candidates, run.pairs)
    for record in read_stage(run.pairs, "pairs"):
        assert record["pairs"] == before[record["query_id"]]


def test_asking_goes_on_where_a_kill_ended_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make_pairs(run.candidates, run.pairs)
    asked: list[str] = []

    def dying(shown: Sequence[Comparison]) -> list[float | None]:
        if len(asked) >= 300:
            raise KeyboardInterrupt
        asked.extend(each.key for each in shown)
        return run.judge(shown)

    with pytest.raises(KeyboardInterrupt):
        ask_judges(run.candidates, run.pairs, run.answers, [LocalJudge("j", dying)])
    known = len(run.answers.read_text().splitlines())
    assert known == len(asked) >= 300
    report = ask_judges(run.candidates, run.pairs, run.answers, [LocalJudge("j", run.judge)])
    total = QUERIES * 80 + QUERIES * 8 // 2
    assert report.judges[0].kept == known
    assert report.judges[0].kept + report.judges[0].answered == total


SLOW_ASKING = """
import sys, time
from pathlib import Path
from rerank.zelo.judges import LocalJudge
from rerank.zelo.stages import ask_judges

def slow(shown):
    time.sleep(0.2)
    return [0.5 for _ in shown]

ask_judges(*map(Path, sys.argv[1:]), [LocalJudge("j", slow)])
"""


def test_a_process_killed_while_asking_loses_nothing_that_was_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make_pairs(run.candidates, run.pairs)
    paths = [str(path) for path in (run.candidates, run.pairs, run.answers)]
    process = subprocess.Popen([sys.executable, "-c", SLOW_ASKING, *paths])
    deadline = time.monotonic() + 60
    while not run.answers.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() < 0
    known = len(run.answers.read_text().splitlines())
    assert 0 < known < QUERIES * 80
    report = ask_judges(run.candidates, run.pairs, run.answers, [LocalJudge("j", run.judge)])
    assert report.judges[0].kept == known


def test_gold_pairs_are_few_and_have_as_many_bridges_as_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for degree, bridges in ((0, 0), (2, QUERIES)):
        make_pairs(run.candidates, run.pairs, gold=1, bridge_degree=degree)
        records = list(read_stage(run.pairs, "pairs"))
        assert [len(record["pairs"]) for record in records] == [1] * QUERIES
        assert sum(len(record["bridges"]) for record in records) == bridges


@pytest.mark.parametrize("sizes", [(0, 1, 2, 3), (1,), (0,), (2, 2)])
def test_the_smallest_queries_pass_all_stages(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    run = Run(tmp_path, sizes)
    run.through()
    found = run.found("target")
    assert [len(values) for values in found.values()] == list(sizes)
    for query_id, worth in run.worth.items():
        assert np.array_equal(np.argsort(worth), np.argsort(found[query_id]))


def test_copies_of_a_document_are_compared_once_and_share_their_score(tmp_path: Path) -> None:
    run = Run(tmp_path, (6,))
    query = next(iter(read_candidates(run.candidates)))
    copies = tuple(Document(f"copy{at}", f"  {query.documents[2].text} \n") for at in range(3))
    doubled = Candidates(query.query_id, query.query, query.documents + copies)
    write_candidates(run.candidates, [doubled])
    run.through()
    assert not [pair for pair in lines(run.pairs)[1]["pairs"] if "copy" in "".join(pair)]
    documents = {each["id"]: each for each in lines(run.scores)[1]["documents"]}
    assert len(documents) == 9
    for at in range(3):
        assert {**documents[f"copy{at}"], "id": "d2"} == documents["d2"]


def test_a_broken_judge_is_named_in_the_file_and_hardly_counts(tmp_path: Path) -> None:
    run = Run(tmp_path)
    random = np.random.default_rng(1)
    judges = [
        LocalJudge("one", run.judge),
        LocalJudge("two", run.judge),
        LocalJudge("dice", lambda shown: [float(v) for v in random.random(len(shown))]),
    ]
    run.through(judges)
    header = read_header(run.preferences)
    assert any("answers of dice" in sentence for sentence in header.notes["sentences"])
    exact = run.found()
    for query_id, worth in run.worth.items():
        assert kendalltau(worth, exact[query_id])[0] > 0.95
    # The same answers with everybody believed alike are worse.
    names = [judge.name for judge in judges]
    combine_answers(run.candidates, run.pairs, run.answers, run.preferences, names, calibrate=False)
    score_documents(run.candidates, run.preferences, run.scores)
    plain = run.found()
    worse = [
        kendalltau(worth, plain[query_id])[0] < kendalltau(worth, exact[query_id])[0]
        for query_id, worth in run.worth.items()
    ]
    assert all(worse)


def test_a_judge_that_chooses_by_place_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    stuck = LocalJudge("stuck", lambda shown: [1.0] * len(shown))
    run.through([LocalJudge("exact", run.judge), stuck])
    header = read_header(run.preferences)
    assert [rater["name"] for rater in header.notes["raters"]] == ["exact"]
    assert any("stuck is left out" in sentence for sentence in header.notes["sentences"])


def test_pairs_without_answers_are_left_out_and_unconnected_documents_are_said(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, (10, 10))
    make_pairs(run.candidates, run.pairs)

    def silent_on_d0(shown: Sequence[Comparison]) -> list[Verdict]:
        values = run.judge(shown)
        return [
            Verdict(None) if "d0" in (each.a.document_id, each.b.document_id) else Verdict(value)
            for each, value in zip(shown, values, strict=True)
        ]

    class Shy(LocalJudge):
        def prefer(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
            return silent_on_d0(comparisons)

    ask_judges(run.candidates, run.pairs, run.answers, [Shy("shy", run.judge)])
    outcome = combine_answers(run.candidates, run.pairs, run.answers, run.preferences, ["shy"])
    assert any("pairs have no answer" in sentence for sentence in outcome.sentences)
    scored = score_documents(run.candidates, run.preferences, run.scores)
    assert any("In 2 of 2 queries" in sentence for sentence in scored.sentences)
    first = lines(run.scores)[1]
    assert first["components"] == 2
    deviations = [document["deviation"] for document in first["documents"]]
    assert deviations[0] > 3 * max(deviations[1:])


def test_without_bridges_the_targets_say_what_they_are_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make_pairs(run.candidates, run.pairs, bridge_degree=0)
    ask_judges(run.candidates, run.pairs, run.answers, [LocalJudge("j", run.judge)])
    combine_answers(run.candidates, run.pairs, run.answers, run.preferences, ["j"])
    scored = score_documents(run.candidates, run.preferences, run.scores)
    assert any("No comparison joins different queries" in each for each in scored.sentences)
    assert {record["offset"] for record in read_stage(run.scores, "scores")} == {0.0}


def test_the_estimate_comes_before_the_bill(tmp_path: Path) -> None:
    run = Run(tmp_path)
    make_pairs(run.candidates, run.pairs)

    class Paid(LocalJudge):
        def expected_tokens(self, comparison: Comparison) -> int:
            return 100

    judge = Paid("dear", run.judge)
    judge.price = Price(10.0, 0.0)
    total = QUERIES * 80 + QUERIES * 8 // 2
    expected = estimate_judging(run.candidates, run.pairs, run.answers, [judge])
    assert expected == {"dear": pytest.approx(total * 100 * 10 / 1e6)}
    assert not run.answers.exists()
    with pytest.raises(JudgingStopped, match="Nothing was asked"):
        ask_judges(run.candidates, run.pairs, run.answers, [judge], budget=0.5)
    assert not run.answers.exists()


def test_stages_out_of_order_are_refused_in_words(tmp_path: Path) -> None:
    run = Run(tmp_path)
    judges = [LocalJudge("j", run.judge)]
    with pytest.raises(BadStage, match=r"pairs.jsonl is missing: run the stage"):
        ask_judges(run.candidates, run.pairs, run.answers, judges)
    make_pairs(run.candidates, run.pairs)
    with pytest.raises(BadStage, match=r"answers.jsonl is missing"):
        combine_answers(run.candidates, run.pairs, run.answers, run.preferences, ["j"])
    with pytest.raises(BadStage, match="written by the stage pairs, not by preferences"):
        score_documents(run.candidates, run.pairs, run.scores)
    run.answers.write_text("")
    with pytest.raises(BadStage, match="answers none of the pairs"):
        combine_answers(run.candidates, run.pairs, run.answers, run.preferences, ["j"])
    with pytest.raises(BadStage, match="no link 'elo'"):
        score_documents(run.candidates, run.pairs, run.scores, link="elo")


def test_files_of_another_run_are_noticed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.through()
    write_candidates(run.candidates, [Candidates("q0", "query", (Document("other", "worth 1"),))])
    with pytest.raises(BadStage, match="Run the stage pairs again"):
        ask_judges(run.candidates, run.pairs, run.answers, [LocalJudge("j", run.judge)])
    with pytest.raises(BadStage, match="run the stages before again"):
        score_documents(run.candidates, run.preferences, run.scores)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "Line 2 of .* is not JSON"),
        ("[1]", "no JSON object"),
        ('{"query_id": "x"}', "no query with candidates"),
        ('{"query_id": "x", "query": 3, "documents": []}', "no query with candidates"),
        ('{"query_id": "x", "query": "", "documents": [{"id": "d"}]}', "no query with candidates"),
        (
            '{"query_id": "x", "query": "", "documents": '
            '[{"id": "d", "text": ""}, {"id": "d", "text": "b"}]}',
            "names a document twice",
        ),
        ('{"query_id": "q0", "query": "", "documents": []}', "repeats the query q0"),
    ],
)
def test_candidates_that_cannot_be_read_are_named_by_line(
    tmp_path: Path, line: str, words: str
) -> None:
    run = Run(tmp_path, (2,))
    with run.candidates.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadStage, match=words):
        make_pairs(run.candidates, run.pairs)
    assert not run.pairs.exists()


def test_a_stage_that_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "stage.jsonl"
    write_stage(path, Header("s"), [{"query_id": "old"}])

    def failing() -> Any:
        yield {"query_id": "new"}
        raise OSError(28, "No space left on device")

    with pytest.raises(BadStage, match="No space left"):
        write_stage(path, Header("s"), failing())
    assert [record["query_id"] for record in read_stage(path, "s")] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("below", ["stage.jsonl", "folder/stage.jsonl"])
def test_a_place_below_a_file_is_named_whether_read_or_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "notes").write_text("a file, where a folder was meant")
    path = tmp_path / "notes" / below
    with pytest.raises(BadStage, match=r"above it is a file, not a folder\. Name another place"):
        write_stage(path, Header("s"), [{"query_id": "q"}])
    with pytest.raises(BadStage, match="cannot be read: Not a directory"):
        read_header(path)
    assert not is_current(path, Header("s"))
    assert [each.name for each in tmp_path.iterdir()] == ["notes"]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stage.jsonl").mkdir()
    with pytest.raises(BadStage, match="cannot be written: Is a directory"):
        write_stage(tmp_path / "stage.jsonl", Header("s"), [{"query_id": "q"}])
    assert [each.name for each in tmp_path.iterdir()] == ["stage.jsonl"]


def test_the_stages_load_no_torch() -> None:
    code = (
        "import sys, rerank.zelo.stages, rerank.zelo.score_stage, rerank.zelo.chat_judges, "
        "rerank.zelo.judges; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_progress_is_silent_where_nobody_watches(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Run(tmp_path).through()
    assert capfd.readouterr() == ("", "")
