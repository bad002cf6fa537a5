"""The product: pages, rows, uploads and jobs around the `rerank` engine."""
