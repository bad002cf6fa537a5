"""Is a reranker better than no reranker? Judged folders, first stages in memory, and the answer."""
