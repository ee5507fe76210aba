"""Results are records: of so many data sets, taken apart by data set, and printed in a few lines."""

import copy
import dataclasses
import operator
import pickle
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgmm
from jaxgmm import Status
from jaxgmm.record import field_names, span

RNG = np.random.default_rng(0)
B, K, D = 12, 2, 3


def mixture(*batch: int, n_components: int = K) -> jaxgmm.Mixture:
    shape = (*batch, n_components, D)
    return jaxgmm.Mixture(np.full(shape[:-1], 1 / n_components), RNG.normal(size=shape), np.ones(shape))


def fits(*batch: int, n_components: int = K) -> jaxgmm.FitResult:
    """As many of each status as there can be."""
    counts = np.zeros(batch, np.int32)[()]
    return jaxgmm.FitResult(
        mixture=mixture(*batch, n_components=n_components),
        log_likelihood=RNG.normal(size=batch)[()],
        gap=counts * 1e-10,
        n_iter=counts + 7,
        status=(np.arange(np.prod(batch, dtype=int)).reshape(batch) % len(Status)).astype(np.int32)[()],
        spurious=counts + 1,
        ridge_dominated=counts,
        start_passed_over=np.ones(batch, bool)[()],
        n_samples=np.full(batch, 100.0)[()],
        n_parameters=counts + 11,
        ridge=np.ones((*batch, D)),
        start_log_likelihood=np.zeros((*batch, 2)),
        start_status=np.zeros((*batch, 2), np.int32),
        start_spurious=np.zeros((*batch, 2), np.int32),
        history=None,
        efficiency=1.0,
    )


def sweep(n_data_sets: int, n_models: int) -> jaxgmm.Sweep:
    n = n_data_sets * n_models
    chosen = np.zeros((n_data_sets, n_models), bool)
    chosen[np.arange(n_data_sets), np.arange(n_data_sets) % n_models] = True
    table = {
        "data_set": np.repeat(np.arange(n_data_sets), n_models),
        "n_components": np.tile(np.arange(1, n_models + 1), n_data_sets),
        "covariance_type": np.full(n, "full"),
        "reg_covar": np.full(n, 1e-12),
        "bic": RNG.normal(size=n),
        "status": np.full(n, "CONVERGED"),
        "spurious": np.zeros(n, int),
        "chosen": chosen.ravel(),
    }
    notes = ("Weights are not counts of samples.", "The largest K was chosen for 3 data sets.")
    return jaxgmm.Sweep(table, fits(n_data_sets), notes)


def diagnosis(*batch: int) -> jaxgmm.Diagnosis:
    of_samples = [RNG.uniform(size=(*batch, 5, *trailing)) for trailing in ((D,), (D,), (), ())]
    of_features = [RNG.uniform(size=(*batch, 2 * D + 1)) for _ in range(2)]
    of_components = [RNG.uniform(size=(*batch, K)) for _ in range(3)]
    separation = RNG.uniform(size=(*batch, K, K))
    return jaxgmm.Diagnosis(
        np.full((*batch, K), 0.5), *of_samples, None, *of_features, *of_components, separation, np.zeros(batch)[()]
    )


BATCHES = {
    "mixture": mixture(B),
    "fits": fits(B),
    "sweep": sweep(B, 3),
    "wide sweep": sweep(B, 12),
    "bootstrap": jaxgmm.Bootstrap(mixture(B, 4), np.zeros((B, 4)), np.zeros((B, 4), np.int32)),
    "diagnosis": diagnosis(B),
}
UNDESCRIBED = {
    "lists": jaxgmm.Mixture([0.5, 0.5], [[0.0], [4.0]], [[1.0], [1.0]]),
    "nothing": jaxgmm.Mixture(None, None, None),
    "axes": jaxgmm.Mixture(None, 0, 0),
    "numbers": jaxgmm.Mixture(0.0, 0.0, np.eye(2)),
    "sums": jax.tree.map(np.sum, fits(B)),
    "types": jax.tree.map(lambda leaf: np.asarray(leaf).dtype, fits(B)),
    "no criterion": jaxgmm.Sweep({"data_set": np.zeros(1, int), "chosen": np.ones(1, bool)}, fits()),
}
SINGLES = {
    "one mixture": mixture(),
    "one wide mixture": mixture(n_components=40),
    "one fit": fits(),
    "one sweep": sweep(2, 12).of(1),
    "one bootstrap": jaxgmm.Bootstrap(mixture(4), np.zeros(4), np.zeros(4, np.int32)),
    "one diagnosis": diagnosis(),
}
ALL = BATCHES | SINGLES


