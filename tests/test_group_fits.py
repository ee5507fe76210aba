"""From the fits of groups back to the rows of the frame, and on."""

import copy
import datetime
import pickle
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from compilation import slow
from matplotlib import pyplot as plt

import jaxgmm
from jaxgmm import plot
from jaxgmm.frames import GroupFits, fit_groups
from jaxgmm.tables.frame import read

KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}
LABELS = ("component", "probability", "log_density", "p_value")
RNG = np.random.default_rng(0)
# Two interleaved plates with clusters at 0 and 9, and a well of too few rows.
PLATE = np.array(["P04", "P05"])[RNG.integers(2, size=200)]
HIGH = RNG.random(200) < 0.4
COLUMNS = {
    "plate": [*PLATE, "P06"],
    "well": [67] * 201,
    "red": [*(RNG.normal(size=200) + 9 * HIGH), 0.0],
    "w": [*RNG.uniform(0.5, 1, size=200), 1.0],
    "note": [f"row {i}" for i in range(201)],
}
OPTIONS = {"n_init": 2, "max_iter": 40}


def column(frame, name):
    """A column as a list, with None for what is missing."""
    if isinstance(frame, pd.DataFrame):
        return [None if pd.isna(value) else value for value in frame[name]]
    return frame[name].to_pylist() if isinstance(frame, pa.Table) else frame[name].to_list()


@pytest.fixture(scope="module")
def fitted() -> dict[str, GroupFits]:
    return {kind: fit_groups(make(COLUMNS), ["plate", "well"], "red", 2, **OPTIONS) for kind, make in KINDS.items()}


@pytest.fixture(params=KINDS)
def found(fitted, request) -> GroupFits:
    return fitted[request.param]


@pytest.fixture(scope="module")
def swept() -> GroupFits:
    return fit_groups(pd.DataFrame(COLUMNS), ["plate", "well"], "red", range(1, 3), n_init=2, weights="w")


def test_every_row_gets_the_component_of_its_group(found):
    labelled = found.predict()
    assert type(labelled) is type(found.df)
    assert column(labelled, "note") == COLUMNS["note"]
    # Components are in the order of their means, in every group.
    assert column(labelled, "component") == [*HIGH.astype(int), None]
    for b, plate in enumerate(("P04", "P05")):
        own = np.flatnonzero(plate == PLATE)
        x = np.array(COLUMNS["red"])[own, None]
        mixture = found.result.mixture.of(b)
        for name, expected in (
            ("probability", np.max(jaxgmm.responsibilities(mixture, x), axis=1)),
            ("log_density", jaxgmm.log_prob(mixture, x)),
            ("p_value", jaxgmm.outlier_p_values(mixture, x)),
        ):
            np.testing.assert_allclose(np.array(column(labelled, name)[:200])[own], expected, rtol=1e-12)
    assert [column(labelled, name)[200] for name in LABELS] == [None] * 4


@pytest.mark.slow
def test_keys_and_features_are_drawn_as_they_are_written():
    # Between two dollars, matplotlib would read TeX, and refuse what is none.
    frame = pd.DataFrame({r"a $\key": COLUMNS["plate"], r"$\no$": COLUMNS["red"]}).iloc[:200]
    frame[r"a $\key"] += r" of $\5$"
    found = fit_groups(frame, r"a $\key", r"$\no$", [2], **OPTIONS)
    one = found.group(r"P04 of $\5$")
    panels = [plot.overview(found)[0], plot.criterion(found), plot.criterion(one), plot.mixture(one)]
    for panel in panels:
        panel.figure.canvas.draw()
        assert panel.get_title() == r"P04 of \$\5\$"
        plt.close(panel.figure)
    assert panels[-1].get_xlabel() == r"\$\no\$"


def test_all_probabilities_come_on_request(found):
    labelled = found.predict(probabilities=True)
    probabilities = np.array([column(labelled, f"probability_{k}")[:200] for k in range(2)])
    np.testing.assert_allclose(np.sum(probabilities, axis=0), 1, rtol=1e-12)
    np.testing.assert_array_equal(np.max(probabilities, axis=0), column(labelled, "probability")[:200])
    np.testing.assert_array_equal(np.argmax(probabilities, axis=0), column(labelled, "component")[:200])


