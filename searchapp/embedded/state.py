"""Where the embedded servers keep their data, and the file that says where they listen.

No Django here: settings read the state file, so it must be written before they load.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent.parent


class EmbeddedError(Exception):
    """An embedded server cannot run; the message says why and what to do, for people."""


def var_dir() -> Path:
    """VAR_DIR as searchapp.settings understands it."""
    return Path(os.environ.get("VAR_DIR", str(PROJECT / "var"))).resolve()


def prepare() -> Path:
    """The data folder, made and writable. Raises EmbeddedError."""
    var = var_dir()
    make_var_dir(var)
    return var


def make_var_dir(var: Path) -> None:
    """Creates `var` with its log folder; raises EmbeddedError when it cannot be written."""
    try:
        (var / "log").mkdir(parents=True, exist_ok=True)
        probe = var / f".write-test-{os.getpid()}"
        probe.write_bytes(b"podium" * 1000)
        probe.unlink()
    except OSError as error:
        raise EmbeddedError(
            f"Podium cannot write to {var} ({error.strerror}). Free some space, correct the "
            "folder's owner, or set VAR_DIR to a folder you may write to."
        ) from error


def read_state(var: Path) -> dict[str, Any]:
    """The state file's content; empty when there is none yet or it is damaged."""
    path = var / "embedded.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise EmbeddedError(
            f"{path} belongs to another user. Start Podium as the user who started it first, or "
            "set VAR_DIR to a folder of your own."
        ) from error
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(var: Path, **changes: Any) -> None:
    """Merges `changes` into the state file at once or not at all; None removes a key."""
    state = {k: v for k, v in {**read_state(var), **changes}.items() if v is not None}
    path = var / "embedded.json"
    draft = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def starting(var: Path) -> Iterator[None]:
    """Only one process at a time starts or stops the embedded servers of `var`."""
    with (var / "embedded.starting").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
