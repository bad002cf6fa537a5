"""Log lines without API keys, wherever a line got one from."""

from __future__ import annotations

import logging
import re

# Also what is left of a key that was cut: most of one is as good as the whole to a guesser.
_KEY = re.compile(r"(podium_)[A-Za-z0-9_-]{12,}")


class LineWithoutKeys(logging.Formatter):
    """As its base class, tracebacks included, with `podium_…` in the place of each key."""

    def format(self, record: logging.LogRecord) -> str:
        return _KEY.sub(r"\1…", super().format(record))
