"""The pages of judgments and calibration: who may, what they show, what they leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from rerank.ranking.calibration import Platt
from rerank.ranking.confidence import Confidence
from searchapp import tasks
from searchapp.engine import local, presence, remote
from searchapp.models import Calibration, CalibrationState, Collection, Judgment, Passage, Trace
from searchapp.search import calibrated, calibration_charts
from tests.fakes import FakeEmbedder, FakeReranker
from tests.people import KINDS, People, make_people
from tests.shelves import add_document, make_collection

from .test_calibration_fit import QUERIES, NoisyReranker, judge_all, serve

URL = "/collections/pond/calibration/"
STATUS = f"{URL}status/"


@pytest.fixture
def pond(db: None) -> Iterator[Collection]:
    collection = make_collection("pond", is_public=True)
    for number in range(12):
        add_document(collection, f"Heron {number}", [f"heron pond {'marsh ' * number}"])
    yield collection
    calibrated._read.cache_clear()


@pytest.fixture
def people(pond: Collection) -> People:
    return make_people(pond)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> NoisyReranker:
    fake = NoisyReranker()
    for side in (remote, local):
        monkeypatch.setattr(side, "reranker", lambda: fake)
        monkeypatch.setattr(side, "embedder", FakeEmbedder)
    monkeypatch.setattr(local, "warm_up_embedder", lambda: None)
    return fake


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A worker that is there; what it was asked to calibrate."""
    asked: list[int] = []
    monkeypatch.setattr(presence, "is_served", lambda queue: queue == "gpu")
    monkeypatch.setattr(
        tasks.calibrate, "apply_async", lambda args, **options: asked.append(args[0])
    )
    return asked


def found(client: Client, query: str = "heron of pond 1") -> tuple[Any, Trace]:
    page = client.get("/search", {"q": query, "collection": "pond", "wait": "1"})
    assert page.status_code == 200
    return page, page.context["trace"]


# --- who may -----------------------------------------------------------------------------------

MATRIX: list[tuple[str, str, dict[str, str], list[int]]] = [
    ("get", URL, {}, [403, 403, 403, 200, 200, 200]),
    ("get", STATUS, {}, [403, 403, 403, 200, 200, 200]),
    ("post", URL, {"forget": "0" * 32}, [403, 403, 403, 302, 302, 302]),
    ("post", URL, {"action": "calibrate"}, [403, 403, 403, 302, 302, 302]),
    ("post", URL, {"action": "dance"}, [403] * 6),
    ("post", STATUS, {}, [405] * 6),
]


@pytest.mark.parametrize(("method", "url", "data", "statuses"), MATRIX)
def test_calibration_is_for_editors(
    people: People, method: str, url: str, data: dict[str, str], statuses: list[int]
) -> None:
    for kind, status in zip(KINDS, statuses, strict=True):
        response = getattr(people.client(kind), method)(url, data)
        assert response.status_code == status, kind


def test_a_private_collections_calibration_is_missing_for_strangers(
    pond: Collection, people: People
) -> None:
    Collection.objects.update(is_public=False)
    for url in (URL, STATUS):
        assert people.client("anonymous").get(url).status_code == 404
        assert people.client("stranger").get(url).status_code == 404
        assert people.client("viewer").get(url).status_code == 403


@pytest.mark.parametrize(
    ("kind", "status"), zip(KINDS, [403, 403, 403, 302, 302, 302], strict=True)
)
def test_judging_is_for_editors(people: People, kind: str, status: int) -> None:
    client = people.client(kind)
    page, trace = found(client)
    shown = b"data-judge" in page.content
    assert shown == (status == 302)
    hit = page.context["result"].hits[0]
    data = {"passage": hit.passage_id, "grade": "2"}
    response = client.post(reverse("judge", args=[trace.uid]), data)
    assert response.status_code == status
    assert Judgment.objects.count() == int(status == 302)


def test_nobody_judges_through_the_search_of_another_or_a_foreign_passage(
    pond: Collection, people: People
) -> None:
    _, trace = found(people.client("owner"))
    passage = Passage.objects.first()
    assert passage is not None
    url = reverse("judge", args=[trace.uid])
    data = {"passage": passage.pk, "grade": "1"}
    assert people.client("editor").post(url, data).status_code == 404
    other = make_collection("sea", is_public=True)
    add_document(other, "Whale", ["A whale."])
    foreign = other.passages.get().pk
    owner = people.client("owner")
    assert owner.post(url, {"passage": foreign, "grade": "1"}).status_code == 404
    assert owner.post(url, {"passage": "x", "grade": "1"}).status_code == 404
    assert owner.post(url, {**data, "grade": "9"}).status_code == 403
    assert owner.get(url).status_code == 405
    strict = people.client("owner", enforce_csrf_checks=True)
    assert strict.post(url, data).status_code == 403
    assert not Judgment.objects.exists()


