"""Deterministic sockets for tests whose subject is not the model: no worker, no broker."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass, field

import numpy as np

from rerank.types import FloatArray
from searchapp.engine.sockets import EmbedOutcome, RerankJob, RerankOutcome, RerankStatus

DIMENSION = 384


@dataclass
class FakeReranker:
    """Turns the order round: the last candidate gets the best score. With another `status` than ok
    it fails as a worker would, with `reason`."""

    status: RerankStatus = "ok"
    reason: str = ""
    scale: str = "sigmoid"
    delay_seconds: float = 0.0
    jobs: dict[str, RerankJob] = field(default_factory=dict)
    submitted: list[RerankJob] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def submit(self, job: RerankJob) -> str:
        ticket = uuid.uuid4().hex
        self.jobs[ticket] = job
        self.submitted.append(job)
        return ticket

    def collect(self, ticket: str, deadline: float) -> RerankOutcome:
        if self.status != "ok":
            return RerankOutcome(self.status, self.reason or "The fake said no.")
        job = self.jobs.pop(ticket, None)
        if job is None:
            return RerankOutcome("late", "The reranker did not answer within 8 s.")
        end = time.monotonic() + self.delay_seconds
        while time.monotonic() < end and ticket not in self.cancelled:
            time.sleep(min(0.02, self.delay_seconds))
        count = len(job.passage_ids)
        relevance = [(place + 1) / (count + 1) for place in range(count)]
        if ticket in self.cancelled:
            return RerankOutcome("unavailable", "Nobody waits.", code="cancelled")
        return RerankOutcome(
            "ok",
            logits=[float(np.log(each / (1 - each))) for each in relevance],
            relevance=relevance,
            scale=self.scale,
            model="fake-reverser",
            device="cpu",
            pairs=count,
            queue_ms=1.0,
            inference_ms=2.0,
        )

    def cancel(self, ticket: str) -> None:
        self.cancelled.append(ticket)


@dataclass
class FakeEmbedder:
    """Bags of words hashed into DIMENSION places; with a `reason` it has no vector to give."""

    reason: str = ""

    def embed_query(self, text: str, model: str, deadline: float) -> EmbedOutcome:
        if self.reason:
            return EmbedOutcome(None, self.reason, 1.0)
        return EmbedOutcome(hashed_vector(text), "", 1.0)


def hashed_vector(text: str) -> FloatArray:
    """A unit vector that is nearer for texts with more words in common."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    for word in text.lower().split():
        digest = hashlib.sha256(word.strip(".,:;!?").encode()).digest()
        vector[int.from_bytes(digest[:4], "little") % DIMENSION] += 1
    vector[0] += 0.01
    return vector / np.linalg.norm(vector)
