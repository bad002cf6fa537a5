"""Pages of PDF files as pictures, each drawn by a limited child process."""

from __future__ import annotations

import subprocess
import sys
import threading

from django.conf import settings

from .extract.running import ROOT, child_environment

SECONDS = 20
# Drawing takes a core each; who comes beyond these is told to come again.
AT_ONCE = 2

_DRAW = [sys.executable, "-m", "searchapp.ingest.extract.rendering"]
_places = threading.BoundedSemaphore(AT_ONCE)


class TooBusy(Exception):
    """Enough pages are being drawn already."""


def page_image(path: str, index: int) -> bytes | None:
    """JPEG of page `index` (from 0) of a PDF; None when it cannot be drawn. Raises TooBusy."""
    if not _places.acquire(timeout=SECONDS / 4):
        raise TooBusy
    try:
        drawn = subprocess.run(
            [*_DRAW, path, str(index), str(settings.PARSE_MEMORY_BYTES), str(SECONDS)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=child_environment(),
            timeout=SECONDS + 5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    finally:
        _places.release()
    return drawn.stdout if drawn.returncode == 0 and drawn.stdout else None
