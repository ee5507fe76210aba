"""The choice among models."""
