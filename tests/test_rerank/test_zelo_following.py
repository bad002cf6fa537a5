"""The measure of following instructions, on rerankers whose obedience is known beforehand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rerank.__main__ import main
from rerank.errors import BadInput
from rerank.types import ModelCard, RerankRequest, RerankScores
from rerank.zelo.instructions.contrasts import Contrast
from rerank.zelo.instructions.following import evaluate_following
from rerank.zelo.instructions.generate import Plan, contrasts, scores_path
from rerank.zelo.records import read_candidates, read_stage

CONTRASTS = list(contrasts(Plan(120, seed=4, split="held_out")))
AIMS = {
    (contrast.query, case.instruction, document): target
    for contrast in CONTRASTS
    for case in contrast.cases
    for document, target in zip(contrast.documents, case.targets, strict=True)
}


class By:
    """A reranker whose score is a function of query, instruction and document."""

    card = ModelCard("by rule", "", "CPU", "float32")

    def __init__(self, score_of: Callable[[str, str, str], float]) -> None:
        self.score_of = score_of
        self.priors: list[Sequence[float] | None] = []

    def score(self, request: RerankRequest) -> RerankScores:
        self.priors.append(request.priors)
        told = request.instruction or ""
        values = np.array(
            [self.score_of(request.query, told, text) for text in request.documents],
            dtype=np.float32,
        )
        return RerankScores(values, values, "sigmoid", truncated=1)


def obedient(query: str, told: str, text: str) -> float:
    return AIMS[query, told, text]


def deaf(query: str, told: str, text: str) -> float:
    """Never reads the instruction; tells all texts apart."""
    return AIMS[query, "", text] + (sum(map(ord, text)) % 997) / 1e5


def test_a_reranker_that_obeys_gets_everything_right() -> None:
    found = evaluate_following(By(obedient), CONTRASTS).kinds["all"]
    assert found.contrasts == 120
    for share in (found.either, found.both, found.topic_alone, found.topic_beside):
        assert share.value == 1.0
    assert found.topic_told.value == 1.0
    assert found.damage.value == found.reordered.value == 0.0
    assert found.shift.value > 0.3
    assert 0.96 < found.both.low < found.both.high == pytest.approx(1.0)


def test_a_reranker_that_ignores_instructions_is_right_half_the_time_and_never_under_both() -> None:
    found = evaluate_following(By(deaf), CONTRASTS).kinds["all"]
    assert found.either.value == 0.5
    assert found.both.value == 0.0
    assert 0.0 < found.both.high < 0.04
    assert found.shift.value == pytest.approx(0.0, abs=1e-6)
    assert found.topic_alone.value == 1.0
    assert found.damage.value == found.reordered.value == 0.0


def test_a_reranker_that_does_the_opposite_gets_nothing_right() -> None:
    found = evaluate_following(By(lambda *pair: -obedient(*pair)), CONTRASTS).kinds["all"]
    assert found.either.value == found.both.value == 0.0
    assert found.shift.value < -0.3
    assert found.topic_alone.value == 0.0


def test_chance_is_right_under_both_a_quarter_of_the_time() -> None:
    random = np.random.default_rng(11)
    found = evaluate_following(By(lambda *_: float(random.random())), CONTRASTS).kinds["all"]
    assert found.both.low < 0.25 < found.both.high
    assert found.either.low < 0.5 < found.either.high
    assert found.topic_alone.low < 0.5 < found.topic_alone.high
    assert found.reordered.low < 0.5 < found.reordered.high


def test_equal_scores_count_as_wrong() -> None:
    found = evaluate_following(By(lambda *_: 0.5), CONTRASTS).kinds["all"]
    assert found.either.value == found.both.value == found.topic_alone.value == 0.0
    assert found.reordered.value == 0.0


def test_damage_is_what_an_instruction_beside_the_matter_takes() -> None:
    beside = {contrast.case("beside").instruction for contrast in CONTRASTS}

    def confused(query: str, told: str, text: str) -> float:
        return -AIMS[query, told, text] if told in beside else AIMS[query, told, text]

    found = evaluate_following(By(confused), CONTRASTS[:50]).kinds["all"]
    assert found.topic_alone.value == 1.0
    assert found.topic_beside.value == 0.0
    assert found.damage.value == 1.0
    assert found.reordered.value > 0.3


def test_metadata_that_outweighs_the_question_shows() -> None:
    def blind(query: str, told: str, text: str) -> float:
        """Reads the instruction, but not whether the question is answered."""
        aim = AIMS[query, told, text]
        return aim if aim > 0.05 else 1.0

    found = evaluate_following(By(blind), CONTRASTS).kinds["all"]
    assert found.both.value == 1.0
    assert found.topic_told.value == 0.0


def test_each_kind_has_its_line_and_json_says_the_same() -> None:
    report = evaluate_following(By(obedient), CONTRASTS)
    assert set(report.kinds) == {each.kind for each in CONTRASTS} | {"all"}
    assert list(report.kinds)[-1] == "all"
    assert sum(found.contrasts for found in report.kinds.values()) == 2 * len(CONTRASTS)
    assert report.truncated == 4 * len(CONTRASTS)
    lines = report.as_text().splitlines()
    assert len(lines) == len(report.kinds) + 1
    assert lines[-1].split()[:2] == ["all", "120"]
    told = json.loads(json.dumps(report.as_json()))
    assert told["kinds"]["all"]["both"]["value"] == 1.0


def test_priors_are_handed_to_the_reranker_and_know_no_instruction() -> None:
    reranker = By(obedient)
    evaluate_following(reranker, CONTRASTS[:2], priors=lambda query, texts: [0.5] * len(texts))
    assert len(reranker.priors) == 8
    assert all(set(each or ()) == {0.5} for each in reranker.priors)


def test_a_contrast_of_answers_alone_leaves_the_topic_unmeasured() -> None:
    first = CONTRASTS[0]
    kept = [first.first, first.second]
    pair: Contrast = dataclasses.replace(
        first,
        documents=tuple(first.documents[at] for at in kept),
        facts=tuple(first.facts[at] for at in kept),
        first=0,
        second=1,
        cases=tuple(
            dataclasses.replace(case, targets=tuple(case.targets[at] for at in kept))
            for case in first.cases
        ),
    )
    found = evaluate_following(By(obedient), [pair]).kinds["all"]
    assert found.both.value == 1.0
    assert math.isnan(found.topic_alone.value)


def test_lists_for_training_carry_the_priors_of_their_documents() -> None:
    lists = CONTRASTS[0].lists(lambda query, texts: [len(text) / 1000 for text in texts])
    assert len(lists) == 4
    for each in lists:
        assert each.priors == tuple(len(text) / 1000 for text in each.documents)
    assert CONTRASTS[0].lists()[0].priors is None


def test_the_command_measures_the_built_in_reranker(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["zelo", "following", "--count", "4", "--kinds", "recency", "term", "--device", "cpu"]
    assert main(asked) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(shown[0]) == "untrained, split held_out, seed 0"
    assert [line[:2] for line in shown[2:5]] == [["recency", "2"], ["term", "2"], ["all", "4"]]


def test_the_command_writes_training_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "told.jsonl"
    assert main(["zelo", "instructions", "--count", "11", "--output", str(output)]) == 0
    assert "44 queries" in capsys.readouterr().out
    assert len(list(read_candidates(output))) == 44
    assert len(list(read_stage(scores_path(output), "scores"))) == 44


def test_the_commands_refuse_what_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zelo", "instructions", "--count", "0", "--output", str(tmp_path / "x")]) == 2
    assert main(["zelo", "following", "--rows", str(tmp_path / "none.jsonl")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "The count is 0; it must be at least 1."
    assert said[1].endswith("none.jsonl cannot be read: No such file or directory.")


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(BadInput, match="no contrasts to measure on"):
        evaluate_following(By(deaf), [])
