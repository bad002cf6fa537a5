"""Rows of several requests in one batch score as they do alone, whatever the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rerank.inference.cross_encoder import CrossEncoderReranker
from rerank.inference.fused_files import untrained
from rerank.inference.fused_maxsim import FusedMaxSim
from rerank.inference.zerank import ZerankReranker
from rerank.inference.zerank_files import zerank_files
from rerank.types import BatchReranker, RerankRequest

from . import tiny, tiny_qwen

CPU = torch.device("cpu")
REQUESTS = [
    RerankRequest("apples", ["boil apples", "cats", "dogs and cats " * 20]),
    RerankRequest("what is the first step in making jam", ["stir", "apples " * 9], "prefer dogs"),
    RerankRequest("", ["", "jam"]),
    RerankRequest("cats", ["dogs"], None, [0.5]),
]


def _cross_encoder(folder: Path) -> BatchReranker:
    return CrossEncoderReranker("tiny", tiny.save_cross_encoder(folder), CPU, torch.float32)


def _fused_maxsim(folder: Path) -> BatchReranker:
    return FusedMaxSim(untrained(), CPU, torch.float32)


def _zerank(folder: Path) -> BatchReranker:
    files = zerank_files("tiny", tiny_qwen.save_modules(tiny_qwen.decoder(), folder))
    assert files is not None
    return ZerankReranker(files, CPU, torch.float32)


@pytest.mark.parametrize("build", [_cross_encoder, _fused_maxsim, _zerank])
def test_rows_of_several_requests_go_together(build: object, tmp_path: Path) -> None:
    assert callable(build)
    model: BatchReranker = build(tmp_path)
    prepared = [model.prepare(request) for request in REQUESTS]
    rows = [(each, place) for each in prepared for place in range(len(each.rows))]
    order = np.random.default_rng(3).permutation(len(rows))
    raw = np.empty(len(rows), dtype=np.float32)
    raw[order] = model.run([rows[place] for place in order])
    start = 0
    for each in prepared:
        own = raw[start : start + len(each.rows)]
        start += len(each.rows)
        expected = model.score(each.request)
        got = model.finish(each, own)
        assert np.allclose(got.logits, expected.logits, atol=1e-5)
        assert np.allclose(got.relevance, expected.relevance, atol=1e-5)
        assert (got.tokens, got.truncated) == (expected.tokens, expected.truncated)
