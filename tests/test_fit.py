"""The contract of fit(): shapes, precisions, and independence of everything around a data set.

Nearly all time goes into compilation, so tests share shapes where they can: a stack of six data sets of 120 samples or
one of these alone, three components, and three starts that are drawn or one that is given.
"""

import itertools
import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import FULL_AND_OTHERS, FULL_DIAG_AND_OTHERS, slow

import jaxgmm
from jaxgmm import Status, settings
from jaxgmm.driver import plan, runs
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.em.methods.accelerated import SLACK
from jaxgmm.engine import transfer
from jaxgmm.engine.devices import machine
from jaxgmm.mixture import full_covariances
from jaxgmm.numerics.kernels import are_known

TIGHT = {"tol": 1e-14, "max_iter": 5000}

# The length of a history is compiled in, and so is the number of snapshots: always three.
RECORDED = {"n_init": 3, "max_iter": 100}


def clusters(seed: int, n_samples: int = 120, n_features: int = 2) -> np.ndarray:
    """Three clusters that barely touch, so that EM converges in few iterations."""
    rng = np.random.default_rng(seed)
    centres = 8 * np.eye(3, n_features) + rng.normal(size=(3, n_features))
    return centres[np.arange(n_samples) % 3] + rng.normal(size=(n_samples, n_features)) * rng.uniform(
        0.5, 1.5, n_features
    )


def stack(n_data_sets: int = 6, **options: int) -> np.ndarray:
    return np.stack([clusters(seed, **options) for seed in range(n_data_sets)])


