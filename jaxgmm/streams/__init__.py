"""Mixtures of samples that arrive in batches, of which none is kept."""
