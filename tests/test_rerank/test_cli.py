"""`python -m rerank` as a person or a script runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank.__main__ import main

from .tiny import save_cross_encoder

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_cross_encoder(tmp_path_factory.mktemp("tiny")))


def shell(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "rerank", *arguments],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        timeout=180,
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_stdin_is_ranked_in_a_process_of_its_own(model: str) -> None:
    rows = [{"_id": 7, "text": "two cups"}, {"text": "größe, 日本 " * 300}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    done = shell("rank", "tea", "--jsonl", "--json", "--model", model, stdin=lines.encode())
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(result["index"] for result in report["results"]) == [0, 1]
    assert {"_id": 7, "text": "two cups"} in [result["document"] for result in report["results"]]
    assert done.stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_list_whose_reader_has_gone_ends_quietly(model: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rerank", "rank", "tea", "a cup", "--model", model],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=180,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_expected_failure_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    done = shell("rank", "tea", "--file", str(tmp_path / "nothing"))
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode().count("\n") == 1
    assert b"nothing cannot be read: No such file or directory." in done.stderr


def test_a_table_of_documents_from_a_file(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text("first\n\nsecond, much longer than a line can be " + "x " * 200 + "\nthird\n")
    assert main(["rank", "q", "--file", str(path), "--model", model, "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "relevance", "logit", "index", "document"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "missing.txt", "missing.txt cannot be read: No such file or directory."),
        (b"", "empty.txt", "empty.txt holds no documents."),
        (b"caf\xe9\n", "latin.txt", "latin.txt cannot be read: it is not UTF-8 text."),
        (b'{"title": "x"}\n', "rows.jsonl", "Line 1 of "),
        (b"{oops\n", "rows.jsonl", "is not JSON"),
        (b"not gzip", "rows.jsonl.gz", "cannot be read"),
    ],
)
def test_a_bad_file_is_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    name: str,
    message: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["rank", "q", "--file", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "q", "a", "--file", "b"], "not both"),
        (["rank", "q", "a", "--model", "/nowhere/at/all"], "There is no directory"),
        (["rank", "q", "a", "--top-k", "0"], "--top-k is 0; it must be at least 1"),
        (["rank", "q\udcff", "a", "--model", "MODEL"], "The query is no valid Unicode text"),
        (["rank", "q", "a", "--model", "MODEL", "--device", "abacus"], "abacus"),
        (["rank", "q", "a", "--model", "MODEL", "--dtype", "int3"], "number format"),
        (["parity", "--model", "MODEL", "--pairs", "/nowhere.jsonl"], "cannot be read"),
        (["evaluate", "/nowhere/at/all"], "There is no folder /nowhere/at/all."),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([model if each == "MODEL" else each for each in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["parity"],
        ["bench", "--tokens", "9-3"],
        ["bench", "--tokens", "many"],
        ["bench", "--candidates", "0"],
        ["evaluate", "x", "--first-stage", "magic"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_parity_says_passed_by_0_and_not_passed_by_1(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    row = {
        "query": "tea",
        "documents": ["green tea", "violin", "a cup of tea"],
        "grades": [2, 0, 1],
    }
    pairs.write_text(json.dumps(row), encoding="utf-8")
    asked = ["parity", "--model", model, "--dtype", "float32", "--pairs", str(pairs)]
    report = printed(capsys, *asked, "--against", model, "--json")
    assert report["passed"] is True and report["reference"]["dtype"] == "float32"
    assert main([*asked, "--against", model, "--least-tau", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("Not passed: 1 of") and "(kendall_tau)" in lines[-1]


def test_bench_times_requests(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["bench", "--model", model, "--candidates", "6", "--tokens", "5-40", "--requests", "2"]
    report = printed(capsys, *asked, "--json")
    assert report["ms_p95"] >= report["ms_p50"] > 0
    assert report["pairs_per_second"] > 0 and report["peak_memory_mib"] > 10
    # Five to forty tokens a document, and the query beside each.
    assert 6 * 5 < report["tokens"] < 6 * (40 + 20)
    assert report["batches"] >= 1 and 0 < report["batch_fill"] <= 1
    assert main(asked) == 0
    assert "pairs/s" in capsys.readouterr().out


def test_evaluate_prints_a_table_and_json(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"D1": "Water tomatoes in the morning.", "D2": "Violins have four strings."}
    rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))
    (tmp_path / "queries.jsonl").write_text('{"_id": "Q1", "text": "when to water tomatoes"}')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nQ1\tD1\t1\n")
    asked = ["evaluate", str(tmp_path), "--model", model, "--limit", "1"]
    report = printed(capsys, *asked, "--json")
    assert list(report["systems"]) == ["bm25", "dense", "hybrid", "reranked"]
    assert report["systems"]["hybrid"]["ndcg@10"] == 1.0
    assert main([*asked, "--first-stage", "bm25"]) == 0
    out = capsys.readouterr().out
    assert "reranked minus bm25" in out and "ndcg@10" in out
