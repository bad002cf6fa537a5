"""`manage.py evaluate` on a tiny BEIR folder, through the real ingest, models and search."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from rerank.errors import BadInput
from rerank.evaluation.beir import read_folder
from searchapp.models import Collection, Document, Upload
from searchapp.workbench.parts import write_parts

# Ingest embeds in a second thread, which sees committed rows only.
committed = pytest.mark.django_db(transaction=True, available_apps=settings.INSTALLED_APPS)

CORPUS = {
    "D1": ("Tomatoes", "Water the tomato plants each morning before the sun is high."),
    "D2": ("Violins", "The violin has four strings tuned in perfect fifths."),
    "D3": ("Bread", "Knead the dough for ten minutes and let it rise for an hour."),
    "D4": ("", "A bicycle chain wants oil after riding in the rain."),
}
QUERIES = {"Q1": "when to water tomatoes", "Q2": "how many strings has a violin", "Q3": "unjudged"}
QRELS = {"Q1": "D1", "Q2": "D2"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        for key, (title, text) in CORPUS.items():
            file.write(json.dumps({"_id": key, "title": title, "text": text}) + "\n")
    with (tmp_path / "queries.jsonl").open("w", encoding="utf-8") as file:
        for key, text in QUERIES.items():
            file.write(json.dumps({"_id": key, "text": text}) + "\n")
    (tmp_path / "qrels").mkdir()
    rows = [f"{query}\t{document}\t1" for query, document in QRELS.items()]
    (tmp_path / "qrels" / "test.tsv").write_text(
        "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n", encoding="utf-8"
    )
    return tmp_path


def evaluated(folder: Path, *options: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("evaluate", str(folder), "--json", *options, stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


@committed
def test_the_report_has_every_system_and_leaves_nothing_behind(folder: Path) -> None:
    report = evaluated(folder)
    assert list(report["systems"]) == ["lexical", "dense", "fused", "reranked"]
    for figures in report["systems"].values():
        assert figures["ndcg@10"] == figures["recall@100"] == figures["mrr@10"] == 1.0
        assert figures["ms_p95"] >= figures["ms_p50"] > 0
    assert (report["queries"], report["documents"], report["passages"]) == (2, 4, 4)
    assert report["reranker"] == "untrained"
    assert not Collection.objects.exists()
    assert not Document.objects.exists() and not Upload.objects.exists()


@committed
def test_one_leg_without_rerank_and_the_first_query_only(folder: Path) -> None:
    report = evaluated(folder, "--first-stage", "lexical", "--no-rerank", "--limit", "1")
    assert list(report["systems"]) == ["lexical"]
    assert (report["queries"], report["reranker"]) == (1, "")


@committed
def test_the_table_names_the_systems(folder: Path) -> None:
    out = io.StringIO()
    call_command("evaluate", str(folder), "--first-stage", "dense", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("2 queries, 4 documents")
    assert [line.split()[0] for line in lines[2:4]] == ["dense", "reranked"]


@committed
def test_a_failing_evaluation_deletes_its_collection(folder: Path, settings: Any) -> None:
    settings.RERANK_MODEL = "/nowhere/at/all"
    with pytest.raises(CommandError, match="/nowhere/at/all"):
        evaluated(folder)
    assert not Collection.objects.exists() and not Upload.objects.exists()


@pytest.mark.django_db
def test_a_bad_folder_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no folder"):
        call_command("evaluate", str(tmp_path / "missing"))
    (folder / "qrels" / "test.tsv").write_text("Q1 D1 1\n", encoding="utf-8")
    with pytest.raises(CommandError, match=r"Line 1 of .* between tabs"):
        call_command("evaluate", str(folder))
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(CommandError, match="no judgments"):
        call_command("evaluate", str(folder))
    (folder / "corpus.jsonl.gz").unlink()
    with pytest.raises(CommandError, match="no BEIR folder"):
        call_command("evaluate", str(folder))


def test_broken_lines_are_named(folder: Path) -> None:
    (folder / "queries.jsonl").write_text('{"_id": "Q1"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"Line 1 of .*queries\.jsonl has no text"):
        read_folder(folder)
    (folder / "queries.jsonl").write_text("{oops\n", encoding="utf-8")
    with pytest.raises(BadInput, match="not JSON"):
        read_folder(folder)


def test_a_cut_off_gzip_is_said_so(folder: Path, tmp_path: Path) -> None:
    path = folder / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BadInput, match="cannot be read"):
        write_parts(path, tmp_path)


def test_queries_without_a_relevant_document_are_left_out(folder: Path) -> None:
    data = read_folder(folder)
    assert list(data.queries) == ["Q1", "Q2"]
    (folder / "qrels" / "test.tsv").write_text("Q1\tD1\t0\n", encoding="utf-8")
    with pytest.raises(BadInput, match="None of the queries"):
        read_folder(folder)
