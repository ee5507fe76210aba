"""Bad data is a status in its own row; misuse is a ValueError before any work."""

import jax
import numpy as np
import pytest
from compilation import FULL_AND_OTHERS, slow

import jaxgmm
from jaxgmm import Mixture, Status
from jaxgmm.driver import chunk


def good(n_samples: int = 40, n_features: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_samples, n_features)) + 6.0 * (np.arange(n_samples) % 2)[:, None]


def with_entry(value: float) -> np.ndarray:
    x = good()
    x[7, 1] = value
    return x


def with_constant_feature() -> np.ndarray:
    x = good()
    x[:, 1] = 0.1
    return x


def beside_others(x: np.ndarray, n_components: int = 2, **options: object) -> jaxgmm.FitResult:
    """A fit beside good data sets, by programs that tests share whatever the number of components and of samples."""
    return jaxgmm.fit([x, good(), good(30)], n_components, **{"n_init": 2, **options})


def fitted(x: np.ndarray, n_components: int = 2, **options: object) -> jaxgmm.FitResult:
    return beside_others(x, n_components, **options).of(0)


DUPLICATES = np.repeat([[0.0, 1.0], [5.0, 2.0]], 20, axis=0)


@pytest.mark.parametrize("precision", ["mixed", "float32", "float64"])
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (with_entry(np.nan), Status.NONFINITE),
        (with_entry(np.inf), Status.NONFINITE),
        (with_entry(-np.inf), Status.NONFINITE),
        (np.full((40, 2), np.nan), Status.NONFINITE),
        (np.zeros((0, 2)), Status.TOO_FEW_SAMPLES),
        (good(1), Status.TOO_FEW_SAMPLES),
        (np.full((1, 2), np.nan), Status.NONFINITE),
        (with_constant_feature(), Status.DEGENERATE),
        (np.full((40, 2), 7.0), Status.DEGENERATE),
    ],
)
def test_bad_data_set_is_a_status_without_an_answer(x: np.ndarray, expected: Status, precision: str) -> None:
    result = beside_others(x, precision=precision)
    assert result.status.tolist() == [expected, Status.CONVERGED, Status.CONVERGED]
    assert np.all(result.start_status[0] == expected)
    assert np.isnan(result.log_likelihood[0])
    assert all(np.all(np.isnan(leaf[0])) for leaf in result.mixture.arrays)
    assert result.n_iter[0] == 0
    assert all(np.all(np.isfinite(leaf[1:])) for leaf in result.mixture.arrays)


def test_worst_news_comes_first() -> None:
    assert jaxgmm.fit(np.array([[np.nan, 1.0]]), 2).status == Status.NONFINITE
    assert jaxgmm.fit(np.array([[1.0, 1.0]]), 2).status == Status.TOO_FEW_SAMPLES


def test_fewer_samples_than_components() -> None:
    assert jaxgmm.fit(good(3), 4).status == Status.TOO_FEW_SAMPLES
    assert jaxgmm.fit(good(10), 4, sample_weight=np.r_[np.ones(3), np.zeros(7)]).status == Status.TOO_FEW_SAMPLES


def no_program(*_: object, **__: object) -> None:
    raise AssertionError("a program was run")


WEIGHTED = np.r_[np.ones(3), np.zeros(7)]


@pytest.mark.parametrize(
    ("x", "options", "expected"),
    [
        (good(60), {"n_components": 1000}, Status.TOO_FEW_SAMPLES),
        (good(60), {"n_components": 1000, "init": np.arange(60)}, Status.TOO_FEW_SAMPLES),
        (good(10), {"n_components": 4, "sample_weight": WEIGHTED}, Status.TOO_FEW_SAMPLES),
        (good(10), {"n_components": 4, "sample_weight": np.where(WEIGHTED, 1.0, np.nan)}, Status.NONFINITE),
        (with_entry(np.nan), {"n_components": 41}, Status.NONFINITE),
        (with_entry(np.nan), {"n_components": 40, "sample_weight": np.arange(40) != 7}, Status.TOO_FEW_SAMPLES),
        (np.zeros((0, 2)), {"n_components": 1}, Status.TOO_FEW_SAMPLES),
        ([good(5), good(3)], {"n_components": 6, "covariance_type": "diag"}, Status.TOO_FEW_SAMPLES),
    ],
)
def test_too_few_samples_everywhere_run_no_program(
    x: np.ndarray, options: dict, expected: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "PREPARED", no_program)
    result = jaxgmm.fit(x, **options)
    assert np.all(result.status == expected)
    assert np.all(result.start_status == expected)


