"""Bytes to text, one module per format. Nothing here imports Django: it runs in a child process."""
