"""Comparison of two fits of the same data."""

import numpy as np

import jaxgmm


def assert_same_fit(found: jaxgmm.FitResult, expected: jaxgmm.FitResult, rtol: float = 1e-6) -> None:
    """Two runs from one start that differ by rounding."""
    assert (found.status, found.n_iter) == (expected.status, expected.n_iter)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    for name in ("ridge", "n_samples", "n_parameters", "spurious", "ridge_dominated", "start_status"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)
    for own, other in zip(found.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_allclose(own, other, rtol=rtol, atol=rtol)
    assert (found.history is None) == (expected.history is None)
    if found.history is not None:
        np.testing.assert_allclose(found.history, expected.history, rtol=rtol)
        for own, other in zip(found.snapshots.arrays, expected.snapshots.arrays, strict=True):
            np.testing.assert_allclose(own, other, rtol=rtol, atol=rtol)
