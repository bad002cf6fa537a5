"""What a worker does before its first message and after its last."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from celery.signals import (
    celeryd_after_setup,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from django.conf import settings

from rerank.errors import RerankError
from searchapp.engine import gate, local
from searchapp.engine.presence import Heartbeat
from searchapp.engine.score_cache import RedisScoreCache

logger = logging.getLogger(__name__)

EMBED_PENDING_TASK = "searchapp.tasks.embed_pending"
# Reranking may take its time; on a CPU it must not take it from the pages.
CPU_RERANK_NICENESS = 5

# Of this process: what its worker is, between the signals.
_worker: dict[str, Any] = {
    "queues": [],
    "model": "",
    "device": "",
    "reason": "",
    "heartbeat": None,
}


@celeryd_after_setup.connect
def load_models(instance: Any, **_: Any) -> None:
    """Before the worker takes its first message; a model that cannot load or fails a check is
    logged, and each job then answered with the reason."""
    queues = list(instance.app.amqp.queues.consume_from)
    _worker["queues"] = queues
    try:
        if "gpu" in queues:
            _ready_to_rerank()
        if "embed" in queues:
            card = local.warm_up_embedder()
            _worker.update(model=card.name, device=card.device)
    except RerankError as error:
        _worker["reason"] = str(error)
        logger.error("queues %s are without a model: %s", ", ".join(queues), error)


def _ready_to_rerank() -> None:
    if settings.SCORE_CACHE_BYTES:
        local.keep_scores(RedisScoreCache())
    local.warm_up_reranker()
    card = gate.admit()
    _worker.update(model=card.name, device=card.device)
    if card.device.startswith("CPU"):
        # Before the scorer's thread is made: on Linux a thread inherits its maker's niceness.
        with contextlib.suppress(OSError):
            os.nice(CPU_RERANK_NICENESS)
    local.scorer()


@worker_ready.connect
def announce(sender: Any, **_: Any) -> None:
    heartbeat = Heartbeat(
        _worker["queues"],
        _worker["model"],
        _worker["device"],
        _worker["reason"],
        local.scorer_figures,
    )
    heartbeat.start()
    _worker["heartbeat"] = heartbeat
    logger.info(
        "ready for %s with %s on %s",
        ", ".join(_worker["queues"]),
        _worker["model"] or "no model",
        _worker["device"] or "no device",
    )
    if "embed" in _worker["queues"]:
        # What a killed worker left pending.
        sender.app.send_task(EMBED_PENDING_TASK, queue="embed")


@worker_shutting_down.connect
def finish_only(**_: Any) -> None:
    """In a signal handler. New searches go elsewhere from now on; those in hand are finished."""
    if _worker["heartbeat"] is not None:
        _worker["heartbeat"].announce_stopping()


@worker_shutdown.connect
def withdraw(**_: Any) -> None:
    if _worker["heartbeat"] is not None:
        _worker["heartbeat"].stop()
