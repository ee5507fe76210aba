"""Sums that tell whether samples are those that were fitted."""

import numpy as np
import pyarrow as pa
import pytest

from jaxgmm.tables.groups import Groups, group
from jaxgmm.tables.unchanged import check_unchanged, checksums

RNG = np.random.default_rng(0)
COLUMNS = {
    "key": [*RNG.integers(3, size=200), 0, 1, 2],
    "a": [*(1e6 + RNG.normal(size=200)), np.nan, 1e300, -np.inf],
    "b": RNG.normal(size=203) * 1e-6,
    "w": RNG.uniform(size=203),
}


def grouped(**changed: object) -> Groups:
    return group(pa.table(COLUMNS | changed), ["key"], ["a", "b"], "w")


def check(now: Groups) -> None:
    fitted = grouped()
    check_unchanged(now, fitted.n_samples, checksums(fitted))


def test_the_order_of_samples_does_not_matter() -> None:
    order = RNG.permutation(203)
    check(grouped(**{name: np.array(values)[order] for name, values in COLUMNS.items()}))


@pytest.mark.parametrize("name", ["a", "b", "w"])
def test_one_value_makes_a_difference(name: str) -> None:
    values = np.array(COLUMNS[name])
    values[7] *= 1 + 1e-5
    with pytest.raises(ValueError, match=f"^{COLUMNS['key'][7]} has other values in the frame"):
        check(grouped(**{name: values}))


def test_values_that_are_filled_or_paired_anew_make_a_difference() -> None:
    with pytest.raises(ValueError, match=r"^0 has other values"):
        check(grouped(a=np.nan_to_num(COLUMNS["a"])))
    own = np.flatnonzero(np.array(COLUMNS["key"]) == 1)
    b = COLUMNS["b"].copy()
    b[own] = b[own[::-1]]
    with pytest.raises(ValueError, match=r"^1 has other values"):
        check(grouped(b=b))


def test_numbers_of_samples_are_compared_first() -> None:
    with pytest.raises(ValueError, match="has 0 rows in the frame, where"):
        check(grouped()._replace(offsets=np.array([0, 0, 100, 203])))
