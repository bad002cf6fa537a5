"""Rerankers trained by a collection's own judgments: the bridge from its rows to rerank.zelo.

`asked` what may be asked for, `counting` what there is to learn from, `export` that as files,
`zelo_run` the pipeline on them, `comparison` whether the result ranks better, `registry` which
checkpoint serves, `jobs` one job from its request to its end, `charts` its pictures.
"""
