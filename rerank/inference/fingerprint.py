"""Which weights a directory holds, as one short string that changes when they do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

# Files up to this size are read whole; of larger ones the ends and the time of change must do.
READ_WHOLE_BYTES = 1 << 30
_END_BYTES = 1 << 20
_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.metadata")


def revision(directory: Path, dtype: Any, backend: str = "torch") -> str:
    """Of a model as it is served: weights, number format and what computes with them."""
    return f"{fingerprint(directory)}-{str(dtype).removeprefix('torch.')}-{backend}"


def fingerprint(directory: Path) -> str:
    """A hash of the contents; a commit's own name where the hub's cache keeps the directory."""
    if directory.parent.name == "snapshots":
        return directory.name
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _PATTERNS for path in directory.rglob(pattern)}):
        digest.update(path.relative_to(directory).as_posix().encode())
        digest.update(_content(path))
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= READ_WHOLE_BYTES:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    with path.open("rb") as file:
        ends = file.read(_END_BYTES)
        file.seek(-_END_BYTES, 2)
        ends += file.read()
    stamp = f"{size} {path.stat().st_mtime_ns}".encode()
    return hashlib.sha256(ends + stamp).digest()