def test_new_rows_of_known_groups_are_labelled_in_their_order(found):
    plates = ["P05", "P05", "new", "P04", "P04"]
    new = pl.DataFrame({"red": [9.0, None, 1.0, 40.0, np.inf], "plate": plates, "well": [67] * 5})
    labelled = found.predict(new)
    assert labelled.columns == ["red", "plate", "well", *LABELS]
    assert labelled["component"].to_list() == [1, None, None, 1, None]
    assert labelled["p_value"][3] < 1e-6
    assert found.predict(new.head(0)).height == 0


def test_an_index_and_unused_columns_are_kept():
    frame = pd.DataFrame(COLUMNS, index=np.arange(201)[::-1] * 7)
    frame.insert(0, "note", "twice", allow_duplicates=True)
    labelled = fit_groups(frame, ["plate", "well"], "red", 2, **OPTIONS).predict()
    assert labelled.index.equals(frame.index)
    assert list(labelled.columns) == [*frame.columns, *LABELS]
    assert labelled["component"].dtype == "Int32"
    assert labelled["component"].iloc[:200].tolist() == HIGH.astype(int).tolist()


def test_a_name_that_is_taken_is_refused(found):
    with pytest.raises(ValueError, match="the frame has a column 'p_value' already; rename it"):
        found.predict(pl.DataFrame({"plate": ["P04"], "well": [67], "red": [1.0], "p_value": [1.0]}))


def test_keys_of_another_kind_are_refused(found):
    with pytest.raises(ValueError, match=r"column 'well' of the frame holds (large_)?string, where int64 was fitted"):
        found.predict(pl.DataFrame({"plate": ["P04"], "well": ["67"], "red": [1.0]}))


def test_one_group_is_taken_out_by_its_key(found):
    one = found.group("P05", 67)
    assert one.name == "P05, 67"
    np.testing.assert_array_equal(one.x[:, 0], np.array(COLUMNS["red"])[:200][PLATE == "P05"])
    np.testing.assert_array_equal(one.mixture.means, found.result.mixture.means[1])
    assert one.sweep is None
    assert one.rows.tolist() == np.flatnonzero(PLATE == "P05").tolist()
    assert repr(one).startswith(f"P05, 67: {len(one.x)} samples, K = 2, D = 1")
    assert jaxgmm.predict(one, one.x).shape == (len(one.x),)
    assert one.diagnose().misfit == found.diagnose().misfit[1]
    np.testing.assert_array_equal(one.result.status, found.of(1).result.status)


def test_the_rows_of_groups_are_found_once(fitted, monkeypatch):
    reads = []

    def counted(df, keys, features, weights, rows=None):
        reads.append(len(df) if rows is None else len(rows))
        return read(df, keys, features, weights, rows)

    monkeypatch.setattr("jaxgmm.frames.group_fits.read", counted)
    for found in fitted.values():
        # A copy knows no rows yet.
        found = copy.copy(found)  # noqa: PLW2901
        for plate in ("P05", "P04", "P05"):
            x = found.group(plate, 67).x
            np.testing.assert_array_equal(x[:, 0], np.array(COLUMNS["red"])[:200][plate == PLATE])
        assert reads == [201, np.sum(PLATE == "P05"), np.sum(PLATE == "P04"), np.sum(PLATE == "P05")]
        reads.clear()


