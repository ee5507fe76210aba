"""Arithmetic that knows no mixtures."""
