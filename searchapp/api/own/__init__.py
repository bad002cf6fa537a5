"""Podium's own API: all that a page can show of a search, its configs and its judgments."""
