"""Preferences between documents -> scores that a reranker can learn from (zELO, arXiv 2509.12541).

The files in the order they run: `pairing` which documents to compare, `judging` what the judges
say, `raters` how far each judge can be believed, `scoring` one score per document, `offsets` one
scale for all queries. `stages` runs them from file to file. No torch here.
"""
