"""How `pytest -n` hands out the tests; a plugin that pyproject.toml loads.

The tests of a file stay together, in order, because they share fixtures. Within each worker,
tests that roll back come before those that empty the tables, as pytest-django has them in one
process: what a migration once wrote (content types, permissions) is gone after the latter.
"""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
# Each worker holds a few models and two servers, so that memory sets a bound of its own.
MOST_WORKERS = 4
# What lasts longest comes first, so that no worker ends long after the others.
LONGEST = ("test_process", "test_browser", "test_searchapp", "test_rerank")


@pytest.hookimpl(trylast=True)  # after pytest-django's own order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (_turn(item), _place(item)))


def _turn(item: pytest.Item) -> int:
    marker = item.get_closest_marker("django_db")
    fixtures = set(getattr(item, "fixturenames", ()))
    empties = marker is not None and marker.kwargs.get("transaction", False)
    if empties or fixtures & {"transactional_db", "live_server"}:
        return 2
    if marker is not None or "db" in fixtures:
        return 1
    return 0 if item.get_closest_marker("process") else 3


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return min(cores(), MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """None leaves it to a `--dist` that the command line asks for."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class InRuns(LoadScopeScheduling):
        """A unit of work is a run of tests from the same file, in the collected order."""

        def schedule(self) -> None:
            if self.collection is None:
                self.config.option.loadscopereorder = False
                self._units = units(next(iter(self.registered_collections.values())))
            super().schedule()

        def _split_scope(self, nodeid: str) -> str:
            return self._units[nodeid]

    return InRuns(config, log)


def units(nodeids: list[str]) -> dict[str, str]:
    """Each test's unit of work: a name that neighbours of the same file share."""
    runs = groupby(nodeids, lambda nodeid: nodeid.partition("::")[0])
    return {nodeid: f"{number} {file}" for number, (file, run) in enumerate(runs) for nodeid in run}


def cores() -> int:
    """Those this process may use."""
    try:
        return len(psutil.Process().cpu_affinity() or [0])
    except AttributeError:  # macOS has no affinity
        return psutil.cpu_count() or 1
