"""What a caller is told about an error of ours: never more than that it is one."""

from __future__ import annotations

import logging

from django.db import OperationalError

from searchapp.middleware import is_out_of_space

from .refusals import Refusal

logger = logging.getLogger(__name__)


def failure_of(path: str, error: Exception) -> Refusal:
    """Logged once, here."""
    if is_out_of_space(error):
        return Refusal(507, "full", "The server has no space left. Nothing was changed.")
    if isinstance(error, OperationalError):
        logger.warning("%s: the database did not serve a call: %s", path, error)
        sentence = "The database does not answer right now. Try again in a moment."
        return Refusal(503, "no-database", sentence, retry_after=1.0)
    logger.exception("%s failed", path)
    return Refusal(500, "failed", "Internal Server Error")
