"""Instruction training data whose labels are right by construction, and what models make of it.

`rules` says what an instruction asks of documents whose facts are known, and so gives the targets.
`wording` puts rules and facts into sentences. `composed` makes documents out of worlds of our own,
`wrapped` puts metadata around given passages; both yield contrasts: one query and its documents
under opposite instructions, under none, and under one that concerns none of them. `generate` mixes
and writes them, `following` measures whether a reranker orders them as told.
"""