def test_rows_that_moved_are_found_and_others_refused(fitted):
    frame = pd.DataFrame(COLUMNS)
    found = replace(fitted["pandas"], df=frame)
    before = found.group("P04", 67)
    p_values = found.diagnose().p_values
    frame.loc[:] = frame[::-1].to_numpy()
    frame.loc[201] = ["new", 67, 9.5, 1.0, "a group that was not fitted"]
    np.testing.assert_array_equal(found.group("P04", 67).x, before.x[::-1])
    np.testing.assert_allclose(found.diagnose().p_values, p_values)
    frame.loc[202] = ["P04", 67, 9.5, 1.0, "one more"]
    assert len(found.group("P05", 67).x) == np.sum(PLATE == "P05")
    words = f"P04, 67 has {len(before.x) + 1} rows in the frame, where {len(before.x)} were fitted; pass .* as df="
    for call in (found.diagnose, found.flags, found.bootstrap, lambda: found.group("P04", 67), lambda: found.x):
        with pytest.raises(ValueError, match=words):
            call()
    assert "_membership" not in pickle.loads(pickle.dumps(found)).__dict__


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_other_values_are_refused(found, kind):
    # Sixteen digits, as a CSV file may have them, are the same values.
    near = COLUMNS | {"red": [value * (1 + 2e-16) for value in COLUMNS["red"]]}
    assert len(found.group("P05", 67, df=KINDS[kind](near)).x) == np.sum(PLATE == "P05")
    far = COLUMNS | {"red": [*COLUMNS["red"][:100], 0.0, *COLUMNS["red"][101:]]}
    for call in (found.diagnose, lambda df: found.group(PLATE[100], 67, df=df)):
        with pytest.raises(ValueError, match=f"{PLATE[100]}, 67 has other values in the frame than were fitted"):
            call(df=KINDS[kind](far))
    assert len(column(found.predict(KINDS[kind](far)), "component")) == 201


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (("P04",), ValueError, "a key has a value for each of plate, well"),
        (("P07", 67), KeyError, "no group P07, 67 was fitted; the first is P04, 67"),
        (("P04", 67.5), KeyError, "no group P04, 67.5"),
        ((67, 67), ValueError, "column 'plate' of the key holds int64, where"),
        (("P04", None), KeyError, "no group P04, null"),
    ],
)
def test_a_key_that_is_not_there_is_refused(found, key, error, words):
    with pytest.raises(error, match=words):
        found.group(*key)


def test_the_way_on_has_the_weights_and_models(swept):
    weights = np.array(COLUMNS["w"])[:200]
    one = swept.group("P04", 67)
    np.testing.assert_array_equal(one.sample_weight, weights[PLATE == "P04"])
    assert one.sweep.table["n_components"].tolist() == [1, 2]
    assert swept.names == ["P04, 67", "P05, 67", "P06, 67"]
    assert [len(x) for x in swept.x] == [np.sum(PLATE == "P04"), np.sum(PLATE == "P05"), 1]
    np.testing.assert_array_equal(swept.sample_weight[1], weights[PLATE == "P05"])
    assert swept.diagnose().counts.shape == (3, 2)
    assert set(swept.flags()) == set(jaxgmm.FLAGS)
    assert column(swept.fits, "flags") == ["at_largest_k", "at_largest_k", "no_answer"]
    assert column(swept.components, "flags") == ["at_largest_k"] * 4 + ["no_answer"] * 2
    assert column(swept.models, "flags") == ["", "at_largest_k"] * 2 + ["no_answer"] * 2
    assert one.doubts == ["P04, 67 has the largest K that was tried, and a larger one may be better."]
    # In pandas they stay integers and flags where a group has no answer.
    assert [str(swept.fits[name].dtype) for name in ("n_components", "at_largest_k")] == ["Int64", "boolean"]
    assert len(swept.fits[swept.fits["at_largest_k"]]) == 2
    # Labels need no weights.
    labelled = swept.predict(pd.DataFrame(COLUMNS).drop(columns="w"))
    assert column(labelled, "component") == [*HIGH.astype(int), None]
    replicates = swept.bootstrap(2)
    assert replicates.mixture.means.shape == (3, 2, 2, 1)
    assert np.all(np.isfinite(replicates.mixture.means), axis=(1, 2, 3)).tolist() == [True, True, False]
    assert replicates.status[2].tolist() == [swept.result.status[2]] * 2


@pytest.mark.slow
def test_one_group_is_drawn_with_its_own_samples():
    found = fit_groups(pd.DataFrame(COLUMNS).iloc[:200], ["plate", "well"], ["red", "w"], 1, **OPTIONS)
    axes = plot.pairs(found.group("P04", 67))
    assert (axes[0, 0].get_title(), axes[1, 0].get_xlabel()) == ("P04, 67", "red")
    assert sum(len(dots.get_offsets()) for dots in axes[1, 0].collections) == np.sum(PLATE == "P04")
    plt.close(axes[0, 0].figure)


