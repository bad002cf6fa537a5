"""What needs an event loop of its own, from tests that are not async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connections

Result = TypeVar("Result")


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """Its result. In a thread of its own: while a browser of other tests is open, the main thread
    has an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def run_apart(work: Callable[[], Result]) -> Result:
    """Its result, in a thread without an event loop that uses this test's database connection."""
    shared = connections["default"]

    def run() -> Result:
        connections["default"] = shared
        return work()

    shared.inc_thread_sharing()
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()
    finally:
        shared.dec_thread_sharing()
