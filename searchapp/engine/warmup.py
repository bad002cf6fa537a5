"""What a worker does around its life: load its model before it takes work, then announce itself.

Celery calls these by its signals; nothing happens at import except that they are named to it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from celery.signals import celeryd_after_setup, worker_ready, worker_shutting_down

from rerank.errors import RerankError
from searchapp.engine import local
from searchapp.engine.presence import Heartbeat

logger = logging.getLogger(__name__)

EMBED_PENDING_TASK = "searchapp.tasks.embed_pending"
# Reranking may take its time; on a CPU it must not take it from the pages.
CPU_RERANK_NICENESS = 5

# Of this process: what its worker is, between the signals.
_worker: dict[str, Any] = {"queues": [], "model": "", "device": "", "heartbeat": None}


@celeryd_after_setup.connect
def load_models(instance: Any, **_: Any) -> None:
    """Before the worker takes its first message; a model that cannot load is logged and each
    job then answered with the reason."""
    queues = list(instance.app.amqp.queues.consume_from)
    _worker["queues"] = queues
    try:
        if "gpu" in queues:
            card = local.warm_up_reranker()
            _worker.update(model=card.name, device=card.device)
            if card.device.startswith("CPU"):
                with contextlib.suppress(OSError):
                    os.nice(CPU_RERANK_NICENESS)
        if "embed" in queues:
            card = local.warm_up_embedder()
            _worker.update(model=card.name, device=card.device)
    except RerankError as error:
        logger.error("the model of queues %s cannot be loaded: %s", ", ".join(queues), error)


@worker_ready.connect
def announce(sender: Any, **_: Any) -> None:
    heartbeat = Heartbeat(_worker["queues"], _worker["model"], _worker["device"])
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
def withdraw(**_: Any) -> None:
    if _worker["heartbeat"] is not None:
        _worker["heartbeat"].stop()
