"""What to do without Redis where it only saves work: not to ask again at once."""

from __future__ import annotations

import logging
import time

# After a failure nobody asks again for this long.
PAUSE_SECONDS = 5.0


class Outage:
    """One of a process for one use of Redis. Safe from any thread.

    Says once that Redis does not answer, and once that it does again: `without` is what is so until
    then, `back` what is so from then on.
    """

    def __init__(self, logger: logging.Logger, without: str, back: str) -> None:
        self._logger, self._without, self._back = logger, without, back
        self._until = 0.0
        self._said = False

    def paused(self) -> bool:
        """Whether asking now would most likely be in vain."""
        return time.monotonic() < self._until

    def begin(self, error: BaseException) -> None:
        """Redis did not answer."""
        self._until = time.monotonic() + PAUSE_SECONDS
        if not self._said:
            self._logger.warning("%s until Redis answers: %s", self._without, error)
        self._said = True

    def end(self) -> None:
        """Redis answered."""
        self._until = 0.0
        if self._said:
            self._logger.warning("%s", self._back)
        self._said = False