@pytest.mark.parametrize("call", [plot.mixture, plot.histogram, plot.pairs, jaxgmm.outlier_p_values])
def test_where_a_mixture_is_meant_groups_are_refused(swept, call):
    with pytest.raises(ValueError, match=r"got GroupFits. Pass its .mixtures, or one .group\(key\) of it.$"):
        call(swept, [[1.0]])


def test_what_to_look_at_is_said_to_be_in_the_result(swept):
    result = replace(swept.result, spurious=np.ones(3, np.int32))
    for of_groups in (replace(swept, result=result), replace(swept.group("P04", 67), result=result.of(0))):
        assert "  .result.spurious" in repr(of_groups)


def test_parts_go_on_as_the_whole(swept):
    part = swept.of([1])
    assert part.names == ["P05, 67"]
    expected = [int(high) if plate == "P05" else None for high, plate in zip(HIGH, PLATE, strict=True)]
    assert column(part.predict(), "component") == [*expected, None]
    alone = swept.of(1)
    assert {np.shape(holds) for holds in alone.flags().values()} == {()}
    assert alone.diagnose().misfit.shape == ()
    assert column(alone.predict(), "component") == column(part.predict(), "component")
    assert alone.group("P05", 67).name == "P05, 67"


def test_a_pickle_leaves_the_frame_out(swept):
    again = pickle.loads(pickle.dumps(swept))
    assert again.df is None
    with pytest.raises(ValueError, match="come without their frame, as from a pickle; pass it as df"):
        again.predict()
    assert column(again.predict(swept.df), "component") == [*HIGH.astype(int), None]
    assert again.group("P04", 67, df=swept.df).name == "P04, 67"
    assert swept.df is not None


# The lighter cluster has the lower mean of `minus` and the higher of `red`.
@pytest.mark.parametrize(
    ("features", "options", "red"),
    [
        (["minus", "red"], {}, [9, 0]),
        (["minus", "red"], {"order_by": "red"}, [0, 9]),
        (["red", "minus"], {"order_by": "minus"}, [9, 0]),
        (["minus", "red"], {"order_by": "weight"}, [0, 9]),
        slow(["red"], {"align_to": jaxgmm.Mixture(np.full(2, 0.5), np.array([[9.0], [0.0]]), np.ones((2, 1)))}, [9, 0]),
    ],
)
def test_components_have_one_order_in_all_groups(features, options, red):
    frame = pl.DataFrame(COLUMNS | {"minus": [-value for value in COLUMNS["red"]]})
    options = options | OPTIONS | {"covariance_type": "diag"}
    found = fit_groups(frame, ["plate", "well"], features, 2, **options)
    np.testing.assert_allclose(found.components["mean_red"].to_numpy()[:4], red * 2, atol=0.6)
    assert found.predict()["component"].to_list()[:200] == [red.index(9 * int(high)) for high in HIGH]


@pytest.mark.slow
def test_names_of_orders_come_before_features_of_the_same_name():
    frame = pl.DataFrame(
        {"g": ["a"] * 200, "x": COLUMNS["red"][:200], "mean": [-value for value in COLUMNS["red"][:200]]}
    )
    found = fit_groups(frame, "g", ["x", "mean"], 2, covariance_type="diag", **OPTIONS)
    assert np.all(np.diff(found.components["mean_x"].to_numpy()) > 0)


def test_a_reference_is_checked_before_any_work(monkeypatch):
    monkeypatch.setattr("jaxgmm.frames.grouping.fit", None)
    for reference, words in (
        (3, "be a jaxgmm.Mixture or a result"),
        (jaxgmm.Mixture(*np.ones((3, 1, 2))), "be one mixture"),
    ):
        with pytest.raises(ValueError, match=f"^align_to must {words}"):
            fit_groups(pl.DataFrame(COLUMNS), "plate", "red", 2, align_to=reference)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order_by must be one of 'mean', 'weight', 'start', 'red'; got 'size'"):
        fit_groups(pl.DataFrame(COLUMNS), "plate", "red", 2, order_by="size")


