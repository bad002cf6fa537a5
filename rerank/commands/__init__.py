"""What `python -m rerank` can do: each module adds its arguments and runs one thing."""
