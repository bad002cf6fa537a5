"""The drawing child: one page of a PDF as JPEG on standard output, within limits.

Run as `python -m searchapp.ingest.extract.rendering PATH INDEX MEMORY_BYTES SECONDS`; exits with 1
when the page cannot be drawn.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys

# The longer side, in pixels: an A4 page at 144 dots per inch.
LONG_SIDE = 1684
QUALITY = 85


def main() -> int:
    path, index, memory_bytes, seconds = sys.argv[1], *map(int, sys.argv[2:5])
    for what, value in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (allowed, hard))
    signal.alarm(seconds)
    # Whatever a library prints goes nowhere.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        out.write(_jpeg(path, index))
    except Exception:  # damaged files end in many ways
        return 1
    out.close()
    return 0


def _jpeg(path: str, index: int) -> bytes:
    import pypdfium2

    pdf = pypdfium2.PdfDocument(path)
    page = pdf[index]
    longest = max(page.get_size()) or 1.0
    image = page.render(scale=min(LONG_SIDE / longest, 4.0)).to_pil().convert("RGB")
    made = io.BytesIO()
    image.save(made, "JPEG", quality=QUALITY)
    return made.getvalue()


if __name__ == "__main__":
    sys.exit(main())
