"""The reading child: a request per line on standard input, items as lines on standard output.

It limits itself (memory, time without output, size of files it writes) and is replaced by its
parent when it dies. Run as `python -m searchapp.ingest.extract`.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from .reading import read_items
from .records import Item, Limits, Source, as_json


def main() -> None:
    out = _private_output()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limits = Limits(**request["limits"])
        _limit(limits)
        source = Source(
            path=Path(request["path"]),
            name=request["name"],
            limits=limits,
            scratch=Path(request["scratch"]) if request["scratch"] else None,
            depth=request["depth"],
        )
        _answer(source, out)


def _private_output() -> BinaryIO:
    """Standard output for us alone: whatever a library prints goes nowhere."""
    out = os.fdopen(os.dup(1), "wb", buffering=256 * 1024)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    sys.stdout = io.TextIOWrapper(io.FileIO(null, "w", closefd=False))
    return out


def _limit(limits: Limits) -> None:
    _lower(resource.RLIMIT_AS, limits.memory_bytes)
    _lower(resource.RLIMIT_FSIZE, limits.upload_bytes + 1024 * 1024)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (soft, hard))


def _answer(source: Source, out: BinaryIO) -> None:
    # A parent that was killed cannot stop us; the alarm does. It rests while we wait for a reader.
    seconds = max(1, int(source.limits.seconds)) + 5
    signal.alarm(seconds)
    for item in read_items(source):
        signal.alarm(0)
        _write(out, _line(item))
        signal.alarm(seconds)
    signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _write(out, {"kind": "end", "peak_bytes": peak})
    out.flush()


def _line(item: Item) -> dict[str, Any]:
    return as_json(item)


def _write(out: BinaryIO, data: dict[str, Any]) -> None:
    out.write(json.dumps(data, ensure_ascii=False).encode("utf-8", errors="replace"))
    out.write(b"\n")


if __name__ == "__main__":
    main()
