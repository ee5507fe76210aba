"""Batches as users pass them."""

import numpy as np

from jaxgmm.streams.reading import first_rows


def test_the_first_samples_hold_no_large_batch():
    batches = [np.arange(4.0)[:, None], np.arange(4.0, 10_000)[:, None]]
    first, rest = first_rows(iter(batches), 10)
    np.testing.assert_array_equal(first.x[:, 0], np.arange(10))
    assert first.x.base is None or len(first.x.base) <= 20
    assert [len(rows.x) for rows in rest] == [4, 9_996]
