"""Fine-tuning a reranker on queries, documents and targets (or preferences between documents).

`examples` what is learned from, `settings` how, `bases` what can be trained, `lora` with few
weights, `losses`, `splitting` what is held out, `order` which lists go together, `loop` the
training itself, `state` what a killed run goes on from, `checkpoint` what comes out, `memory_plan`
what fits on which GPU.
"""
