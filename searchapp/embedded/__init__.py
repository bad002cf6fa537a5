"""PostgreSQL and Redis of our own, and the supervisor behind `manage.py up`."""

from .servers import ensure
from .state import EmbeddedError, prepare

__all__ = ["EmbeddedError", "ensure", "prepare"]