def test_judgments_of_another_collection_are_neither_shown_nor_deleted(
    pond: Collection, people: People
) -> None:
    other = make_collection("sea", is_public=True)
    add_document(other, "Heron 1", ["heron"])
    judge_all(other, ["heron of pond 1"])
    client = people.client("owner")
    page = client.get(URL)
    assert page.context["query_count"] == 0
    assert "heron of pond 1" not in page.content.decode()
    key = Judgment.objects.get().query_key
    client.post(URL, {"forget": key})
    assert Judgment.objects.count() == 1


# --- judging -----------------------------------------------------------------------------------


def test_a_grade_is_given_shown_and_taken_back_without_scripts(people: People) -> None:
    client = people.client("editor")
    page, trace = found(client)
    hit = page.context["result"].hits[2]
    url = reverse("judge", args=[trace.uid])
    back = page.context["return_url"]
    response = client.post(url, {"passage": hit.passage_id, "grade": "3", "next": back})
    assert response["Location"] == f"{back}#hit-{hit.passage_id}"
    judgment = Judgment.objects.get()
    assert (judgment.grade, judgment.query, judgment.source) == (3, "heron of pond 1", "page")
    html = client.get(response["Location"].split("#")[0]).content.decode()
    assert html.count('aria-pressed="true">3<') == 1
    assert f'id="hit-{hit.passage_id}"' in html
    client.post(url, {"passage": hit.passage_id, "grade": "", "next": "https://evil.example/"})
    assert not Judgment.objects.exists()


def test_scripts_get_their_answer_as_json(people: People) -> None:
    client = people.client("editor")
    page, trace = found(client)
    passage = page.context["result"].hits[0].passage_id
    url = reverse("judge", args=[trace.uid])
    answer = client.post(
        url, {"passage": passage, "grade": "0"}, headers={"accept": "application/json"}
    ).json()
    assert answer["grade"] == 0
    assert answer["message"].startswith("Not relevant: Heron")


def test_a_colleagues_grade_is_not_shown_as_ones_own(people: People) -> None:
    client = people.client("editor")
    page, trace = found(client)
    client.post(
        reverse("judge", args=[trace.uid]),
        {"passage": page.context["result"].hits[0].passage_id, "grade": "2"},
    )
    html = found(people.client("owner"))[0].content.decode()
    assert 'aria-pressed="true"' not in html.split("data-hits")[1]


# --- the page ----------------------------------------------------------------------------------


def test_an_empty_page_invites_and_few_judgments_count_up(pond: Collection, people: People) -> None:
    client = people.client("editor")
    assert "Nothing is judged yet" in client.get(URL).content.decode()
    judge_all(pond, QUERIES[:12])
    html = client.get(URL).content.decode()
    assert "A calibration needs 50 judged queries; there are 12." in html
    assert 'value="calibrate" disabled' in html
    assert "heron of pond 7" in html


def test_deleting_a_judged_query_deletes_its_judgments_only(
    pond: Collection, people: People
) -> None:
    judge_all(pond, QUERIES[:2])
    key = Judgment.objects.filter(query=QUERIES[0]).values_list("query_key", flat=True)[0]
    page = people.client("editor").post(URL, {"forget": key}, follow=True)
    assert "12 judgments deleted." in page.content.decode()
    assert set(Judgment.objects.values_list("query", flat=True)) == {QUERIES[1]}


def test_the_button_queues_one_calibration_and_the_page_follows_it(
    pond: Collection, people: People, worker: list[int]
) -> None:
    client = people.client("editor")
    judge_all(pond, QUERIES)
    client.post(URL, {"action": "calibrate", "unjudged": "irrelevant"})
    row = Calibration.objects.get()
    assert worker == [row.pk]
    assert row.unjudged_count
    html = client.get(URL).content.decode()
    assert f'data-status-url="{STATUS}"' in html
    assert "Waiting for the rerank worker" in html
    assert "under way" in client.post(URL, {"action": "calibrate"}, follow=True).content.decode()
    assert tasks.calibrate(row.pk) == "ready"
    html = client.get(STATUS).content.decode()
    assert 'data-active="0"' in html
    assert "660" in html


def test_without_a_worker_nothing_is_queued(
    pond: Collection, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_all(pond, QUERIES)
    monkeypatch.setattr(presence, "is_served", lambda queue: False)
    page = people.client("editor").post(URL, {"action": "calibrate"}, follow=True)
    assert "No rerank worker is running" in page.content.decode()
    assert not Calibration.objects.exists()


def test_a_failed_calibration_says_why_and_the_earlier_one_stays(
    pond: Collection, people: People, worker: list[int], engine: NoisyReranker
) -> None:
    judge_all(pond, QUERIES)
    client = people.client("editor")
    client.post(URL, {"action": "calibrate"})
    assert tasks.calibrate(worker[-1]) == "ready"
    client.post(URL, {"action": "calibrate"})
    engine.status, engine.reason = "unavailable", "The reranker was eaten."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "reranker", lambda: FakeReranker("unavailable", "It was eaten."))
        assert tasks.calibrate(worker[-1]) == "failed"
    html = client.get(URL).content.decode()
    assert "came to nothing" in html
    assert "It was eaten." in html
    assert "Do the numbers keep their word?" in html


