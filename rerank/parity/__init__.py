"""The gate every backend passes before it may serve. No torch: it asks a reranker for scores only.

`gate.run_parity` holds a candidate against a reference, `gate.self_check` against itself;
`report.ParityReport` is what both give back.
"""
