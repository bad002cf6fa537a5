"""The rerank endpoints of other providers: their clients work here when their base URL is changed.

Each dialect has an address of its own, because several providers answer at /v1/rerank and differ.
What is not served here (a parameter of another model, say) is let pass where it changes nothing
that a caller could rely on, and is told in the answer where a dialect has a place for that.
"""
