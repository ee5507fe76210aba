"""Arithmetic that knows nothing of mixtures."""