def test_pictures_need_no_more_than_the_fits(swept):
    panels = plot.overview(swept)
    assert sorted(panel.get_title() for panel in panels) == swept.names
    assert plot.criterion(swept, data_set=1).get_title() == "P05, 67"
    one = swept.group("P05", 67)
    assert plot.criterion(one).get_title() == "P05, 67"
    for draw in (plot.mixture, plot.histogram):
        ax = draw(one)
        assert (ax.get_title(), ax.get_xlabel()) == ("P05, 67", "red")
        given = draw(one.mixture, one.x, names=["red"], sample_weight=one.sample_weight)
        assert [len(own.patches) for own in (ax, given)] == [len(ax.patches)] * 2
        assert len(ax.patches) > 0
    with pytest.raises(ValueError, match="x must hold the samples of many fits: a FitResult has none of its own"):
        plot.overview(swept.result)


def keyed(keys, **options):
    """Fits of groups of forty rows, by the keys of a pandas column; and the frame."""
    values = np.random.default_rng(1).normal(size=40 * len(keys))
    frame = pd.DataFrame({"key": np.repeat(np.array(keys, dtype=object), 40), "red": values})
    return fit_groups(frame, "key", "red", 1, **OPTIONS, **options), frame


@pytest.mark.slow
def test_decimals_are_keys_by_value_whatever_their_digits():
    found, frame = keyed([Decimal("1.10"), Decimal("1.2"), Decimal("0.3")])
    assert [len(found.of([b]).x[0]) for b in range(3)] == [40] * 3
    assert [len(found.group(Decimal(key)).x) for key in ("1.1", "1.20", "0.300")] == [40] * 3
    assert found.predict(frame[frame["key"] == Decimal("1.2")])["component"].notna().all()


@pytest.mark.parametrize("keys", [["b", None, "a"], [datetime.date(2020, 1, 1), None, datetime.date(2019, 1, 1)]])
def test_missing_keys_and_columns_of_nothing_else_are_matched(keys):
    found, frame = keyed(keys, dropna=False)
    assert found.names[-1] == "null"
    for null in (None, float("nan"), pd.NA, pd.NaT):
        assert len(found.group(null).x) == 40
    assert len(found.of([2]).x[0]) == 40
    assert found.predict(frame[frame["key"].isna()])["component"].tolist() == [0] * 40
    assert len(found.predict(frame.iloc[:0])) == 0
    assert len(found.of([]).x) == 0


@pytest.mark.parametrize("value", [2**70, object(), slice(None), 1j, np.array(1)])
def test_what_cannot_be_a_key_is_no_group(found, value):
    with pytest.raises((KeyError, ValueError), match=r"no group|where int64 was fitted"):
        found.group("P04", value)


def test_copies_keep_the_frame_of_the_caller(swept):
    for again in (copy.copy(swept), copy.deepcopy(swept)):
        assert again.df is swept.df
        assert again.names == swept.names
    assert copy.deepcopy(swept).result.status is not swept.result.status


def test_a_group_is_named_once(swept):
    with pytest.raises(ValueError, match="a group is named twice"):
        swept.of([0, 0])


def test_fits_without_an_answer_keep_their_flags_in_any_order():
    reference = jaxgmm.Mixture(np.full(3, 1 / 3), np.array([[9.0], [0.0], [4.0]]), np.ones((3, 1)))
    found = fit_groups(pl.DataFrame(COLUMNS), ["plate", "well"], "red", 2, align_to=reference, **OPTIONS)
    assert found.fits["flags"].to_list()[2] == "no_answer"
    assert found.components["component"].to_list() == [0, 1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="align_to holds NaN or infinity: its fit has no answer"):
        fit_groups(pl.DataFrame(COLUMNS), ["plate", "well"], "red", 2, align_to=found.group("P06", 67), **OPTIONS)


