"""Judgments: one grade from a page, whole files, whose they are and what they are worth."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError

from searchapp.models import Collection, Grade, Judgment, Membership, Role
from searchapp.workbench import judging
from tests.people import make_people
from tests.shelves import add_document, make_collection


@pytest.fixture
def birds(db: None) -> Collection:
    collection = make_collection("birds", is_public=True)
    add_document(collection, "Heron", ["A heron fishes."], metadata={"id": "d1"})
    add_document(collection, "Stork", ["A stork walks."], path="big/stork.txt")
    add_document(collection, "Owl", ["An owl hunts."], path="night/owl.md")
    return collection


def beir(folder: Path, lines: list[str], queries: dict[str, str]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": key, "text": text}) for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows))
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))
    return folder


def test_a_judge_has_one_grade_per_document_and_may_take_it_back(birds: Collection) -> None:
    ada = User.objects.create_user("ada")
    judging.judge(birds, "Fishing  birds", "Heron.txt", ada, Grade.EXACT)
    judging.judge(birds, "fishing birds", "Heron.txt", ada, Grade.SOMEWHAT)
    assert judging.own_grades(birds, "FISHING birds ", ada) == {"Heron.txt": 1}
    assert Judgment.objects.count() == 1
    judging.judge(birds, "fishing birds", "Heron.txt", ada, None)
    assert not Judgment.objects.exists()


def test_judges_who_disagree_are_averaged(birds: Collection) -> None:
    for name, grade in (("ada", Grade.NOT), ("bob", Grade.RELEVANT)):
        judge = User.objects.create_user(name)
        judging.judge(birds, "fishing birds", "Heron.txt", judge, grade)
    judging.judge(birds, "fishing birds", "Owl.txt", judge, Grade.NOT)
    (judged,) = judging.judged_queries(birds)
    assert judged.grades == {"Heron.txt": 0.5, "Owl.txt": 0.0}
    assert Judgment.objects.filter(collection=birds).query_count() == 1


def test_judgments_are_seen_by_those_who_may_edit_only(birds: Collection) -> None:
    people = make_people(birds)
    judging.judge(birds, "q", "Heron.txt", people.users["owner"], Grade.NOT)
    seen = {kind: Judgment.objects.visible_to(user).count() for kind, user in people.users.items()}
    assert seen == {"stranger": 0, "viewer": 0, "editor": 1, "owner": 1, "superuser": 1}
    assert not Judgment.objects.visible_to(None).exists()
    other = make_collection("fish", is_public=True)
    stranger = people.users["stranger"]
    Membership.objects.create(collection=other, user=stranger, role=Role.OWNER)
    assert not Judgment.objects.visible_to(stranger).exists()


def test_a_user_who_goes_leaves_the_judgments(birds: Collection) -> None:
    for name in ("ada", "bob"):
        judging.judge(birds, "q", "Heron.txt", User.objects.create_user(name), Grade.EXACT)
    User.objects.all().delete()
    assert [each.judged_by for each in Judgment.objects.all()] == [None, None]


def test_an_import_finds_documents_by_id_path_and_file_name(
    birds: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = beir(
        tmp_path / "set",
        [
            "query-id\tcorpus-id\tscore",
            "1\td1\t4",
            "1\tbig/stork.txt\t-1",
            "2\towl\t2",
            "2\tdodo\t1",
            "9\td1\t1",
        ],
        {"1": "fishing birds", "2": "night birds"},
    )
    call_command("import_judgments", "birds", str(folder))
    said = capsys.readouterr().out
    assert "3 judgments of 2 queries" in said
    assert "2 grades off the scale" in said
    assert "dodo" in said
    assert "1 judged queries have no usable text" in said
    found = Judgment.objects.order_by("pk").values_list("query", "path", "grade")
    assert list(found) == [
        ("fishing birds", "Heron.txt", 3),
        ("fishing birds", "big/stork.txt", 0),
        ("night birds", "night/owl.md", 2),
    ]


def test_a_second_import_replaces_the_first_and_leaves_people_alone(
    birds: Collection, tmp_path: Path
) -> None:
    judging.judge(birds, "a", "Heron.txt", User.objects.create_user("ada"), Grade.EXACT)
    first = beir(tmp_path / "1", ["1\td1\t1", "2\towl\t1"], {"1": "a", "2": "b"})
    second = beir(tmp_path / "2", ["1\towl\t0"], {"1": "a"})
    for folder in (first, second):
        judging.import_judgments(birds, *judging.files_of(folder))
    found = Judgment.objects.order_by("query", "source").values_list("query", "path", "source")
    assert list(found) == [
        ("a", "night/owl.md", "import"),
        ("a", "Heron.txt", "page"),
        ("b", "night/owl.md", "import"),
    ]


def test_two_files_in_trec_columns_are_read_too(birds: Collection, tmp_path: Path) -> None:
    queries, qrels = tmp_path / "queries.jsonl.gz", tmp_path / "qrels.txt"
    with gzip.open(queries, "wt") as file:
        file.write('{"_id": "q1", "text": "fishing birds"}\n')
    qrels.write_text("q1 0 d1 2\nq1 0 owl 0\n")
    call_command("import_judgments", "birds", str(queries), str(qrels))
    assert Judgment.objects.count() == 2


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["1\tdodo\t1"], "none has the id 'dodo'"),
        (["7\td1\t1"], "None of the judged queries"),
        (["1\td1\tgood"], "Line 1"),
        (["1 d1"], "Line 1"),
        ([], "holds no judgments"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_words(
    birds: Collection, tmp_path: Path, lines: list[str], sentence: str
) -> None:
    folder = beir(tmp_path / "set", lines, {"1": "a"})
    with pytest.raises(CommandError, match=sentence):
        call_command("import_judgments", "birds", str(folder))
    with pytest.raises(CommandError, match="is missing"):
        call_command("import_judgments", "birds", str(tmp_path))
    with pytest.raises(CommandError, match="no collection"):
        call_command("import_judgments", "fish", str(folder))