def test_a_sweep_over_too_few_samples_runs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "PREPARED", no_program)
    sweep = jaxgmm.sweep(np.stack([good(5), with_entry(np.nan)[5:10]]), (6, 8), covariance_type=("full", "diag"))
    assert sweep.table["status"].tolist() == ["TOO_FEW_SAMPLES"] * 4 + ["NONFINITE"] * 4
    assert not np.any(sweep.table["chosen"])


@pytest.mark.parametrize(
    ("family", "sample_weight", "history"),
    [("full", None, (0, 2)), slow("spherical", np.tile([1.0, 0.0, 2.0], 2), False)],
)
def test_what_the_host_says_of_too_few_samples_is_what_programs_say(
    family: str, sample_weight: np.ndarray | None, history: bool | tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted() -> jaxgmm.FitResult:
        x = [good(6), np.full((6, 2), np.inf), np.full((6, 2), 3.0)]
        weights = None if sample_weight is None else [sample_weight] * 3
        options = {"n_init": 2, "sample_weight": weights, "history": history, "max_iter": 30}
        return jaxgmm.fit(x, 7, covariance_type=family, **options)

    by_host = fitted()
    monkeypatch.setattr(chunk, "statuses_of_too_few", lambda *_: None)
    by_programs = fitted()
    assert by_host.status.tolist() == [Status.TOO_FEW_SAMPLES, Status.NONFINITE, Status.TOO_FEW_SAMPLES]
    assert jax.tree.structure(by_host) == jax.tree.structure(by_programs)
    jax.tree.map(np.testing.assert_array_equal, by_host, by_programs)


def test_one_sample_has_no_variance() -> None:
    assert fitted(good(1), 1).status == Status.DEGENERATE


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_duplicated_points_collapse_without_a_ridge(family: str) -> None:
    result = fitted(DUPLICATES, covariance_type=family, reg_covar=0)
    assert result.status == Status.DEGENERATE


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_duplicated_points_rest_on_the_ridge(family: str) -> None:
    result = fitted(DUPLICATES, covariance_type=family, reg_covar=1e-3)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(np.sort(result.mixture.means[:, 0]), [0, 5], atol=1e-6)


def test_constant_feature_is_no_obstacle_to_one_variance_for_all() -> None:
    assert fitted(with_constant_feature(), covariance_type="spherical").status == Status.CONVERGED


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_and_tiny_units(family: str, scale: float) -> None:
    plain, scaled = (fitted(x, covariance_type=family) for x in (good(), scale * good()))
    assert scaled.status == Status.CONVERGED
    np.testing.assert_allclose(scaled.mixture.means / scale, plain.mixture.means, rtol=1e-6)
    np.testing.assert_allclose(scaled.mixture.covariances / scale**2, plain.mixture.covariances, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_units_whose_square_no_number_holds_have_no_answer(scale: float) -> None:
    result = fitted(scale * good())
    assert result.status == Status.DEGENERATE
    assert np.isnan(result.log_likelihood)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float16, np.float32, ">f8", ">f4", ">i2"])
def test_numbers_of_other_types(dtype: type | str) -> None:
    x = np.round(good() * 8 + 40).astype(dtype)
    options = {"n_components": 2, "n_init": 2}
    result, expected = jaxgmm.fit(x, **options), jaxgmm.fit(x.astype(float), **options)
    assert result.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-9)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (np.zeros(40), Status.TOO_FEW_SAMPLES),
        (np.r_[np.nan, np.ones(39)], Status.NONFINITE),
        (np.r_[np.inf, np.ones(39)], Status.NONFINITE),
    ],
)
def test_bad_weights_are_a_status(weights: np.ndarray, expected: Status) -> None:
    x = np.stack([good(), good()])
    result = jaxgmm.fit(x, 2, n_init=2, sample_weight=np.stack([weights, np.ones(40)]))
    assert result.status.tolist() == [expected, Status.CONVERGED]