def test_what_is_no_frame_is_refused_in_words(found):
    with pytest.raises(ValueError, match="df must be a pandas or Polars DataFrame or a PyArrow Table; got ndarray"):
        found.predict(np.zeros((3, 1)))


def test_pictures_refuse_what_they_cannot_draw(found, swept):
    with pytest.raises(ValueError, match="these fits have no choice among models"):
        plot.criterion(found)
    with pytest.raises(ValueError, match=r"from 0; got 'P05'; for a group, draw found.group\(key\)"):
        plot.criterion(swept, data_set="P05")
    with pytest.raises(ValueError, match="x must hold the samples of many fits: a GroupFit has none of its own"):
        plot.overview(swept.group("P04", 67))


def test_flags_of_groups_are_those_of_their_own_samples(swept):
    for of_groups in (swept, swept.of(1), swept.group("P05", 67)):
        found, expected = jaxgmm.flags(of_groups), of_groups.flags()
        assert set(found) == set(jaxgmm.FLAGS)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert all(np.array_equal(swept.flags()[name][1], swept.group("P05", 67).flags()[name]) for name in jaxgmm.FLAGS)
    again = jaxgmm.flags(pickle.loads(pickle.dumps(swept)), swept.x, swept.sample_weight)
    assert all(np.array_equal(again[name], holds) for name, holds in swept.flags().items())


def test_where_groups_are_refused_what_to_pass_is_said(swept):
    one = swept.group("P05", 67)
    for given in (swept, one):
        for call in (jaxgmm.order_components, lambda given: jaxgmm.align_components(given, one)):
            with pytest.raises(ValueError, match=r"got GroupFits?. Pass its .result; or give fit_groups order_by="):
                call(given)
        with pytest.raises(ValueError, match=r"got GroupFits?. Of one group, pass its .result and its .x.$"):
            plot.stages(given)
    with pytest.raises(ValueError, match="x must hold the samples of the data set; got None"):
        plot.stages(one.result)


def test_a_selection_of_nothing_is_refused_where_there_is_nothing_to_do(swept, tmp_path):
    none = swept.of([])
    assert repr(none).startswith("GroupFits: 0 groups")
    calls = (none.diagnose, none.bootstrap, none.flags, lambda: jaxgmm.flags(none), lambda: none.group("P04", 67))
    draws = (lambda: plot.overview(none), lambda: plot.criterion(none), lambda: none.report(tmp_path / "none.html"))
    for call in (*calls, *draws):
        with pytest.raises(ValueError, match=r"^these fits are of no group; select at least one, as found.of"):
            call()
    assert list(tmp_path.iterdir()) == []
    assert column(none.predict(), "component") == [None] * 201


def test_keys_of_no_letters_can_be_seen():
    found, _ = keyed(["", "a\nb\u2028", "µ é"])
    assert found.names == ["''", r"a\nb\u2028", "µ é"]
    assert repr(found.group("")).startswith("'': 40 samples, ")
    assert repr(found.group("a\nb\u2028")).startswith(r"a\nb\u2028: 40 samples, ")
    with pytest.raises(KeyError, match="no group c was fitted; the first is ''"):
        found.group("c")


def test_notes_are_about_groups(swept):
    assert [note.partition(" is chosen for ")[2] for note in swept.notes] == [
        "2 of 3 groups; a larger K may be better."
    ]
    assert "data set" not in repr(swept)


def test_a_diagnosis_of_a_group_has_the_names_of_its_features():
    frame = pd.DataFrame({"key": COLUMNS["plate"], r"$\no$": COLUMNS["red"], "b": COLUMNS["w"]}).iloc[:200]
    found = fit_groups(frame, "key", [r"$\no$", "b"], 1, **OPTIONS)
    for diagnosis in (found.group("P04").diagnose(), found.diagnose().of(0)):
        assert diagnosis.features == (r"$\no$", "b")
        panels = plot.diagnosis(diagnosis)
        panels[0].figure.canvas.draw()
        labels = [text.get_text().partition(":")[0] for text in panels[0].get_legend().get_texts()]
        assert labels == ["b, given the features before it", r"\$\no\$", "b", "radius"]
        plt.close(panels[0].figure)
