"""A mixture for every group of a data frame."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxgmm
from jaxgmm.frames import fit_groups

NAN = math.nan


# Programs are compiled for the number of groups, of features and of components. Most tests have two groups of few rows,
# whose lengths differ, of one feature and one component.
KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}
OPTIONS = {"n_init": 2, "max_iter": 40}


def rows(frame):
    """The rows of a frame of any kind as dicts, with None for what is missing."""
    if isinstance(frame, pd.DataFrame):
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    return frame.to_pylist() if isinstance(frame, pa.Table) else frame.to_dicts()


def column(frame, name):
    return [row[name] for row in rows(frame)]


def samples():
    """Two features of three interleaved groups, and where they come from."""
    draw = np.random.default_rng(0)
    plate, well = draw.integers(1, 3, size=240), np.array(["b", "a"])[draw.integers(2, size=240)]
    red = draw.normal(size=240) + 8 * draw.integers(2, size=240)
    return {"plate": plate, "well": well, "red": red, "green": draw.normal(size=240), "w": draw.uniform(size=240)}


@pytest.fixture(params=KINDS)
def make(request):
    return KINDS[request.param]


def test_groups_of_a_frame_are_fitted_as_they_would_be_alone(make):
    columns = samples()
    frame = make(columns)
    found = fit_groups(frame, ["well", "plate"], ["red", "green"], 2, covariance_type="diag", **OPTIONS)
    assert all(type(table) is type(frame) for table in (found.fits, found.components))
    assert found.models is None
    keys = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert list(zip(column(found.fits, "well"), column(found.fits, "plate"), strict=True)) == keys
    x = np.stack([columns["red"], columns["green"]], axis=1)
    x = [x[(columns["well"] == well) & (columns["plate"] == plate)] for well, plate in keys]
    expected = jaxgmm.order_components(jaxgmm.fit(x, 2, covariance_type="diag", **OPTIONS))
    assert column(found.fits, "n_samples") == [len(item) for item in x]
    assert column(found.fits, "log_likelihood") == expected.log_likelihood.tolist()
    assert column(found.fits, "status") == [jaxgmm.Status(code).name for code in expected.status]
    np.testing.assert_array_equal(found.result.mixture.means, expected.mixture.means)
    assert column(found.components, "mean_green") == expected.mixture.means[:, :, 1].ravel().tolist()
    assert column(found.components, "variance_red") == expected.mixture.covariances[:, :, 0].ravel().tolist()
    assert column(found.components, "component") == [0, 1] * 4
    assert column(found.components, "plate") == [1, 1, 2, 2] * 2


def test_choice_among_models_is_a_sweep(make):
    columns = samples()
    frame = make(columns)
    found = fit_groups(frame, "plate", ["red"], range(1, 3), criterion="aic", n_init=2)
    x = [columns["red"][columns["plate"] == plate, None] for plate in (1, 2)]
    expected = jaxgmm.order_components(jaxgmm.sweep(x, range(1, 3), criterion="aic", n_init=2))
    assert column(found.fits, "n_components") == expected.chosen["n_components"].tolist() == [2, 2]
    assert column(found.fits, "aic") == expected.chosen["aic"].tolist()
    assert column(found.models, "aic") == expected.table["aic"].tolist()
    assert column(found.models, "plate") == [1, 1, 2, 2]
    assert column(found.components, "weight") == expected.best.mixture.weights.ravel().tolist()
    assert type(found.models) is type(frame)
    assert list(found.notes) == [note.replace("data sets", "groups") for note in expected.notes] != []
    assert len(found) == 2
    one, turned = found.of(1), found.of([1, 0])
    assert repr(one).startswith("GroupFits: 1 group, D = 1\n  K = 2, full  chosen for 1 group\n")
    assert type(one.models) is type(frame)
    for name in ("fits", "components", "models"):
        of_each = [[row for row in rows(getattr(found, name)) if row["plate"] == plate] for plate in (1, 2)]
        assert rows(getattr(one, name)) == of_each[1]
        assert rows(getattr(turned, name)) == of_each[1] + of_each[0]
    assert one.result.log_likelihood == found.result.log_likelihood[1]
    assert repr(found).splitlines()[:3] == [
        "GroupFits: 2 groups, D = 1",
        "  K = 2, full  chosen for 2 groups",
        "  CONVERGED  2 groups",
    ]


@pytest.mark.parametrize(
    "options", [{"n_components": [1]}, {"covariance_type": ["full"]}, {"reg_covar": (1e-6,)}, {"criterion": "bic"}]
)
def test_whatever_asks_for_a_choice_gets_one(options):
    found = fit_groups(pa.table(FOUR), "key", "x", **{"n_components": 1} | OPTIONS | options)
    assert found.models.num_rows == 2
    assert found.fits["bic"].to_pylist() == found.models["bic"].to_pylist()


@pytest.mark.parametrize("dropna", [True, False])
def test_null_keys_are_left_out_or_a_group_of_their_own(make, dropna):
    frame = make({"key": ["b", None, "a", None, "b"], "other": [1, 1, 1, 1, 1], "x": [1.0, 2.0, 3.0, 4.0, 5.0]})
    fits = fit_groups(frame, ["key", "other"], "x", 1, dropna=dropna, **OPTIONS).fits
    assert column(fits, "key") == (["a", "b"] if dropna else ["a", "b", None])
    assert column(fits, "n_samples") == ([1, 2] if dropna else [1, 2, 2])


def test_nan_keys_are_null_where_the_frame_takes_them_for_it(make):
    frame = make({"key": np.array([2.0, math.nan, 1.0, math.nan, 2.0]), "x": np.arange(5.0)})
    fits = [fit_groups(frame, "key", "x", 1, dropna=drop, **OPTIONS) for drop in (True, False)]
    lengths = [column(found.fits, "n_samples") for found in fits]
    assert lengths == [[1, 2] if make is pd.DataFrame else [1, 2, 2], [1, 2, 2]]
    assert column(fits[1].of([1]).components, "key") == [2.0]
    assert len(rows(fits[1].of(2).components)) == 1


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"key": np.repeat(np.array([0, 1, 5000, 9000], "datetime64[ns]"), 2), "x": np.arange(8.0)}),
        pd.DataFrame({"key": pd.array([1, 1, 2, 2, None, None, 3, 3], "Int64"), "x": np.arange(8.0)}),
    ],
    ids=["nanoseconds", "null"],
)
def test_groups_whose_keys_are_hard_to_compare_are_told_apart(frame):
    found = fit_groups(frame, "key", "x", [1], dropna=False, **OPTIONS)
    for b in range(4):
        own = found.of(b)
        assert column(own.components, "mean_x") == own.result.mixture.means[:, 0].tolist()
        for table in (own.components, own.models):
            assert column(table, "key") == column(found.fits, "key")[b : b + 1]


def test_null_features_are_a_status_of_their_group(make):
    frame = make({"key": [1, 1, 2, 2, 2], "x": [1.0, None, 2.0, 3.0, 4.0]})
    found = fit_groups(frame, "key", "x", 1, **OPTIONS)
    assert column(found.fits, "status")[0] == "NONFINITE"
    assert column(found.fits, "explanation")[0] == f"{jaxgmm.Status.NONFINITE.sentence[:-1]} (1 of 2 samples)."
    assert found.group(1).doubts[-1] == "1 holds NaN or infinity in 1 of 2 samples: row 1 of the frame."
    assert column(found.fits, "log_likelihood")[0] is None
    assert column(found.components, "mean_x") == [None, 3.0]


def test_weights_are_a_column(make):
    columns = {name: values[:31] for name, values in samples().items()}
    found = fit_groups(make(columns), "plate", "red", 1, weights="w", **OPTIONS)
    means = [
        np.average(columns["red"][own], weights=columns["w"][own]) for own in (columns["plate"] == p for p in (1, 2))
    ]
    np.testing.assert_allclose(found.result.mixture.means[:, 0, 0], means, rtol=1e-10)


def test_one_group_has_a_row(make):
    frame = make({"key": ["a"] * 3, "x": [1, 2, 4], "y": [2, 1, 4]})
    fits = fit_groups(frame, "key", ["x", "y"], 1, **OPTIONS).fits
    assert column(fits, "key") == ["a"]
    assert column(fits, "n_samples") == [3]


def test_keys_keep_their_types_in_pandas():
    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(["2024-03-02", "2024-03-01", "2024-03-02"]).tz_localize("Europe/Paris"),
            "cell": pd.Categorical(["b", "a", "b"], categories=["b", "a", "unseen"]),
            "well": pd.array([2, 1, 2], dtype="Int16"),
            "x": [1.0, 2.0, 3.0],
        },
        index=[7, 7, 9],
    )
    found = fit_groups(frame, ["cell", "when", "well"], "x", 1, **OPTIONS)
    for table in (found.fits, found.components):
        assert table.index.tolist() == [0, 1]
        pd.testing.assert_series_equal(table.dtypes[:3], frame.dtypes[["cell", "when", "well"]])
        assert table["cell"].tolist() == ["a", "b"]
        assert table["when"].tolist() == frame["when"].tolist()[1::-1]


def test_keys_keep_their_types_in_polars():
    types = {"cell": pl.Categorical, "grade": pl.Enum(["low", "high"]), "when": pl.Datetime("ms"), "day": pl.Date}
    frame = pl.DataFrame(
        {"cell": ["b", "a", "b"], "grade": ["low", "high", "low"], "when": [3, 2, 3], "day": [9, 9, 9], "x": [1, 2, 3]}
    ).cast(types)
    found = fit_groups(frame, list(types), "x", 1, **OPTIONS)
    for table in (found.fits, found.components):
        assert table.select(list(types)).schema == frame.select(list(types)).schema
        assert table.select(list(types)).rows() == [frame.select(list(types)).row(row) for row in (1, 0)]


def test_keys_keep_their_types_in_arrow():
    keys = {"cell": pa.array(["b", "a", "b"]).dictionary_encode(), "n": pa.array([1, 2, 1], pa.uint8())}
    found = fit_groups(pa.table(keys | {"x": [1.0, 2.0, 3.0]}), ["cell", "n"], "x", 1, **OPTIONS)
    assert [found.fits.schema.field(name).type for name in keys] == [values.type for values in keys.values()]
    assert found.fits["cell"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"df": pl.LazyFrame({"key": [1], "x": [1]})}, "df is a lazy frame, LazyFrame; collect it first"),
        ({"df": {"key": [1], "x": [1]}}, "df must be a pandas or Polars DataFrame or a PyArrow Table; got dict"),
        ({"df": pd.DataFrame({"key": [], "x": []})}, "the table is empty"),
        ({"df": pd.DataFrame({"key": [None], "x": [1.0]})}, "every row has a null in its key; pass dropna=False"),
        ({"df": pd.DataFrame({"key": [1], 0: [1.0]})}, "the table has no column 'x'; its columns are key, 0"),
        (
            {"df": pd.DataFrame({"key": [1, "a"], "x": [1, 2]})},
            "a column holds values of several types, or of one that Arrow lacks .Could not convert 'a' with type str: "
            "tried to convert to int64; Conversion failed for column key with type object.; convert it to one type",
        ),
        ({"by": "absent"}, "the table has no column 'absent'; its columns are key, x, status, text"),
        ({"by": 0}, "by must be the name of a column, or a sequence of names; got 0"),
        ({"features": ["x", 1]}, "features must be the name of a column, or a sequence of names"),
        ({"features": []}, "no feature column is named"),
        ({"weights": 3}, "weights must be the name of a column"),
        ({"weights": "x"}, "weights must not be negative; column 'x' holds -1.0"),
        ({"by": "status"}, "two columns of the output would be called 'status'"),
        ({"by": "bic", "criterion": ("aic", "bic")}, "two columns of the output would be called 'bic'"),
        ({"features": "text"}, "column 'text' holds .*string, not numbers"),
        ({"sample_weight": [1.0]}, "takes sample weights from a column; name it as weights"),
        ({"n_components": 0}, "n_components must be an integer of at least 1"),
        ({"n_components": 2.0}, r"n_components must be one integer or a sequence of integers; got 2\.0"),
        ({"n_components": []}, "n_components must name at least one value"),
        ({"covariance_type": None}, "covariance_type must be one name or a sequence"),
        ({"criterion": None}, "criterion must be one name or a sequence"),
        ({"covariance_type": "round"}, "covariance_type must be one of"),
    ],
)
def test_misuse_is_refused_in_words(arguments, words):
    columns = {"key": [1, 2], "x": [-1.0, 2.0], "status": ["a", "b"], "text": ["a", "b"]}
    columns |= {"bic": [1, 2]} if "criterion" in arguments else {}
    with pytest.raises(ValueError, match=words):
        fit_groups(**{"df": pl.DataFrame(columns), "by": "key", "features": "x", "n_components": 1} | arguments)


def test_names_may_be_an_index():
    df = pd.DataFrame({"cell": ["a"] * 6, "red": np.arange(6.0), "green": np.arange(6.0) ** 2})
    found = fit_groups(df, by=df.columns[:1], features=df.columns[1:], n_components=1, **OPTIONS)
    assert found.fits["status"].tolist() == ["CONVERGED"]


def test_options_of_another_call_are_refused_before_any_work():
    df = pd.DataFrame({"cell": ["a"] * 6, "red": np.arange(6.0)})
    with pytest.raises(ValueError, match=r"'patience' is not an option of jaxgmm\.fit, which fits these"):
        fit_groups(df, "cell", "red", 1, patience=1)
    with pytest.raises(ValueError, match=r"'random_state' is not an option.*did you mean 'key'\?"):
        fit_groups(df, "cell", "red", 1, random_state=1)
    with pytest.raises(ValueError, match=r"'n_starts' is not an option.*did you mean 'n_init'\?"):
        fit_groups(pl.DataFrame({"key": [1], "x": [1.0]}), "key", "x", 1, n_starts=3)
    with pytest.raises(ValueError, match=r"'max_iters' is not an option.*did you mean 'max_iter'\?"):
        fit_groups(df, "cell", "red", 1, max_iters=1)
    with pytest.raises(ValueError, match=r"'weight' is not an option.*did you mean 'weights'\?"):
        fit_groups(df, "cell", "red", 1, weight="red")
    with pytest.raises(ValueError, match=r"'drop_na' is not an option.*did you mean 'dropna'\?"):
        fit_groups(df, "cell", "red", 1, drop_na=False)
    with pytest.raises(ValueError, match=r"'history' is not an option of jaxgmm\.sweep"):
        fit_groups(df, "cell", "red", (1, 2), history=True)


FOUR = {"key": ["a", "b"] * 3 + ["a"] * 2, "x": [1.0, 2.0, 4.0, 8.0] * 2}


def fitted(df, by="key", features="x", **options):
    return fit_groups(df, by, features, 1, **OPTIONS, **options)


def assert_same_fits(found, expected):
    assert column(found.fits, "log_likelihood") == column(expected.fits, "log_likelihood")
    assert list(map(str, column(found.fits, "key"))) == list(map(str, column(expected.fits, "key")))


def doubled(make):
    if make is pa.table:
        return pa.table([*FOUR.values(), [1] * 8, [2] * 8], names=[*FOUR, "other", "other"])
    return pd.concat([pd.DataFrame(FOUR), pd.DataFrame({"other": [1] * 8}), pd.DataFrame({"other": [2] * 8})], axis=1)


@pytest.mark.parametrize("make", [pd.DataFrame, pa.table])
def test_columns_of_one_name_are_ignored_or_refused_in_words(make):
    frame = doubled(make)
    assert_same_fits(fitted(frame), fitted(make(FOUR)))
    for names in {"by": "other"}, {"features": "other"}, {"weights": "other"}:
        with pytest.raises(ValueError, match="the table has 2 columns called 'other'; rename all but one"):
            fitted(frame, **names)


def test_sparse_columns_are_filled():
    dense = pd.DataFrame({"key": [1, 2] * 3 + [1] * 2, "x": FOUR["x"], "w": [0.0, 1.0, 2.0, 0.0] * 2})
    sparse = dense.apply(pd.arrays.SparseArray)
    assert {str(dtype)[:6] for dtype in sparse.dtypes} == {"Sparse"}
    assert_same_fits(fitted(sparse, weights="w"), fitted(dense, weights="w"))
    gaps = dense.assign(x=pd.arrays.SparseArray([NAN, 1.0] * 4))
    assert column(fitted(gaps).fits, "status") == ["NONFINITE", "DEGENERATE"]


@pytest.mark.parametrize("name", [0, 1.5, None, NAN, ("key", "x"), pd.NA, pd.Timestamp("2024-01-01")])
def test_columns_called_otherwise_than_by_texts_are_ignored(name):
    frame = pd.DataFrame(FOUR)
    frame.insert(0, "new", FOUR["x"])
    frame.columns = pd.Index([name, *FOUR], dtype=object)
    assert_same_fits(fitted(frame), fitted(pd.DataFrame(FOUR)))
    with pytest.raises(ValueError, match=r"the table has no column 'y'; its columns are .*, key, x"):
        fitted(frame, features="y")


def test_names_that_are_no_texts_are_refused_with_the_remedy():
    frame = pd.DataFrame({0: [1.0] * 2 + [2.0] * 4, 1: np.arange(6.0)})
    with pytest.raises(
        ValueError, match=r"by must be the name of a column.*got 0\. Rename columns whose names are not strings"
    ):
        fitted(frame, by=0, features=1)
    with pytest.raises(ValueError, match=r"features must be .*Rename columns whose names are not strings"):
        fitted(frame.rename(columns={0: "key"}), features=[1])
    with pytest.raises(
        ValueError, match="no column '0'; one has a name that is not a string but looks the same: rename it"
    ):
        fitted(frame, by="0", features="1")
    assert column(fitted(frame.rename(columns=str), by="0", features="1").fits, "n_samples") == [2, 4]


@pytest.mark.parametrize(
    "columns",
    [
        {"key": np.full(8, 1j)},
        {"x": np.full(8, 1j)},
        {"key": [object()] * 8},
        {"key": [2**70, 1] * 4},
        {"key": [1, "a"] * 4},
        {"x": ["a", 1.0] * 4},
        {"x": [2**70, 2**80] * 4},
    ],
)
def test_values_that_arrow_has_no_type_for_are_refused_in_words(columns):
    with pytest.raises(
        ValueError, match="a column holds values of several types, or of one that Arrow lacks"
    ) as caught:
        fitted(pd.DataFrame(FOUR | columns))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_arrow_columns_of_views_and_runs_are_keys_and_features():
    keys = pa.RunEndEncodedArray.from_arrays([3, 8], ["b", "a"])
    expected = fitted(pa.table({"key": ["b"] * 3 + ["a"] * 5, "x": FOUR["x"]}))
    assert_same_fits(fitted(pa.table({"key": keys, "x": FOUR["x"]})), expected)
    views = pa.array(["b"] * 3 + ["a"] * 5, pa.string_view())
    runs = pa.RunEndEncodedArray.from_arrays(list(range(1, 9)), FOUR["x"])
    assert_same_fits(fitted(pa.table({"key": views, "x": runs})), expected)


def test_what_is_refused_is_quoted_in_part():
    frame = pd.DataFrame([range(9999)], columns=[f"column {i}" for i in range(9999)])
    for arguments in {"by": "y" * 99}, {"by": [3.5] * 9999}, {"by": "column 0", "features": "z", "weights": [1] * 999}:
        with pytest.raises(ValueError, match=r"no column|must be the name") as caught:
            fit_groups(frame, **{"by": "column 0", "features": "column 1", "n_components": 1} | arguments)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("names", [["g"], [None, "g"], [0, "x"]])
def test_a_column_in_the_index_is_refused_with_the_remedy(names):
    frame = pd.DataFrame({"g": ["a", "b"], "x": [1.0, 2.0], None: 0, 0: 1}).set_index(names)
    with pytest.raises(ValueError, match=rf"^{names[-1]!r} is in the index of the frame, not a column; pass df.reset"):
        fit_groups(frame, "g", "x", 1)