def overlapping() -> np.ndarray:
    """Many data sets whose starts lead to different optima."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(60, 77, 2)) + 3 * rng.integers(0, 3, size=(60, 77, 1))


def n_compiled() -> int:
    """Programs that run EM."""
    return sum(program._cache_size() for program in set(runs.TAKE_ON.values()))


def sorted_means(mixture: jaxgmm.Mixture) -> np.ndarray:
    """Means in an order that does not depend on which start won, nor on rounding."""
    order = np.argsort(mixture.means @ np.arange(1.0, mixture.n_features + 1), axis=-1)
    return np.take_along_axis(mixture.means, order[..., None], axis=-2)


@pytest.mark.parametrize("family", FULL_DIAG_AND_OTHERS)
def test_shapes_are_those_of_the_contract(family: str) -> None:
    result = jaxgmm.fit(stack(), 3, covariance_type=family, n_init=3)
    spread = (2,) if FAMILIES[family].diagonal else (2, 2)
    assert [leaf.shape for leaf in result.mixture.arrays] == [(6, 3), (6, 3, 2), (6, 3, *spread)]
    for name in ("log_likelihood", "n_iter", "status"):
        assert getattr(result, name).shape == (6,)
    assert result.start_log_likelihood.shape == result.start_status.shape == (6, 3)
    assert result.history is None
    assert all(isinstance(leaf, np.ndarray) for leaf in result.mixture.arrays)

    assert result.of(2).log_likelihood == result.log_likelihood[2]
    assert result.of(slice(1, 4)).start_status.shape == (3, 3)
    assert result.of(2).efficiency == result.efficiency


@pytest.mark.parametrize("family", ["full", slow("spherical")])
def test_one_data_set_has_no_batch_axis(family: str) -> None:
    single = jaxgmm.fit(clusters(0), 3, covariance_type=family, n_init=3)
    spread = (2,) if FAMILIES[family].diagonal else (2, 2)
    assert [leaf.shape for leaf in single.mixture.arrays] == [(3,), (3, 2), (3, *spread)]
    assert np.ndim(single.log_likelihood) == np.ndim(single.status) == 0
    assert single.start_log_likelihood.shape == (3,)
    with pytest.raises(ValueError, match="is of one data set"):
        single.of(0)


# Of the axis-aligned families one searches in float32 here, and of the others one.
@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *((family, "float64") for family in ("full", "diag")),
        *(slow(family, "float64") for family in ("tied", "spherical")),
        *itertools.product(("full", "diag"), ("mixed", "float32")),
        *(slow(*case) for case in itertools.product(("tied", "spherical"), ("mixed", "float32"))),
    ],
)
def test_log_likelihood_is_that_of_the_returned_parameters(family: str, precision: str) -> None:
    x = stack()
    result = jaxgmm.fit(x, 3, covariance_type=family, precision=precision, n_init=3)
    expected = jaxgmm.log_prob(result.mixture, x).sum(axis=1)
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-5 if precision == "float32" else 1e-11)
    assert np.all(result.status == Status.CONVERGED)


@pytest.mark.usefixtures("float32_searches")
@pytest.mark.parametrize(
    ("family", "n_init"), [slow("full", 1), ("full", 3), ("diag", 3), slow("tied", 3), slow("spherical", 3)]
)
def test_mixed_precision_gives_the_answer_of_float64(family: str, n_init: int) -> None:
    x = stack()
    # Both at the optimum: a tolerance would leave them as far from it as it allows, on either side.
    options = {"covariance_type": family, "n_init": n_init, "tol": 1e-15, "max_iter": 600}
    mixed, double = (jaxgmm.fit(x, 3, precision=precision, **options) for precision in ("mixed", "float64"))
    np.testing.assert_allclose(mixed.log_likelihood, double.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(sorted_means(mixed.mixture), sorted_means(double.mixture), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed", "float64"])
def test_answers_are_those_of_programs_compiled_as_for_users(precision: str, request: pytest.FixtureRequest) -> None:
    x, options = stack(), {"precision": precision, "n_init": 10, "tol": 1e-9}
    found = jaxgmm.fit(x, 3, **options)
    request.getfixturevalue("compiled_as_for_users")
    as_for_users = jaxgmm.fit(x, 3, **options)
    np.testing.assert_array_equal(found.status, as_for_users.status)
    np.testing.assert_allclose(found.log_likelihood, as_for_users.log_likelihood, rtol=1e-9)
    # Which of several starts at the same optimum is chosen is a matter of rounding, and so is the order of components.
    own, others = (jaxgmm.order_components(result.mixture, "mean").means for result in (found, as_for_users))
    np.testing.assert_allclose(own, others, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("float32_searches")
@pytest.mark.parametrize("n_init", [slow(1), 3])
def test_narrow_components_far_from_the_origin_are_found_in_mixed_precision(n_init: int) -> None:
    rng = np.random.default_rng(0)
    narrow = 1e-3 * rng.normal(size=(6, 40, 2)) + [4.0, 4.0]
    wide = rng.normal(size=(6, 80, 2)) + 8 * (np.arange(80) % 2)[:, None]
    x = np.concatenate([wide, narrow], axis=1) + 1e6
    # So far from the origin, rounding in the data keeps a change of the log-likelihood above 1e-14.
    limits = {"n_init": n_init, "tol": 1e-11, "max_iter": 5000}
    mixed, double = (jaxgmm.fit(x, 3, precision=precision, **limits) for precision in ("mixed", "float64"))
    assert np.all(mixed.status == Status.CONVERGED)
    np.testing.assert_allclose(mixed.log_likelihood, double.log_likelihood, rtol=1e-9)
    variances = np.linalg.eigvalsh(full_covariances(mixed.mixture)).max(axis=-1)
    assert np.all(variances.min(axis=1) < 4e-6)
    np.testing.assert_allclose(sorted_means(mixed.mixture), sorted_means(double.mixture), atol=1e-6)


@pytest.mark.parametrize("family", FULL_DIAG_AND_OTHERS)
def test_shift_and_scale_move_the_answer_with_them(family: str) -> None:
    x = stack()
    scale = np.array([1e-3, 20.0]) if FAMILIES[family].closed_under != "one scale" else 20.0
    options = {"covariance_type": family, "n_init": 3, **TIGHT}
    plain, moved = jaxgmm.fit(x, 3, **options), jaxgmm.fit(1e6 + x * scale, 3, **options)
    jacobian = x.shape[1] * np.sum(np.log(np.broadcast_to(scale, 2)))
    np.testing.assert_allclose(moved.log_likelihood, plain.log_likelihood - jacobian, rtol=1e-6)
    back = replace(moved.mixture, means=(moved.mixture.means - 1e6) / scale)
    np.testing.assert_allclose(sorted_means(back), sorted_means(plain.mixture), atol=1e-5)
    np.testing.assert_allclose(np.sort(moved.mixture.weights), np.sort(plain.mixture.weights), atol=1e-6)


def ragged_stack() -> list[np.ndarray]:
    """Data sets of two lengths: they share programs with room for five components."""
    return [*stack(), clusters(9, n_samples=700)]


# Room for absent components in programs of all families: see `test_rows_are_what_fit_says` of sweep().
@pytest.mark.parametrize("family", ["full", slow("spherical")])
def test_stack_ragged_and_alone_agree(family: str) -> None:
    x = stack()
    options = {"covariance_type": family, "n_init": 3, "tol": 1e-10}
    together, ragged = jaxgmm.fit(x, 3, **options), jaxgmm.fit(ragged_stack(), 3, **options)
    assert ragged.mixture.weights.shape == (7, 3)
    for b in range(6):
        alone = jaxgmm.fit(x[b], 3, **options)
        for other in (together, ragged):
            assert other.log_likelihood[b] == pytest.approx(alone.log_likelihood, rel=1e-9)
            assert other.status[b] == alone.status
            np.testing.assert_allclose(other.mixture.means[b], alone.mixture.means, atol=1e-5)


@pytest.mark.parametrize(
    ("n_components", "init"), [(1, "k-means++"), *(slow(3, init) for init in ("kmeans", "random", "random_from_data"))]
)
def test_room_for_absent_components_changes_nothing(n_components: int, init: str) -> None:
    x, options = ragged_stack(), {"init": init, "n_init": 3}
    # That of one component is the same for all data sets.
    alike = x[:1] if n_components == 1 else x[:6]
    shared, exact = jaxgmm.fit(x, n_components, **options), jaxgmm.fit(np.stack(alike), n_components, **options)
    assert shared.mixture.weights.shape == (7, n_components)
    for b in range(len(alike)):
        assert shared.status[b] == exact.status[b]
        assert shared.log_likelihood[b] == pytest.approx(exact.log_likelihood[b], rel=1e-9)
        np.testing.assert_allclose(shared.mixture.means[b], exact.mixture.means[b], atol=1e-5)


@pytest.mark.parametrize("is_counted", [False, True])
@pytest.mark.parametrize("n_parts", [1, 4, 7])
def test_parts_of_a_job_have_the_answers_of_one_call_bit_for_bit(n_parts: int, is_counted: bool) -> None:
    x, sizes = ragged_stack(), [len(item) for item in ragged_stack()]
    of_job = np.stack(np.unique(sizes, return_counts=True)) if is_counted else sizes
    options = {"n_init": 3, "part_of": of_job}
    whole = jaxgmm.fit(x, 3, n_init=3)
    for part in range(n_parts):
        numbers = np.arange(part, len(x), n_parts)
        own = jaxgmm.fit([x[number] for number in numbers], 3, **options)
        for name in ("log_likelihood", "gap", "n_iter", "status", "start_log_likelihood", "ridge"):
            np.testing.assert_array_equal(getattr(own, name), getattr(whole, name)[numbers], err_msg=name)
        jax.tree.map(np.testing.assert_array_equal, own.mixture, whole.mixture.of(numbers))


@pytest.mark.parametrize(
    ("part_of", "words"),
    [
        (700, "part_of must be (B_all,), the number of samples of every data set of the job, or (2, S)"),
        ([[120, 700]] * 3, "part_of must be (B_all,)"),
        ([120.0] * 6 + [700.0], "part_of must be (B_all,)"),
        ([120, 120, -1, 700], "part_of must be (B_all,)"),
        ([120] * 8, "those of x included; 700 is missing."),
    ],
)
def test_sizes_of_a_job_are_refused_in_words(part_of: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        jaxgmm.fit(ragged_stack(), 3, part_of=part_of)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # What a pass has come to, and the result: an array for each of its types.
        ({"n_init": 1, "precision": "float64"}, [1, 3]),
        # A search and the finish of the best run, each with what is known of all runs, and the result.
        ({"n_init": 3}, [1, 4, 1, 4, 4]),
    ],
    ids=["one start", "several"],
)
def test_the_host_fetches_little_of_a_chunk(
    options: dict, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each fetch waits for all that was asked of it."""
    fetched, device_get = [], jax.device_get

    def counted(tree: object) -> object:
        fetched.append(len(jax.tree.leaves(tree)))
        return device_get(tree)

    monkeypatch.setattr(jax, "device_get", counted)
    found = jaxgmm.fit(stack()[:1], 3, **options)
    assert found.status == Status.CONVERGED
    assert fetched == expected