@pytest.mark.parametrize("name", BATCHES)
def test_length_is_the_number_of_data_sets(name: str) -> None:
    assert len(BATCHES[name]) == B
    assert len(BATCHES[name].of(slice(0, 0))) == 0
    assert bool(BATCHES[name].of(slice(0, 0)))


@pytest.mark.parametrize("name", SINGLES)
def test_one_data_set_has_no_length(name: str) -> None:
    with pytest.raises(TypeError, match="is of one data set: it has no batch axis"):
        len(SINGLES[name])
    assert bool(SINGLES[name])


@pytest.mark.parametrize("name", ALL)
def test_records_are_no_tuples(name: str) -> None:
    with pytest.raises(TypeError, match="not subscriptable"):
        ALL[name][0]
    with pytest.raises(TypeError, match="not iterable"):
        list(ALL[name])
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALL[name].status = 0


@pytest.mark.parametrize("name", ["mixture", "fits", "bootstrap", "diagnosis"])
@pytest.mark.parametrize("index", [3, slice(2, 5), np.array([5, 1]), np.arange(B) % 2 == 0], ids=repr)
def test_part_of_a_batch_holds_those_rows(name: str, index: object) -> None:
    part = BATCHES[name].of(index)
    assert type(part) is type(BATCHES[name])
    for leaf, whole in zip(jax.tree.leaves(part), jax.tree.leaves(BATCHES[name]), strict=True):
        np.testing.assert_array_equal(leaf, whole[index] if np.ndim(whole) else whole)


@pytest.mark.parametrize("index", [3, slice(2, 5), np.array([5, 1])], ids=repr)
def test_part_of_a_sweep_has_its_rows_numbered_anew(index: object) -> None:
    whole = BATCHES["sweep"]
    part, wanted = whole.of(index), np.atleast_1d(np.arange(B)[index])
    assert part.table["data_set"].tolist() == np.repeat(np.arange(len(wanted)), 3).tolist()
    expected = np.concatenate([whole.table["bic"][whole.table["data_set"] == b] for b in wanted])
    np.testing.assert_array_equal(part.table["bic"], expected)
    np.testing.assert_array_equal(part.best.status, whole.best.status[index])


@pytest.mark.parametrize("name", ["one fit", "one bootstrap", "one diagnosis", "one sweep"])
def test_one_data_set_has_no_others(name: str) -> None:
    with pytest.raises(ValueError, match="is of one data set: it has no batch axis, and no others"):
        SINGLES[name].of(0)


def test_parts_of_ragged_data_sets_are_lists() -> None:
    ragged = dataclasses.replace(diagnosis(3), pit=[np.zeros((n, D)) for n in (2, 3, 4)])
    assert ragged.of(1).pit.shape == (3, D)
    assert [len(rows) for rows in ragged.of(np.array([True, False, True])).pit] == [2, 4]


@pytest.mark.parametrize("name", ALL)
def test_records_print_in_a_few_lines(name: str) -> None:
    lines = repr(ALL[name]).splitlines()
    assert lines[0].startswith(f"{type(ALL[name]).__name__}: ")
    assert 2 <= len(lines) <= 15
    assert not any("array(" in line or line != line.rstrip() for line in lines)


