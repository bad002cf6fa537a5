"""The ZeroEntropy contract: its official client works by changing the base URL."""