@pytest.mark.parametrize(("n_init", "is_large"), [(3, False), (1, True)])
def test_results_may_be_changed(n_init: int, monkeypatch: pytest.MonkeyPatch, *, is_large: bool) -> None:
    """None of their arrays is a device's, nor part of another, whether there is one chunk or several."""
    monkeypatch.setattr(transfer, "_is_large", lambda leaf: is_large and leaf.nbytes > 0)
    for size in (8, 4):
        monkeypatch.setattr(plan, "chunk_size", lambda *_, size=size, **__: size)
        found = jaxgmm.fit(stack(), 3, n_init=n_init)
        before = found.start_log_likelihood.copy()
        for leaf in (*found.mixture.arrays, found.log_likelihood, found.status, found.n_parameters, found.ridge):
            leaf[...] = 0
        np.testing.assert_array_equal(found.start_log_likelihood, before)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = stack()
    results = []
    for size in (8, 4):
        # The sizes that the machine suggests, not the results, are replaced. The second chunk of four is half empty.
        monkeypatch.setattr(plan, "chunk_size", lambda *_, size=size, **__: size)
        results.append(jaxgmm.fit(x, 3, n_init=3))
    whole, cut = results
    np.testing.assert_array_equal(cut.status, whole.status)
    np.testing.assert_allclose(cut.log_likelihood, whole.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(cut.mixture.means, whole.mixture.means, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed", "float64"])
@pytest.mark.parametrize(
    "bad", [np.full((77, 2), np.nan), np.full((77, 2), 3.0), np.full((77, 2), np.inf), np.eye(77, 2) * 1e30]
)
def test_bad_data_sets_leave_neighbours_unchanged_bit_for_bit(bad: np.ndarray, precision: str) -> None:
    # All are in one chunk, so that bad ones change which slot the others sit in.
    x = overlapping()
    spoiled, places = x.copy(), [0, 7, 20, 33, 59]
    spoiled[places] = bad
    result, expected = (jaxgmm.fit(data, 3, n_init=6, precision=precision) for data in (spoiled, x))
    others = np.setdiff1d(np.arange(60), places)
    for name in ("log_likelihood", "n_iter", "status", "start_log_likelihood", "start_status"):
        np.testing.assert_array_equal(getattr(result, name)[others], getattr(expected, name)[others])
    for leaf, expected_leaf in zip(result.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_array_equal(leaf[others], expected_leaf[others])


@pytest.mark.slow
@pytest.mark.parametrize(("n_samples", "n_components"), [(3000, 3), (20_000, 2)])
def test_neighbours_change_no_bit_of_large_data_sets(n_samples: int, n_components: int) -> None:
    # So large that few of them, or tiles of one, fill the slots.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, n_samples, 3)) + 3 * rng.integers(0, 3, size=(10, n_samples, 1))
    spoiled, places = x.copy(), [0, 4]
    spoiled[places] = np.nan
    options = {"n_init": 3, "max_iter": 30}
    result, expected = (jaxgmm.fit(data, n_components, **options) for data in (spoiled, x))
    others = np.setdiff1d(np.arange(10), places)
    np.testing.assert_array_equal(result.start_log_likelihood[others], expected.start_log_likelihood[others])
    np.testing.assert_array_equal(result.mixture.covariances[others], expected.mixture.covariances[others])


# Weights of all families, 0 among them, are compared with the NumPy twin in `test_published.py`.
def test_weight_zero_is_a_sample_removed_and_weight_two_a_sample_twice() -> None:
    x = clusters(1)
    weights = np.random.default_rng(1).integers(0, 3, len(x)).astype(float)
    start = jaxgmm.fit(x, 3, n_init=3).mixture
    weighted = jaxgmm.fit(x, 3, init=start, sample_weight=weights, **TIGHT)
    repeated = jaxgmm.fit(np.repeat(x, weights.astype(int), axis=0), 3, init=start, **TIGHT)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(weighted.mixture.means, repeated.mixture.means, atol=1e-6)


def test_nan_in_a_sample_of_weight_zero_is_ignored() -> None:
    x = stack()
    weights = np.ones(x.shape[:2])
    weights[:, [3, 50]] = 0
    spoiled = x.copy()
    spoiled[:, 3], spoiled[:, 50] = np.nan, np.inf
    result, expected = (jaxgmm.fit(data, 3, n_init=3, sample_weight=weights) for data in (spoiled, x))
    np.testing.assert_array_equal(result.mixture.means, expected.mixture.means)
    assert np.all(result.status == Status.CONVERGED)


def test_scale_of_weights_does_not_move_the_parameters() -> None:
    x = stack()
    weights = np.random.default_rng(0).uniform(0.5, 2, x.shape[:2])
    one, thousand = (jaxgmm.fit(x, 3, n_init=3, sample_weight=factor * weights, **TIGHT) for factor in (1.0, 1000.0))
    np.testing.assert_allclose(sorted_means(one.mixture), sorted_means(thousand.mixture), atol=1e-4)
    np.testing.assert_allclose(thousand.log_likelihood, 1000 * one.log_likelihood, rtol=1e-7)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_order_of_components_in_the_start_is_kept(family: str) -> None:
    x = clusters(2)
    labels = np.arange(len(x)) % 3
    result = jaxgmm.fit(x, 3, covariance_type=family, init=labels, **TIGHT)
    turned = jaxgmm.fit(x, 3, covariance_type=family, init=(labels + 1) % 3, **TIGHT)
    np.testing.assert_allclose(np.roll(result.mixture.means, 1, axis=0), turned.mixture.means, atol=1e-6)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_labels_responsibilities_and_their_m_step_are_one_start(family: str) -> None:
    x = clusters(2)
    labels = np.arange(len(x)) % 3
    twin = reference.m_step(x, np.eye(3)[labels], family, np.ones(len(x)), reference.absolute_ridge(x, 1e-6, family))
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if FAMILIES[family].diagonal else twin.covariances
    starts = [labels, np.eye(3)[labels], jaxgmm.Mixture(twin.weights, twin.means, covariances)]
    results = [jaxgmm.fit(x, 3, covariance_type=family, init=start, tol=0, max_iter=7) for start in starts]
    for result in results:
        assert result.n_iter == 7
        assert result.start_log_likelihood.shape == (1,)
        assert result.log_likelihood == pytest.approx(results[0].log_likelihood, rel=1e-10)
        np.testing.assert_allclose(result.mixture.means, results[0].mixture.means, atol=1e-8)


def test_explicit_starts_may_differ_between_data_sets() -> None:
    x = stack()
    ragged = [rows[: 70 + 10 * b] for b, rows in enumerate(x)]
    labels = [np.arange(len(rows)) % 3 for rows in ragged]
    result = jaxgmm.fit(ragged, 3, init=labels)
    for b in range(6):
        alone = jaxgmm.fit(ragged[b], 3, init=labels[b])
        assert result.log_likelihood[b] == pytest.approx(alone.log_likelihood, rel=1e-10)
    shared = jaxgmm.fit(x, 3, init=result.mixture.of(0))
    assert np.all(shared.status == Status.CONVERGED)
    # The result of a fit stands for its mixture.
    again = jaxgmm.fit(x, 3, init=result.of(0))
    np.testing.assert_array_equal(again.log_likelihood, shared.log_likelihood)


# What the M-step of a start is made from depends on whether components are axis-aligned.
@pytest.mark.parametrize(
    ("family", "init"),
    [
        *(("full", init) for init in INITIALIZERS),
        *(slow("spherical", init) for init in INITIALIZERS),
        slow("tied", "k-means++"),
        ("diag", "k-means++"),
    ],
)
def test_every_initialisation_finds_clusters_that_are_plain(init: str, family: str) -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    x = centres[np.arange(120) % 3] + rng.normal(size=(6, 120, 2))
    result = jaxgmm.fit(x, 3, covariance_type=family, init=init, n_init=3)
    np.testing.assert_allclose(sorted_means(result.mixture), np.tile(centres, (6, 1, 1)), atol=1.0)


@pytest.mark.parametrize("precision", ["mixed", "float32", "float64"])
def test_best_start_wins(precision: str) -> None:
    x = overlapping()
    result = jaxgmm.fit(x, 3, precision=precision, init="random_from_data", n_init=6)
    # Runs with spurious components have the highest likelihoods, and win only where they are better without that.
    sound = (result.start_spurious == 0) & (result.start_status != Status.DEGENERATE)
    assert np.any(~sound)
    best = np.max(np.where(sound, result.start_log_likelihood, -np.inf), axis=1)
    assert np.all((result.log_likelihood > best) | (result.spurious == 0))
    assert np.mean(np.ptp(result.start_log_likelihood, axis=1) > 0.1) > 0.9
    # A search does not tell starts apart that tol cannot.
    slack = {"mixed": 2e-5, "float32": 0.0, "float64": 1e-11}[precision] * x.shape[1]
    assert np.all(result.log_likelihood >= best - slack)
    passed_over = np.any(~sound & (result.start_log_likelihood > result.log_likelihood[:, None] + 1), axis=1)
    assert np.all(result.start_passed_over[passed_over])


def test_seeds_repeat_and_differ() -> None:
    x = stack()
    first, again, typed, other = (
        jaxgmm.fit(x, 3, init="random_from_data", n_init=3, max_iter=1, key=key) for key in (3, 3, jax.random.key(3), 4)
    )
    np.testing.assert_array_equal(first.start_log_likelihood, again.start_log_likelihood)
    # A program that is given a seed makes the same draws, and may round differently.
    np.testing.assert_allclose(first.start_log_likelihood, typed.start_log_likelihood, rtol=1e-9)
    assert not np.any(first.start_log_likelihood == other.start_log_likelihood)


@pytest.mark.parametrize("precision", [slow("mixed"), "float64"])
def test_history_holds_the_start_and_every_iteration(precision: str) -> None:
    result = jaxgmm.fit(stack(), 3, precision=precision, history=(0, 1, 2), **RECORDED)
    for n_iter, trace, log_likelihood in zip(result.n_iter, result.history, result.log_likelihood, strict=True):
        assert np.all(np.isfinite(trace[: n_iter + 1]))
        assert np.all(np.isnan(trace[n_iter + 1 :]))
        assert trace[n_iter] == pytest.approx(log_likelihood, rel=1e-14)
        # Float32 may lose a few units in the seventh digit between iterations.
        lost = SLACK["float64"] * 120 if precision == "float64" else 1e-3
        assert np.all(np.diff(trace[: n_iter + 1]) > -lost)
    assert result.history.shape == (6, result.n_iter.max() + 1)


@pytest.mark.parametrize(("family", "precision"), [("full", "mixed"), slow("diag", "mixed"), slow("full", "float32")])
def test_snapshots_are_the_parameters_after_so_many_iterations(family: str, precision: str) -> None:
    x, iterations = clusters(0), (4, 0, 1)
    options = {"covariance_type": family, "init": np.arange(len(x)) % 3, "precision": precision, "tol": 0}
    snapshots = jaxgmm.fit(x, 3, max_iter=100, history=iterations, **options).snapshots
    spread = (2,) if FAMILIES[family].diagonal else (2, 2)
    assert [leaf.shape for leaf in snapshots.arrays] == [(3, 3), (3, 3, 2), (3, 3, *spread)]
    for s, n in enumerate(iterations):
        expected = jaxgmm.fit(x, 3, max_iter=n, **options).mixture
        for leaf, expected_leaf in zip(snapshots.arrays, expected.arrays, strict=True):
            np.testing.assert_allclose(leaf[s], expected_leaf, rtol=1e-12)


@pytest.mark.parametrize("precision", [slow("mixed"), "float64"])
def test_snapshots_explain_the_history(precision: str) -> None:
    x = stack()
    n_iter = jaxgmm.fit(x, 3, precision=precision, **RECORDED).n_iter
    for some in {1, 2, *n_iter.tolist()}:
        iterations = (0, some, 99)
        result = jaxgmm.fit(x, 3, precision=precision, history=iterations, **RECORDED)
        np.testing.assert_array_equal(result.n_iter, n_iter)
        for s, n in enumerate(iterations):
            snapshot = result.snapshots.of(np.s_[:, s])
            ended = n_iter < n
            for leaf in snapshot.arrays:
                np.testing.assert_array_equal(np.all(np.isnan(leaf.reshape(6, -1)), axis=1), ended)
                np.testing.assert_array_equal(np.any(np.isnan(leaf.reshape(6, -1)), axis=1), ended)
            expected = jaxgmm.log_prob(snapshot, x).sum(axis=1)
            history = result.history[:, n] if n < result.history.shape[1] else np.full(6, np.nan)
            # Iterations that float32 made are known in its digits.
            np.testing.assert_allclose(history, expected, rtol=1e-12 if precision == "float64" else 1e-5)
            last = n_iter == n
            np.testing.assert_allclose(result.log_likelihood[last], expected[last], rtol=1e-12)
            for leaf, end in zip(snapshot.arrays, result.mixture.arrays, strict=True):
                # Two products of the same matrices, which compilers may round differently.
                np.testing.assert_allclose(leaf[last], end[last], rtol=1e-12)


# Variances of axis-aligned components: see `test_snapshots_are_the_parameters_after_so_many_iterations`.
def test_snapshots_have_the_shapes_of_the_mixture_and_an_axis_more() -> None:
    x = ragged_stack()
    x[1] = np.full((60, 2), np.nan)
    options = {"history": [2, 1, 0], **RECORDED}
    result = jaxgmm.fit(x, 3, **options)
    assert [leaf.shape for leaf in result.snapshots.arrays] == [(7, 3, 3), (7, 3, 3, 2), (7, 3, 3, 2, 2)]
    good = [0, *range(2, 7)]
    assert all(np.all(np.isnan(leaf[1])) and not np.any(np.isnan(leaf[good])) for leaf in result.snapshots.arrays)
    together = jaxgmm.fit(stack(), 3, **options)
    np.testing.assert_allclose(together.snapshots.means[0], result.snapshots.means[0], atol=1e-5)


def test_random_starts_from_data_are_samples() -> None:
    # Correlated features: in coordinates that are not those of the fit, the means of every other start would be none.
    x = stack() @ np.array([[1.0, 0.0], [0.95, 0.3]])
    options = {"init": "random_from_data", "tol": 0, "history": (0, 1, 2), "precision": "float64", **RECORDED}
    for key in range(4):
        result = jaxgmm.fit(x, 3, key=key, **options)
        distance = np.linalg.norm(result.snapshots.means[:, 0, :, None] - x[:, None], axis=-1)
        np.testing.assert_allclose(np.min(distance, axis=-1), 0, atol=1e-9)


def test_snapshots_change_nothing_else() -> None:
    x = stack()
    plain, traced, kept = (jaxgmm.fit(x, 3, history=history, **RECORDED) for history in (False, True, (2, 0, 1)))
    assert plain.snapshots is None
    assert traced.snapshots is None
    np.testing.assert_array_equal(kept.history, traced.history)
    np.testing.assert_array_equal(kept.mixture.means, plain.mixture.means)
    compiled = n_compiled()
    jaxgmm.fit(x, 3, history=(7, 8, 9), **RECORDED)
    assert n_compiled() == compiled


def test_snapshots_of_all_starts_and_of_finalists_are_those_of_the_chosen_run() -> None:
    x = stack()
    for options in ({"tol": 0, "precision": "float64"}, {"n_finalists": 2, "method": "em"}):
        result = jaxgmm.fit(x, 3, history=(0, 3, 1), **options, **RECORDED)
        start = result.snapshots.of(np.s_[:, 0])
        again = jaxgmm.fit(x, 3, init=start, tol=0, max_iter=3, precision="float64").mixture
        np.testing.assert_allclose(result.snapshots.means[:, 1], again.means, atol=1e-4)


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ((), "history must be False, True or a sequence of iteration numbers"),
        ("all", "history must be False, True or a sequence of iteration numbers; got 'all'"),
        (3, "history must be False, True or a sequence of iteration numbers; got 3"),
        (None, "history must be False, True or a sequence"),
        ((0, -1), "history must name iterations from 0 to max_iter=20; got -1"),
        ((0, 21), "history must name iterations from 0 to max_iter=20; got 21"),
        ((0, 1.5), "history must name iterations from 0 to max_iter=20; got 1.5"),
        ((0, True), "history must name iterations from 0 to max_iter=20; got True"),
        (np.array([[1, 2]]), "history must name iterations"),
        ((3, 1, 3), "history must name every iteration once"),
    ],
)
def test_snapshots_that_cannot_be_are_refused_in_words(history: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jaxgmm.fit(stack(2), 3, max_iter=20, history=history)


@pytest.mark.parametrize(
    ("n_init", "precision"),
    [(1, "mixed"), (1, "float64"), slow(1, "float32"), *((3, precision) for precision in settings.PRECISIONS)],
)
@pytest.mark.parametrize("max_iter", [0, 1, 2, 9])
def test_zero_tolerance_makes_exactly_max_iter_iterations(precision: str, n_init: int, max_iter: int) -> None:
    result = jaxgmm.fit(stack(), 3, tol=0, max_iter=max_iter, n_init=n_init, precision=precision)
    assert result.n_iter.tolist() == [max_iter] * 6
    assert result.status.tolist() == [Status.MAX_ITER] * 6


def test_jax_arrays_and_lists_are_read() -> None:
    x = clusters(0).astype(np.float32)
    labels = np.arange(len(x)) % 3
    expected = jaxgmm.fit(x, 3, init=labels)
    for other in (jnp.asarray(x), x.tolist()):
        assert jaxgmm.fit(other, 3, init=labels).log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-6)


def test_options_that_are_traced_compile_nothing() -> None:
    x = stack()
    jaxgmm.fit(x, 3, n_init=3)
    compiled = n_compiled()
    for max_iter in (1, 17, 10_000):
        jaxgmm.fit(x, 3, n_init=3, tol=1e-3, max_iter=max_iter, reg_covar=1e-3, key=5)
    jaxgmm.fit(x[:, :118] + 1, 3, n_init=3)
    assert n_compiled() == compiled


def test_ragged_data_of_every_length_compiles_few_programs() -> None:
    before = n_compiled()
    lengths = [*range(30, 500, 9), 1000, 2500, 5000]
    result = jaxgmm.fit([clusters(n, n_samples=n) for n in lengths], 2, n_init=1, max_iter=3, covariance_type="diag")
    assert len(result.status) == len(lengths)
    assert n_compiled() - before <= 12


def test_one_component_is_the_sample_mean_and_covariance() -> None:
    x = clusters(0)
    result = jaxgmm.fit(x, 1, n_init=3, reg_covar=0)
    np.testing.assert_allclose(result.mixture.means[0], x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.mixture.covariances[0], np.cov(x.T, bias=True), rtol=1e-11)


# Matrices of other sizes are tested in `numerics/test_elimination.py`.
def test_more_features_than_are_unrolled() -> None:
    x = clusters(0, n_samples=200, n_features=12)
    start = reference.random_start(np.random.default_rng(0), x, "full", 2)
    result = jaxgmm.fit(x, 2, init=jaxgmm.Mixture(*start), tol=0, max_iter=8, reg_covar=0)
    assert result.log_likelihood == pytest.approx(reference.em(x, start, "full", 8).trace[-1], rel=1e-10)


@pytest.mark.parametrize("precision", [slow("mixed"), slow("float32"), "float64"])
def test_tiny_weights_lose_nothing(precision: str) -> None:
    x = stack()
    plain, tiny, huge = (
        jaxgmm.fit(x, 3, precision=precision, n_init=3, sample_weight=np.full(x.shape[:2], weight))
        for weight in (1.0, 1e-38, 1e39)
    )
    for other, weight in ((tiny, 1e-38), (huge, 1e39)):
        assert np.all(other.status == Status.CONVERGED)
        np.testing.assert_allclose(other.log_likelihood / weight, plain.log_likelihood, rtol=1e-6)


def test_efficiency_is_a_share() -> None:
    result = jaxgmm.fit(stack(), 3, n_init=3)
    assert 0 < result.efficiency <= 1


def test_one_component_takes_two_steps_and_no_more() -> None:
    for x in stack(8):
        result = jaxgmm.fit(x, 1, n_init=3, precision="float64")
        assert result.n_iter == 1
        if are_known() and jax.default_backend() == "cpu":
            # Elsewhere idle slots count.
            assert result.efficiency == 1


# Each family from another start: two that are drawn, and two that are given.
@pytest.mark.parametrize(
    ("family", "init"),
    [
        ("full", "k-means++"),
        slow("diag", "labels"),
        slow("tied", "mixture"),
        slow("spherical", "random"),
    ],
)
def test_tiles_of_samples_change_nothing(family: str, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = clusters(0)
    start = {"labels": np.arange(len(x)) % 3}
    if init == "mixture":
        start[init] = jaxgmm.fit(x, 3, covariance_type=family, init=start["labels"], max_iter=2).mixture
    options = {"covariance_type": family, "init": start.get(init, init), "n_init": 3}
    whole = jaxgmm.fit(x, 3, **options, **TIGHT)
    small = machine()._replace(working_set=1024)
    monkeypatch.setattr(sys.modules["jaxgmm.driver.dispatch"], "machine", lambda _threads: small)
    tiled = jaxgmm.fit(x, 3, **options, **TIGHT)
    assert tiled.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(sorted_means(tiled.mixture), sorted_means(whole.mixture), atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed", "float32", "float64"])
def test_finalists_are_the_best_after_a_few_iterations(precision: str) -> None:
    x = overlapping()
    everything, finalists = (jaxgmm.fit(x, 3, n_init=6, n_finalists=n, precision=precision) for n in (6, 2))
    ended = finalists.start_status == Status.CONVERGED
    assert np.all(np.sum(ended, axis=1) >= 1)
    assert np.mean(ended) < 0.6
    assert np.all(finalists.status == Status.CONVERGED)
    # No better optimum than with all starts, and no worse one than where the starts that were dropped had come to.
    assert np.all(finalists.log_likelihood <= everything.log_likelihood + 1e-4 * x.shape[1])
    dropped = np.where(ended, -np.inf, finalists.start_log_likelihood)
    assert np.all(finalists.log_likelihood >= np.max(dropped, axis=1) - 1e-4 * x.shape[1])


def test_finalists_are_sound_where_any_start_is() -> None:
    # Heavy tails and few samples: many starts end in spurious components, which have the highest likelihoods early on.
    x = np.random.default_rng(0).standard_t(2, size=(60, 77, 2))
    result = jaxgmm.fit(x, 3, n_init=6, n_finalists=2, precision="float64")
    sound = np.any((result.start_spurious == 0) & (result.start_status != Status.DEGENERATE), axis=1)
    assert np.mean(result.spurious[sound] == 0) > 0.9


def test_components_of_two_samples_end_as_converged() -> None:
    # Two samples lie on a line: only the ridge holds it open, and rounding of the covariance is worth more than tol.
    x = np.random.default_rng(4).standard_t(1, size=(60, 77, 2))
    result = jaxgmm.fit(x, 3, n_init=6, n_finalists=2, precision="float64")
    assert np.all(result.status == Status.CONVERGED)


def test_what_is_not_known_of_a_narrow_component_does_not_end_the_others() -> None:
    # Two clusters that overlap, and samples near a line that is three million times as long as wide.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 300, 2))
    x[:, :120, 0] += 1.5
    x[:, 240:] = 100 * rng.normal(size=(20, 60, 1)) + 3e-5 * rng.normal(size=(20, 60, 2))
    labels = np.tile(np.repeat([0, 1, 2], [120, 120, 60]), (20, 1))
    result = jaxgmm.fit(x, 3, init=labels, precision="float64")
    sound = (result.status == Status.CONVERGED) & (result.spurious == 0)
    assert np.sum(sound) > 10
    further = jaxgmm.fit(x, 3, init=result.mixture, method="em", tol=1e-12, precision="float64")
    left = (further.log_likelihood - result.log_likelihood) / 300
    # EM's likelihoods are known to 1e-6 here.
    assert np.max(left[sound]) < 1e-5
    assert np.all(result.gap >= 0)


def test_as_many_finalists_as_starts_are_all_of_them() -> None:
    x = stack()
    expected, found = (jaxgmm.fit(x, 3, n_init=3, n_finalists=n) for n in (None, 3))
    np.testing.assert_array_equal(found.start_log_likelihood, expected.start_log_likelihood)


@pytest.mark.parametrize("n_finalists", [0, 2.5, True])
def test_number_of_finalists_is_refused_in_words(n_finalists: object) -> None:
    with pytest.raises(ValueError, match="n_finalists must be an integer of at least 1"):
        jaxgmm.fit(stack(2), 3, n_finalists=n_finalists)


def test_jax_arrays_need_not_leave_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    x = stack()
    expected = jaxgmm.fit(x, 3, n_init=3)
    # The CPU stands in for an accelerator.
    monkeypatch.setattr("jaxgmm.engine.batch._is_on_accelerator", lambda x: isinstance(x, jax.Array))
    with jax.enable_x64(True):
        found = jaxgmm.fit(jnp.asarray(x), 3, n_init=3)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-9)


def test_an_absent_component_may_stand_anywhere() -> None:
    x, labels = stack(), (np.arange(120) % 3 > 0).astype(int)
    starts = [reference.m_step(own, np.eye(2)[labels], "full", np.ones(120), 0.0) for own in x]
    stacked = jaxgmm.Mixture(*(np.insert(np.stack(leaves), 1, 0, axis=1) for leaves in zip(*starts, strict=True)))
    result = jaxgmm.fit(x, 3, init=stacked, tol=0, max_iter=15, reg_covar=0)
    np.testing.assert_array_equal(result.mixture.weights[:, 1], 0)
    for b, start in enumerate(starts):
        twin = reference.em(x[b], start, "full", 15)
        assert result.log_likelihood[b] == pytest.approx(twin.log_likelihood, rel=1e-10)
        np.testing.assert_allclose(result.mixture.means[b, [0, 2]], twin.mixture.means, rtol=1e-5)


@pytest.mark.parametrize("exponent", [-1070, -1000, -300, 300, 1000, 1022])
def test_weights_scaled_by_a_power_of_two_give_the_same_fit(exponent: int) -> None:
    x = stack()
    weights = np.random.default_rng(0).integers(1, 4, x.shape[:2]).astype(float)
    expected = jaxgmm.fit(x, 3, n_init=3, sample_weight=weights)
    result = jaxgmm.fit(x, 3, n_init=3, sample_weight=np.ldexp(weights, exponent - 2))
    np.testing.assert_array_equal(result.status, expected.status)
    for leaf, own in zip(expected.mixture.arrays, result.mixture.arrays, strict=True):
        np.testing.assert_array_equal(own, leaf)


def test_a_degenerate_fit_says_the_likelihood_of_what_it_returns() -> None:
    x = np.random.default_rng(0).normal(size=(6, 120, 2)) + 50 * (np.arange(120) % 2)[:, None]
    x[:, 0] = 2 * [[1e8, 1e8], [1e4, 0], [1e12, 1]]
    result = jaxgmm.fit(x, 3, reg_covar=0, n_init=3)
    assert np.all(result.status == Status.DEGENERATE)
    expected = np.sum(jaxgmm.log_prob(result.mixture, x), axis=1)
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-9)


@pytest.mark.slow
def test_a_neighbours_absent_component_makes_none_of_a_weight_that_is_no_number() -> None:
    x = stack()
    means, covariances = np.tile(8 * np.eye(3, 2), (6, 1, 1)), np.tile(np.eye(2), (6, 3, 1, 1))
    for weights in ([np.nan, 0.5, 0.5], [np.nan] * 3):
        for other in ([0.5, 0.3, 0.2], [0.5, 0.5, 0.0]):
            start = jaxgmm.Mixture(np.array([weights, *[other] * 5]), means, covariances)
            result = jaxgmm.fit(x, 3, init=start)
            assert result.status.tolist() == [Status.DEGENERATE] + [Status.CONVERGED] * 5


@pytest.mark.parametrize("closed_under", ["one scale", slow("scale per feature")])
def test_a_family_need_not_be_axis_aligned_to_be_closed_under_scales_only(
    closed_under: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"full, {closed_under}"
    monkeypatch.setitem(FAMILIES, name, FAMILIES["full"]._replace(closed_under=closed_under))
    monkeypatch.setattr(settings, "FAMILIES", (*settings.FAMILIES, name))
    x = stack() * np.array([1.0, 30.0])
    options = {"reg_covar": 0.5, "init": np.arange(x.shape[1]) % 3, "tol": 1e-12, "max_iter": 3000}
    found, expected = (jaxgmm.fit(x, 3, covariance_type=family, **options) for family in (name, "full"))
    np.testing.assert_allclose(found.ridge, expected.ridge, rtol=1e-12)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(found.mixture.covariances, expected.mixture.covariances, rtol=1e-4, atol=1e-4)
