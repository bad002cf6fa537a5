"""How many rerank workers start, and which GPU each sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchapp.embedded.gpus import rerank_workers


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    return tmp_path


def seen(environment: dict[str, str], driver: Path) -> list[str | None]:
    workers = rerank_workers(environment, driver)
    assert len({worker.name for worker in workers}) == len({w.node for w in workers})
    return [worker.environment.get("CUDA_VISIBLE_DEVICES") for worker in workers]


def test_without_a_gpu_there_is_one_worker(tmp_path: Path) -> None:
    (worker,) = rerank_workers({}, tmp_path / "none")
    assert (worker.name, worker.node, dict(worker.environment)) == ("rerank", "gpu", {})


def test_each_gpu_gets_a_worker_that_sees_no_other(two_gpus: Path) -> None:
    assert seen({}, two_gpus) == ["0", "1"]
    assert seen({"RERANK_WORKERS": "auto", "DEVICE": "cuda"}, two_gpus) == ["0", "1"]


def test_the_visible_gpus_are_those_of_the_environment(two_gpus: Path) -> None:
    assert seen({"CUDA_VISIBLE_DEVICES": "1,GPU-abc, 3"}, two_gpus) == ["1", "GPU-abc", "3"]
    assert seen({"CUDA_VISIBLE_DEVICES": ""}, two_gpus) == [None]
    assert seen({"CUDA_VISIBLE_DEVICES": "-1"}, two_gpus) == [None]


def test_a_device_that_was_chosen_gets_one_worker(two_gpus: Path) -> None:
    assert seen({"DEVICE": "cuda:1"}, two_gpus) == [None]
    assert seen({"DEVICE": "cpu"}, two_gpus) == [None]


def test_a_number_of_workers_shares_the_gpus(two_gpus: Path, tmp_path: Path) -> None:
    assert seen({"RERANK_WORKERS": "3"}, two_gpus) == ["0", "1", "0"]
    assert seen({"RERANK_WORKERS": "1"}, two_gpus) == [None]
    assert seen({"RERANK_WORKERS": "0"}, two_gpus) == []
    assert seen({"RERANK_WORKERS": "2"}, tmp_path / "none") == [None, None]