def test_the_page_shows_both_pictures_and_says_what_they_mean(
    pond: Collection, people: People, worker: list[int]
) -> None:
    judge_all(pond, QUERIES)
    client = people.client("editor")
    client.post(URL, {"action": "calibrate"})
    tasks.calibrate(worker[-1])
    response = client.get(URL)
    html = response.content.decode()
    assert html.count('class="chart-picture"') == 2
    assert html.count("chart-whisker") == sum(
        len(series.points) for series in response.context["reliability"].series
    )
    assert "The gap between number and truth falls" in html
    assert "a hit that says 0.9 is relevant here about 9 times in 10" in html
    assert "to the scores of noisy with version 1" in html
    assert "NaN" not in html


def test_results_show_the_calibrated_number_and_the_confidence(
    pond: Collection, people: People
) -> None:
    sure = Confidence((1.0, 0.0, 0.0, 0.0), 0.0, (0.0,) * 4, (1.0,) * 4, 1.0)
    client = people.client("viewer")
    plain = found(client)[0].content.decode()
    assert "calibrated" not in plain.lower()
    assert "confidence" not in plain
    serve(pond, Platt(1.0, -1.0), confidence=sure.as_json())
    page, trace = found(client)
    html = page.content.decode()
    assert "numbers <strong>calibrated</strong>" in html
    assert "confidence <strong>0." in html
    hit = page.context["result"].hits[0]
    assert f"Calibrated relevance </span>{hit.calibrated:.2f}<" in html
    stored = client.get(reverse("trace", args=[trace.uid])).content.decode()
    assert ">Calibrated</th>" in stored
    assert "that the first hit is relevant" in stored


def test_a_calibration_of_an_older_version_says_so(pond: Collection, people: People) -> None:
    older = Calibration.objects.create(
        collection=pond,
        config=pond.configs.create(version=7, frozen_at=pond.created_at),
        model="noisy",
        parameters={"kind": "platt", "slope": 0, "intercept": 0},
        report=REPORT,
        state=CalibrationState.READY,
        message="Higher scores were not judged more relevant.",
    )
    html = people.client("editor").get(URL).content.decode()
    assert "Version 1 is active now" in html
    assert "Searches go on showing" in html
    assert "Only 3 of the 50 searches it needs had a judged first hit." in html
    Calibration.objects.filter(pk=older.pk).update(report={**REPORT, "searches": 64})
    html = people.client("editor").get(URL).content.decode()
    assert "The 64 searches with a judged first hit were all alike" in html


def test_a_calibration_of_another_reranker_does_not_speak_for_the_one_in_use(
    pond: Collection, people: People
) -> None:
    def fitted(version: int, model: str) -> None:
        config = pond.configs.create(version=version, model=model, frozen_at=pond.created_at)
        Calibration.objects.create(
            collection=pond,
            config=config,
            model=model,
            parameters={"kind": "platt", "slope": 1, "intercept": 0},
            report=REPORT,
            state=CalibrationState.READY,
        )

    fitted(8, "checkpoint:5")
    client = people.client("editor")
    html = client.get(URL).content.decode()
    assert "has another reranker now" in html and "<strong>calibrated</strong>" not in html
    fitted(9, pond.active_config.model)
    fitted(10, "checkpoint:6")
    html = client.get(URL).content.decode()
    assert "has another reranker now" not in html and "<strong>calibrated</strong>" in html


# --- the pictures ------------------------------------------------------------------------------

_BIN = {"predicted": 0.25, "observed": 0.5, "low": 0.25, "high": 1.0, "count": 9}
_SIDE = {"ece": {"value": 0.25, "low": 0.2, "high": 0.3}, "brier": 0.1, "bins": [_BIN]}
REPORT: dict[str, Any] = {
    "before": _SIDE,
    "after": _SIDE,
    "queries": 50,
    "pairs": 9,
    "relevant": 4,
    "searches": 3,
    "confidence": None,
}


def test_points_lie_where_their_numbers_are() -> None:
    chart = calibration_charts.reliability(REPORT)
    (point,) = chart.series[1].points
    frame = chart.frame
    assert point.x == pytest.approx(frame.left + 0.25 * (frame.right - frame.left))
    assert point.y == pytest.approx((frame.top + frame.bottom) / 2)
    assert point.high_y == frame.top
    assert point.sentence == "calibrated 0.25 on average: 50 of 100 relevant (25 to 100), 9 pairs"


def test_the_risk_axis_ends_at_the_next_tenth() -> None:
    curve = {"coverage": [0.5, 1.0], "risk": [0.0, 0.25], "random": 0.25}
    chart = calibration_charts.risk_coverage(curve)
    assert [tick.label for tick in chart.frame.y_ticks] == [
        "0 %",
        "7.5 %",
        "15 %",
        "22.5 %",
        "30 %",
    ]
    assert chart.rows[1] == (0.5, 0.0)
    assert chart.path.startswith(f"M{chart.frame.left} {chart.frame.bottom}L")
