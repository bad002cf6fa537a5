"""The bench of the true size, on a tiny model: every step that a GPU would take is walked here."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from transformers import Qwen3Config

from benches import rerank_gpu
from benches.random_zerank import FULL_SIZE, Writer, floor_flops, tokenizer
from rerank.inference import fp8

CPU = torch.device("cpu")


def test_without_a_gpu_the_bench_ends_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="no such GPU is visible"):
        rerank_gpu.read_options([])
    with pytest.raises(SystemExit, match="Add --tiny"):
        rerank_gpu.read_options(["--device", "cpu"])


def test_the_floor_of_one_prompt_worked_by_hand() -> None:
    config = Qwen3Config(
        hidden_size=2,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        intermediate_size=5,
    )
    matrices, attention = floor_flops(config, [10])
    # A layer multiplies 2x8 (query), 2x4 and 2x4 (key, value), 8x2 (out) and three times 2x5 (MLP):
    # 78 numbers; each of 10 tokens costs two operations a number, in 3 layers.
    assert matrices == 2 * 78 * 10 * 3
    # 10 tokens see 55 others and themselves; a pair costs 2 x 4 for the weight and for the sum.
    assert attention == 55 * (2 * 4 + 2 * 4) * 2 * 3


def test_zerank_2_takes_about_seven_gigaflops_a_token() -> None:
    matrices, attention = floor_flops(Qwen3Config(**FULL_SIZE), [512])
    assert (matrices + attention) / 512 == pytest.approx(7.4e9, rel=0.02)


def test_texts_have_as_many_tokens_as_asked_for_and_bytes_per_token_like_english() -> None:
    made, writer = tokenizer(), Writer(3)
    for count in (17, 100, 480):
        text = writer.tokens(count, made)
        assert len(made.encode(text, add_special_tokens=False).ids) == count
    text = writer.bytes(20_000)
    assert 3.8 < len(text) / len(made.encode(text, add_special_tokens=False).ids) < 4.8


def test_a_tiny_run_writes_its_table_its_json_and_its_picture(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = rerank_gpu.Options(CPU, tiny=True, compiled=False, seconds=60, out=out)
    bench = rerank_gpu.Bench(options, tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bench.ceilings()
        bench.model()
        bench.time_ours("podium bf16", torch.bfloat16)
        bench.time_ours("podium fp8", fp8.DTYPE)
        bench.time_sentence_transformers()
        bench._summarise()
    finally:
        torch.set_num_threads(threads)
    found = json.loads((out / "rerank_gpu.json").read_text())
    assert {row["product"] for row in found["ceilings"]} == {"bf16", "fp8"}
    assert len(found["time"]) == 9
    for row in found["time"]:
        assert row["p95_ms"] >= row["p50_ms"] > row["bf16_floor_ms"] > 0
        assert ("times_faster_than_predict" in row) == row["system"].startswith("podium")
    table = (out / "rerank_gpu.md").read_text()
    assert "| 6 documents x 2 KB | podium fp8 |" in table
    assert "](rerank_gpu.svg)" in table
    picture = ElementTree.parse(out / "rerank_gpu.svg")
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}rect")) == 1 + 3 * 4


def test_a_part_that_fails_leaves_its_reason_and_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = rerank_gpu.Bench(
        rerank_gpu.Options(CPU, tiny=True, compiled=False, seconds=60, out=tmp_path), tmp_path
    )

    def fail() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")

    bench.run_part("memory", fail)
    assert bench.report.parts["memory"] == [
        {"system": "not measured: CUDA out of memory. Tried to allocate"}
    ]
    assert "memory" in (tmp_path / "rerank_gpu.md").read_text()
    assert "out of memory" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_the_gpu_memory_stays_flat_over_many_small_requests(tmp_path: Path) -> None:
    options = rerank_gpu.Options(torch.device("cuda"), True, False, 60, tmp_path)
    bench = rerank_gpu.Bench(options, tmp_path)
    bench.ceilings()
    bench.model()
    bench.memory()
    grown = [row for row in bench.report.parts["memory"] if "grown_mb_on_the_device" in row]
    assert grown[0]["grown_mb_on_the_device"] <= 64
