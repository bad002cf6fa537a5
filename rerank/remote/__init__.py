"""Rerankers that answer over HTTP. No torch."""
