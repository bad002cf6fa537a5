"""The engine: text and numbers in, numbers out. No Django, no Celery, no database.

    from rerank import load
    load("zerank-2").rank("a query", ["a document", "another"], top_k=1)

Heavy imports (torch) happen in `rerank.inference` only, and `load` is the first to ask for them.
"""

from rerank.ranked import Model, Ranked, load

__all__ = ["Model", "Ranked", "load"]
