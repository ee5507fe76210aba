"""Groups that many processes count are those that one counts, whatever the ranges of rows and keys."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxgmm.tables import parts, plans, ranges, shuffle
from jaxgmm.tables import rows as rows_module
from jaxgmm.tables.groups import group
from jaxgmm.tables.ranges import Ranges, bounds_of
from jaxgmm.tables.rows import open_rows

DRAW = np.random.default_rng(0)
SIZES = DRAW.integers(1, 12, 60)
SIZES[7] = 90
GROUP = DRAW.permutation(np.repeat(np.arange(60), SIZES))
# Keys of two columns, one of which holds nulls.
TABLE = pa.table(
    {
        "plate": [None if i % 7 == 6 else f"p{i % 7}" for i in GROUP.tolist()],
        "well": GROUP // 7,
        "x": DRAW.normal(size=len(GROUP)),
        "w": DRAW.integers(0, 3, len(GROUP)),
    }
)
BY = ["plate", "well"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Many ranges of rows and of keys."""
    monkeypatch.setattr(rows_module, "_BLOCK", 16)
    monkeypatch.setattr(ranges, "_NUMBERS", 4 * 40)
    monkeypatch.setattr(shuffle, "_ROWS", 60)


def shuffled(rows, aside, rows_per_part, weights=None):
    """The plan that all steps make, one after another."""
    counting = shuffle.Counting(rows, BY, weights, bounds_of(rows, 4), aside)
    samples = [shuffle.sample(counting, number) for number in shuffle.sampled(counting)]
    counting = counting._replace(first_keys=shuffle.divided(samples, int(counting.bounds[-1])))
    counted = [shuffle.count(counting, number) for number in range(counting.n_ranges)]
    found = Ranges(counting.bounds, np.cumsum([0, *(own.n_rows for own in counted)]))
    merging = shuffle.Merging(BY, aside, found.with_rows, rows_per_part)
    each = [shuffle.merge(merging, number) for number in range(counting.first_keys.num_rows + 1)]
    return len(each), parts.successive(each, found, is_in_order=shuffle.are_in_order(counted))


@pytest.mark.parametrize("where", [None, "x > -1 and well <> 3", "well = 3 and plate = 'p2'"])
@pytest.mark.parametrize("is_in_order", [False, True])
@pytest.mark.parametrize("rows_per_part", [1, 30, 1000])
def test_parts_hold_whole_groups_in_the_order_of_keys(tmp_path, where, is_in_order, rows_per_part):
    table = TABLE.sort_by([(name, "ascending") for name in BY]) if is_in_order else TABLE
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=50)
    rows = open_rows(tmp_path / "table.parquet", [*BY, "x"], keys=BY, where=where)
    n_key_ranges, plan = shuffled(rows, tmp_path / "counted", rows_per_part)
    here = parts.plan(rows, BY, ["x", "w"], None, lambda _: rows_per_part)
    assert plan.cut.is_in_order == here.cut.is_in_order
    np.testing.assert_array_equal(plan.sizes, here.sizes)
    np.testing.assert_array_equal(plan.cut.ranges.before, here.cut.ranges.before)
    assert (plan.cut.n_rows, sum(plan.n_groups)) == (here.cut.n_rows, sum(here.n_groups))
    assert n_key_ranges > 3 or where is not None

    wanted = range(plan.cut.n_parts)
    groups = [group(own, BY, ["x"]) for own in parts.read(rows, plan.cut, [*BY, "x"], wanted, tmp_path / "aside")]
    whole = group(pa.concat_tables(rows.blocks([*BY, "x"])), BY, ["x"])
    np.testing.assert_array_equal(np.concatenate([own.samples for own in groups]), whole.samples)
    assert pa.concat_tables([own.keys for own in groups]).equals(whole.keys)
    assert [own.keys.num_rows for own in groups] == plan.n_groups.tolist()
    assert pa.concat_tables([own.keys.slice(0, 1) for own in groups]).equals(plan.cut.first_keys)


def test_one_range_of_keys_makes_the_parts_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "_ROWS", 10**6)
    pq.write_table(TABLE, tmp_path / "table.parquet", row_group_size=50)
    rows = open_rows(tmp_path / "table.parquet", [*BY, "x", "w"], keys=BY)
    n_key_ranges, plan = shuffled(rows, tmp_path / "counted", 30, "w")
    assert n_key_ranges == 1
    plans.keep(plan, tmp_path / "plan.arrow")
    for found in (parts.plan(rows, BY, ["x"], "w", lambda _: 30), plans.kept(tmp_path / "plan.arrow")):
        assert found.cut.first_keys.equals(plan.cut.first_keys)
        for own, other in zip(
            (found.cut.ends, found.n_groups, found.sizes, *found.cut.ranges),
            (plan.cut.ends, plan.n_groups, plan.sizes, *plan.cut.ranges),
            strict=True,
        ):
            np.testing.assert_array_equal(own, other)
        assert found.cut.is_in_order == plan.cut.is_in_order


def test_what_cannot_be_counted_is_refused(tmp_path):
    table = TABLE.set_column(3, "w", pa.array([*[1.0] * (TABLE.num_rows - 1), -1.0]))
    pq.write_table(table, tmp_path / "table.parquet")
    rows = open_rows(tmp_path / "table.parquet", [*BY, "x", "w"], keys=BY)
    with pytest.raises(ValueError, match=r"column 'w' holds -1\.0"):
        shuffled(rows, tmp_path / "counted", 30, "w")


def test_a_plan_that_is_damaged_is_one_line_with_the_remedy(tmp_path):
    path = tmp_path / "plan.arrow"
    assert plans.kept(path) is None
    path.write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"plan\.arrow is damaged; remove .* to begin anew"):
        plans.kept(path)