def test_negative_weight_is_refused() -> None:
    weights = np.ones((2, 40))
    weights[1, 3] = -1
    with pytest.raises(ValueError, match=r"sample 3 of data set 1 has weight -1\.0.*weight 0"):
        jaxgmm.fit(np.stack([good(), good()]), 2, sample_weight=weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 0}, "n_components must be an integer of at least 1, and less than 2.*; got 0"),
        ({"n_components": 2.0}, "n_components must be an integer"),
        ({"n_components": [2, 3]}, r"got \[2, 3\]\. Several are for jaxgmm\.sweep\."),
        ({"n_components": True}, "n_components must be an integer"),
        ({"covariance_type": "round"}, "must be one of 'full', 'tied', 'diag', 'spherical'; got 'round'"),
        ({"covariance_type": ["full"]}, "covariance_type must be one of"),
        ({"precision": "half"}, "must be one of 'mixed', 'float32', 'float64'; got 'half'"),
        ({"init": "best"}, "init must be one of 'k-means\\+\\+'"),
        ({"init": None}, "got None"),
        ({"n_init": 0}, "n_init must be an integer of at least 1"),
        ({"tol": -1e-3}, "tol must be a finite number of at least 0"),
        ({"tol": np.nan}, "tol must be a finite number"),
        ({"tol": "small"}, "tol must be a finite number"),
        ({"max_iter": -1}, "max_iter must be an integer of at least 0"),
        ({"max_iter": 2**31}, "less than 2\\*\\*31"),
        ({"key": 2**63}, "key must be an integer of 64 bits"),
        ({"key": True}, "key must be an integer"),
        ({"sample_weight": np.ma.masked_equal(np.arange(40), 3)}, "masked entries"),
        ({"init": Mixture(np.ones(2) / 2, np.zeros((2, 2)), np.array([[[1, 0.9], [0, 1]]] * 2))}, "must be symmetric"),
        ({"init": Mixture(np.ones(2) / 2, np.zeros((2, 2)), -np.array([np.eye(2)] * 2))}, "a variance is negative"),
        ({"reg_covar": -1.0}, "reg_covar must be a finite number of at least 0"),
        ({"reg_covar": np.inf}, "reg_covar must be a finite number"),
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \(40,\)"),
        ({"progress": 3}, "progress must be True, False or a function; got 3"),
        ({"key": "seed"}, "key must be an integer of 64 bits or one JAX random key"),
        ({"init": np.zeros(40, int) + 2}, "numbered from 0 to 1; they run from 2 to 2"),
        ({"init": np.zeros(40, int) - 1}, "numbered from 0 to 1"),
        ({"init": np.zeros(39, int)}, r"init \(labels\) must have shape \(40,\)"),
        ({"init": np.ones((40, 3)) / 3}, r"init \(responsibilities\) must have shape \(40, 2\)"),
        ({"init": -np.ones((40, 2))}, "must not be negative"),
        (
            {"init": Mixture(np.ones(3) / 3, np.zeros((3, 2)), np.ones((3, 2, 2)))},
            r"init.weights must have shape \(2,\)",
        ),
        ({"init": Mixture(np.ones(2), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))}, "must sum to 1"),
        (
            {"init": Mixture(np.ones(2) / 2, np.zeros((2, 3)), np.ones((2, 3, 3)))},
            r"init.means must have shape \(2, 2\)",
        ),
    ],
)
def test_misuse_is_refused_in_words(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jaxgmm.fit(good(), **{"n_components": 2, **options})


def test_starts_that_are_not_sound_are_degenerate_in_their_own_rows() -> None:
    means, covariances = np.tile([[0.0, 0.0], [6.0, 6.0]], (4, 1, 1)), np.tile(np.eye(2), (4, 2, 1, 1))
    covariances[0] = 1.0
    means[1, 0, 0] = np.nan
    result = jaxgmm.fit(np.stack([good()] * 4), 2, init=Mixture(np.full((4, 2), 0.5), means, covariances))
    assert result.status.tolist() == [Status.DEGENERATE] * 2 + [Status.CONVERGED] * 2
    assert np.isnan(result.log_likelihood).tolist() == [True, True, False, False]


def test_leaves_of_a_start_have_a_batch_axis_or_none() -> None:
    """Shared matrices are no variances, and a component of weight 0 may hold anything."""
    x = np.stack([good()] * 3)
    means, matrices = x[:, :2], np.array([[[1.0, -0.3], [-0.3, 1.0]]] * 2)
    assert np.all(jaxgmm.fit(x, 2, init=Mixture(np.full(2, 0.5), means, matrices)).status == Status.CONVERGED)
    absent = Mixture(np.array([1.0, 0.0]), means, matrices * np.array([1, -1])[:, None, None])
    assert np.all(jaxgmm.fit(x, 2, init=absent).status == Status.CONVERGED)
    negative = Mixture(np.full(2, 0.5), means[0], -np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match="a variance is negative"):
        jaxgmm.fit(x, 2, covariance_type="diag", init=negative)


def test_labels_that_leave_a_component_empty_are_degenerate() -> None:
    labels = np.tile(np.arange(40) % 2, (4, 1))
    labels[1] = 0
    result = jaxgmm.fit(np.stack([good()] * 4), 2, init=labels)
    assert result.status.tolist() == [Status.CONVERGED, Status.DEGENERATE] + [Status.CONVERGED] * 2
