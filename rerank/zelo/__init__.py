"""Preferences between documents -> a reranker that has learned from them (zELO, arXiv 2509.12541).

`run` does all of it by a `recipe`. The maths, in the order they run: `pairing` which documents to
compare, `judging` what the judges say, `raters` how far each judge can be believed, `scoring` one
score per document, `offsets` one scale for all queries. The stages, from file to file:
`candidates`, `stages`, `judge_stage`, `score_stage`, `training_stage`, `second_pass`,
`calibration_stage`, `checkpoint_stage`, `evaluation_stage`. torch is imported only where a model
runs.
"""
