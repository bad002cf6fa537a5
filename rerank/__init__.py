"""The engine: text and numbers in, numbers out. No Django, no Celery, no database.

Heavy imports (torch) happen in `rerank.inference` only.
"""