@pytest.mark.parametrize("name", ALL)
def test_what_to_look_at_is_where_it_is_said_to_be(name: str) -> None:
    named = [words[-1] for words in map(str.split, repr(ALL[name]).splitlines()) if words[-1].startswith(".")]
    for path in named:
        assert operator.attrgetter(path[1:])(ALL[name]) is not None
    assert (".best.spurious" in named) == (name in ("sweep", "wide sweep"))


def test_fits_say_how_they_ended_and_what_to_look_at() -> None:
    assert repr(BATCHES["fits"]).splitlines()[:8] == [
        "FitResult: 12 data sets, K = 2, D = 3, 2 starts",
        "  CONVERGED        3 data sets",
        "  MAX_ITER         3 data sets",
        "  DEGENERATE       2 data sets",
        "  NONFINITE        2 data sets",
        "  TOO_FEW_SAMPLES  2 data sets",
        "  iterations                  7",
        f"  log-likelihood              {low_to_high(BATCHES['fits'].log_likelihood)}",
    ]
    assert ".spurious" in repr(BATCHES["fits"])
    assert ".ridge_dominated" not in repr(BATCHES["fits"])
    failed = dataclasses.replace(fits(), status=np.int32(Status.NONFINITE))
    assert Status.NONFINITE.sentence in " ".join(repr(failed).split())
    assert max(map(len, repr(failed).splitlines())) <= 80


def test_time_is_that_of_the_call() -> None:
    whole = dataclasses.replace(BATCHES["fits"], seconds=1234.5)
    assert "  seconds                     1,234.50" in repr(whole).splitlines()
    assert "  seconds                     2.50" in repr(dataclasses.replace(fits(), seconds=2.5)).splitlines()
    assert np.isnan(whole.of([0]).seconds)
    assert jax.tree.structure(whole) == jax.tree.structure(BATCHES["fits"])
    assert pickle.loads(pickle.dumps(whole)).seconds == copy.deepcopy(whole).seconds == 1234.5
    swept = dataclasses.replace(BATCHES["sweep"], best=whole)
    assert "1,234.50" in repr(swept)
    one = dataclasses.replace(SINGLES["one sweep"], best=dataclasses.replace(fits(), seconds=2.5))
    assert repr(one).endswith("\n  seconds  2.50")


def test_what_to_look_at_is_never_cut() -> None:
    swept = dataclasses.replace(BATCHES["wide sweep"], notes=("A note of some length. " * 10, "Last. " * 20))
    swept = dataclasses.replace(
        swept, best=dataclasses.replace(swept.best, seconds=1.0, ridge_dominated=np.ones(B, int))
    )
    lines = repr(swept).splitlines()
    assert len(lines) == 15
    words = " ".join(lines)
    assert all(status.name in words for status in Status)
    assert all(f".best.{name}" in words for name in ("spurious", "ridge_dominated", "start_passed_over"))
    assert lines.count("  …") == 1
    assert lines[-1].endswith("Last.")


def test_large_numbers_keep_their_tenths() -> None:
    assert span(np.array([-1234567.1, np.nan, -1234567.9])) == "-1,234,567.9 to -1,234,567.1"
    assert span(np.array([1e300, 2.0])) == "2 to 1e+300"
    assert span(np.array([np.nan])) == "none"


def low_to_high(values: np.ndarray) -> str:
    return f"{values.min():,.6g} to {values.max():,.6g}"


def test_statuses_have_names() -> None:
    result = BATCHES["fits"]
    assert result.converged.tolist() == [status == Status.CONVERGED for status in result.status]
    assert result.status_names.tolist() == [Status(code).name for code in result.status]
    assert fits().status_names == "CONVERGED"


class Cells(HTMLParser):
    """Texts of a page, and its open elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("name", ALL)
def test_notebooks_show_the_same_as_a_table(name: str) -> None:
    page = Cells()
    page.feed(ALL[name]._repr_html_())
    assert page.open == []
    assert page.texts[0] == repr(ALL[name]).splitlines()[0]


def test_texts_are_no_markup() -> None:
    swept = dataclasses.replace(sweep(2, 2), notes=("<script>",))
    assert "<script>" in repr(swept)
    assert "<script>" not in swept._repr_html_()


@pytest.mark.parametrize("name", ALL)
def test_records_are_pytrees_and_can_be_copied(name: str) -> None:
    value = ALL[name]
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), jax.tree.map(lambda leaf: leaf, value)):
        assert type(again) is type(value)
        assert jax.tree.structure(again) == jax.tree.structure(value)
        jax.tree.map(np.testing.assert_array_equal, again, value)
        assert repr(again) == repr(value)


def test_what_jax_puts_in_place_of_arrays_can_be_printed() -> None:
    shown = []
    jax.jit(lambda value: shown.append(repr(value)))(mixture())
    jax.eval_shape(lambda value: shown.append(repr(value)), mixture())
    shown += [repr(value) for value in UNDESCRIBED.values() if isinstance(value, jaxgmm.Mixture)]
    assert all(text.startswith("Mixture(weights=") for text in shown)
    assert repr(mixture().map(jnp.asarray)).startswith("Mixture: K = 2")


@pytest.mark.parametrize("name", UNDESCRIBED)
def test_what_cannot_be_described_is_printed_field_by_field(name: str) -> None:
    value = UNDESCRIBED[name]
    assert repr(value).startswith(f"{type(value).__name__}({field_names(value)[0]}=")
    assert value._repr_html_().startswith("<pre>")


@pytest.mark.parametrize("name", ["mixture", "fits", "sweep"])
def test_index_of_something_else_is_refused_in_words(name: str) -> None:
    value = BATCHES[name]
    for index in (True, None, 1.0, "a", np.zeros((2, 2), int), np.ones(B + 1, bool)):
        with pytest.raises(ValueError, match=f"must be an integer, a slice, a mask of {B}, or a 1-D array"):
            value.of(index)
    for index in (B, -B - 1, [0, B]):
        with pytest.raises(IndexError, match=f"there are {B} data sets"):
            value.of(index)
    assert len(value.of([])) == 0
    last = value.of(-1)
    jax.tree.map(np.testing.assert_array_equal, last, value.of(np.int32(B - 1)))


def test_mixtures_of_two_axes_have_two_indices() -> None:
    several = mixture(4, 3).map(jnp.asarray)
    np.testing.assert_array_equal(several.of((1, slice(2))).means, several.means[1, :2])
    with pytest.raises(IndexError, match="there are 3 data sets"):
        several.of((0, 3))
    for of, index in ((several, (0, 0, 0)), (mixture(), 0)):
        with pytest.raises(ValueError, match="there is no batch axis for"):
            of.of(index)


def test_ridges_and_tests_are_told_apart() -> None:
    table = {
        "data_set": np.zeros(4, int),
        "n_components": np.array([1, 1, 2, 2]),
        "covariance_type": np.full(4, "full"),
        "reg_covar": np.array([1e-6, 1e-2] * 2),
        "lrt": np.array([0.005, 0.005, 0.5, np.nan]),
        "status": np.full(4, "CONVERGED"),
        "spurious": np.zeros(4, int),
        "chosen": np.array([False, False, True, False]),
    }
    lines = repr(jaxgmm.Sweep(table, fits())).splitlines()
    assert lines[1].split() == ["K", "family", "ridge", "lrt", "status", "spurious"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["2", "full", "1e-06"],
        ["1", "full", "1e-06"],
        ["1", "full", "0.01"],
        ["2", "full", "0.01"],
    ]


def test_fields_have_the_order_of_the_class() -> None:
    assert field_names(jaxgmm.Mixture) == field_names(mixture()) == ("weights", "means", "covariances")
    assert [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(mixture())] == [
        *field_names(jaxgmm.Mixture)
    ]
