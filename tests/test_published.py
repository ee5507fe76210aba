"""Answers that others published or computed: teaching examples, mclust, Spark, scikit-learn, and a NumPy twin."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import reference
from compilation import FULL_DIAG_AND_OTHERS
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import jaxgmm
from jaxgmm import Mixture, Status
from jaxgmm.em.covariance import n_parameters
from jaxgmm.record import field_names
from jaxgmm.selection import criteria

DATA = Path(__file__).parent / "data"
FAMILIES = ("full", "tied", "diag", "spherical")
AXIS_ALIGNED = ("diag", "spherical")
FAMILY_OF_MODEL = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}

NOTEBOOKS = json.loads((DATA / "notebooks.json").read_text())
PARAMETER_TOLERANCE = {
    "three_clusters": 1e-7,
    "correlated_clusters": 1e-7,
    "from_samples": 1e-6,
    "from_kmeans": 1e-6,
    "five_dimensional": 1e-6,
}

MCLUST = {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("mclust_*.json"))}
# The data sets in the plane are fitted together: each combination of sizes and family has to be compiled.
MCLUST_STACKS = (("mclust_ex4_1", "mclust_faithful"), ("mclust_iris",))
# A model of matrices and one of variances, and both stacks; all others are slow.
QUICK_MODELS = ({("VVV", 3)}, {("VVI", 2)})


def mixture_of(parameters):
    return Mixture(*field_names(Mixture)).map(lambda name: np.array(parameters[name]))


def matrices(mixture):
    """Covariances as matrices, also where the mixture holds variances."""
    if not mixture.is_diagonal:
        return mixture.covariances
    return mixture.covariances[..., None] * np.eye(mixture.n_features)


def row(mixture, b):
    return mixture.of(b)


def in_form_of(family, mixture):
    """A start as jaxgmm takes it: with variances in place of matrices for axis-aligned families."""
    covariances = np.asarray(mixture.covariances)
    if family in AXIS_ALIGNED:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    return Mixture(np.asarray(mixture.weights), np.asarray(mixture.means), covariances)


def assert_same_mixture(actual, expected, **tolerance):
    np.testing.assert_allclose(actual.weights, expected.weights, **tolerance)
    np.testing.assert_allclose(actual.means, expected.means, **tolerance)
    np.testing.assert_allclose(matrices(actual), expected.covariances, **tolerance)


# Teaching examples


# With a tol of 0 both precisions make all iterations in float64.
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "mixed") for name in PARAMETER_TOLERANCE), ("three_clusters", "float64")]
)
def test_teaching_example_is_reproduced_iteration_by_iteration(name, precision):
    example = NOTEBOOKS[name]
    start, final = mixture_of(example["start"]), mixture_of(example["final"])
    result = jaxgmm.fit(
        np.array(example["x"]),
        start.n_components,
        init=start,
        tol=0,
        max_iter=example["n_iter"],
        reg_covar=0,
        precision=precision,
        history=True,
    )
    assert (result.status, result.n_iter) == (Status.MAX_ITER, example["n_iter"])
    np.testing.assert_allclose(result.history, example["log_likelihood_trace"], rtol=1e-9)
    np.testing.assert_allclose(result.log_likelihood, example["log_likelihood_trace"][-1], rtol=1e-9)
    assert_same_mixture(result.mixture, final, rtol=0, atol=PARAMETER_TOLERANCE[name])


# mclust


def test_every_family_and_data_set_of_mclust_is_present():
    sizes = {name: np.shape(data_set["X"]) for name, data_set in MCLUST.items()}
    assert sizes == {"mclust_ex4_1": (600, 2), "mclust_faithful": (272, 2), "mclust_iris": (150, 4)}
    for data_set in MCLUST.values():
        fits = {(fit["model"], fit["G"]) for fit in data_set["fits"] if fit["ok"]}
        assert fits == {(model, n) for model in FAMILY_OF_MODEL for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("names", "model", "n_components"),
    [
        pytest.param(
            *(names, model, n_components),
            id=f"{'+'.join(names)}-{model}-{n_components}",
            marks=() if (model, n_components) in quick else pytest.mark.slow,
        )
        for names, quick in zip(MCLUST_STACKS, QUICK_MODELS, strict=True)
        for model in FAMILY_OF_MODEL
        for n_components in (1, 2, 3, 4)
    ],
)
def test_mclust_is_matched_where_it_stopped_and_at_convergence(names, model, n_components):
    data_sets = [np.array(MCLUST[name]["X"]) for name in names]
    fits = [
        next(fit for fit in MCLUST[name]["fits"] if (fit["model"], fit["G"]) == (model, n_components)) for name in names
    ]
    longest = max(map(len, data_sets))
    x = np.stack([np.pad(data, ((0, longest - len(data)), (0, 0))) for data in data_sets])
    labels = np.stack([np.pad(fit["labels"], (0, longest - len(fit["labels"])), constant_values=1) for fit in fits]) - 1
    sample_weight = np.stack([(np.arange(longest) < len(data)).astype(float) for data in data_sets])

    def fit_all(**stopping):
        return jaxgmm.fit(
            x,
            n_components,
            covariance_type=FAMILY_OF_MODEL[model],
            init=labels,
            sample_weight=sample_weight,
            reg_covar=0,
            **stopping,
        )

    # 1e-14 nats per sample is what float64 can still resolve of a mean log-likelihood of order 1.
    converged = fit_all(tol=1e-14, max_iter=5000)
    for b, mclust in enumerate(fits):
        assert mclust["ok"]
        # mclust counts the M-step from the labels as an iteration, so this is the very step at which it stopped.
        stopped = fit_all(tol=0, max_iter=mclust["n_iter"] - 1)
        theirs = reference.TwinMixture(
            np.atleast_1d(mclust["weights"]), np.array(mclust["means"]).T, np.moveaxis(np.array(mclust["cov"]), -1, 0)
        )
        assert stopped.status[b] == Status.MAX_ITER
        np.testing.assert_allclose(stopped.log_likelihood[b], mclust["loglik"], rtol=1e-12)
        assert_same_mixture(row(stopped.mixture, b), theirs, rtol=1e-9, atol=1e-9)

        assert converged.status[b] == Status.CONVERGED
        np.testing.assert_allclose(converged.log_likelihood[b], mclust["loglik"], rtol=1e-8)
        assert converged.log_likelihood[b] >= mclust["loglik"] - 1e-12 * abs(mclust["loglik"])
        assert_same_bic(converged.log_likelihood[b], mclust, data_sets[b])


def assert_same_bic(log_likelihood, mclust, x):
    """Ours is minus mclust's."""
    counted = n_parameters(mclust["G"], x.shape[1], FAMILY_OF_MODEL[mclust["model"]])
    assert counted == mclust["df"]
    assert criteria.bic(criteria.Evidence(log_likelihood, counted, len(x))) == pytest.approx(-mclust["bic"], rel=1e-8)


# Spark

SPARK_PLANE = np.array(
    [
        (-0.6264538, 0.1836433),
        (-0.8356286, 1.5952808),
        (0.3295078, -0.8204684),
        (0.4874291, 0.7383247),
        (0.5757814, -0.3053884),
        (1.5117812, 0.3898432),
        (-0.6212406, -2.2146999),
        (11.1249309, 9.9550664),
        (9.9838097, 10.9438362),
        (10.8212212, 10.5939013),
        (10.9189774, 10.7821363),
        (10.0745650, 8.0106483),
        (10.6198257, 9.9438713),
        (9.8442045, 8.5292476),
        (9.5218499, 10.4179416),
    ]
)
SPARK_LINE = np.array(
    [
        *(-5.1971, -2.5359, -3.8220, -5.2211, -5.0602, 4.7118, 6.8989, 3.4592),
        *(4.6322, 5.7048, 4.6567, 5.5026, 4.5605, 5.2043, 6.2734),
    ]
)


def test_spark_two_clusters_in_the_plane_are_found():
    result = jaxgmm.fit(SPARK_PLANE, 2, reg_covar=0)
    order = np.argsort(-result.mixture.weights)
    assert result.status == Status.CONVERGED
    assert result.log_likelihood == pytest.approx(-46.89499, abs=1e-5)
    # Spark prints six to eight digits.
    expected = reference.TwinMixture(
        weights=np.array([0.5333333, 0.4666667]),
        means=np.array([(10.363673, 9.897081), (0.11731091, -0.06192351)]),
        covariances=np.array(
            [[(0.2961543, 0.1607830), (0.1607830, 1.008878)], [(0.62049934, 0.06880802), (0.06880802, 1.27431874)]]
        ),
    )
    assert_same_mixture(result.mixture.components(order), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_spark_two_clusters_on_the_line_are_found():
    result = jaxgmm.fit(SPARK_LINE[:, None], 2, reg_covar=0)
    order = np.argsort(-result.mixture.weights)
    assert result.status == Status.CONVERGED
    # Spark's own tolerance for these numbers.
    expected = reference.TwinMixture(
        np.array([2 / 3, 1 / 3]), np.array([[5.1604], [-4.3673]]), np.array([[[0.86644]], [[1.1098]]])
    )
    assert_same_mixture(result.mixture.components(order), expected, rtol=0, atol=1e-3)


# scikit-learn


def unit_variance_clusters(rng, n_samples=150, n_features=3):
    """Three clusters that overlap; every feature has variance 1, so an absolute ridge is also a relative one."""
    centres = 2 * rng.standard_normal((3, n_features))
    mixing = rng.standard_normal((3, n_features, n_features))
    labels = rng.integers(3, size=n_samples)
    x = centres[labels] + np.einsum("nij,nj->ni", mixing[labels], rng.standard_normal((n_samples, n_features)))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def scikit_learn_after(n_iter, x, start, family, reg_covar):
    """scikit-learn after exactly n iterations, and its covariances as matrices."""
    precisions = np.linalg.inv(start.covariances)
    precisions = {
        "full": lambda: precisions,
        "tied": lambda: precisions[0],
        "diag": lambda: np.diagonal(precisions, axis1=1, axis2=2),
        "spherical": lambda: precisions[:, 0, 0],
    }[family]()
    model = GaussianMixture(
        len(start.weights),
        covariance_type=family,
        tol=0,
        max_iter=n_iter,
        reg_covar=reg_covar,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=precisions,
        init_params="random_from_data",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # It is told to stop early.
        model.fit(x)
    assert model.n_iter_ == n_iter
    n_features = x.shape[1]
    covariances = {
        "full": lambda c: c,
        "tied": lambda c: np.broadcast_to(c, (len(start.weights), *c.shape)),
        "diag": lambda c: c[:, :, None] * np.eye(n_features),
        "spherical": lambda c: c[:, None, None] * np.eye(n_features),
    }[family](model.covariances_)
    return reference.TwinMixture(model.weights_, model.means_, covariances), model.score(x) * len(x)


@pytest.mark.parametrize("family", FULL_DIAG_AND_OTHERS)
def test_scikit_learn_is_matched_after_exactly_n_iterations(family):
    rng = np.random.default_rng(0)
    x = unit_variance_clusters(rng)
    start = reference.random_start(rng, x, family, 3)
    for n_iter in (1, 5, 20):
        # A ridge of 1e-2 is large enough to show at once if it were scaled or placed differently.
        for reg_covar in (0.0, 1e-2):
            theirs, log_likelihood = scikit_learn_after(n_iter, x, start, family, reg_covar)
            ours = jaxgmm.fit(
                x,
                3,
                covariance_type=family,
                init=in_form_of(family, start),
                tol=0,
                max_iter=n_iter,
                reg_covar=reg_covar,
            )
            assert ours.n_iter == n_iter
            np.testing.assert_allclose(ours.log_likelihood, log_likelihood, rtol=1e-12)
            assert_same_mixture(ours.mixture, theirs, rtol=1e-9, atol=1e-10)


@pytest.fixture(scope="module")
def slow_to_converge():
    """The data of scikit-learn's issue 10122: 300 and 100 samples of two clusters that overlap."""
    random = np.random.RandomState(1234)
    large = multivariate_normal([2, 4], [[5, 2], [2, 6]]).rvs(size=300, random_state=random)
    small = multivariate_normal([0, 0], [[4, 2], [2, 3]]).rvs(size=100, random_state=random)
    return np.concatenate([large, small])


# Where scikit-learn's default tol of 1e-3 stopped, as the issue prints it.
STOPPED_EARLY = Mixture(
    weights=np.array([0.40842607, 0.59157393]),
    means=np.array([[0.36914419, 0.69188067], [2.13114152, 4.32671517]]),
    covariances=np.array(
        [
            [[3.95984165, 2.40375214], [2.40375214, 4.83616171]],
            [[4.26702227, 1.04679082], [1.04679082, 4.79127014]],
        ]
    ),
)


def scikit_learn_optimum(x):
    """Where scikit-learn goes from there with a tolerance of next to nothing."""
    model = GaussianMixture(
        2,
        tol=1e-13,
        max_iter=5000,
        reg_covar=0,
        weights_init=STOPPED_EARLY.weights,
        means_init=STOPPED_EARLY.means,
        precisions_init=np.linalg.inv(STOPPED_EARLY.covariances),
        init_params="random_from_data",
        random_state=0,
    ).fit(x)
    assert model.converged_
    return model, model.score(x) * len(x)


def test_slow_clusters_go_on_from_where_scikit_learn_stops(slow_to_converge):
    model, optimum = scikit_learn_optimum(slow_to_converge)
    stopped_early = jaxgmm.log_prob(STOPPED_EARLY, slow_to_converge).sum()
    default = jaxgmm.fit(slow_to_converge, 2, init=STOPPED_EARLY)
    assert default.status == Status.CONVERGED
    assert default.n_iter > 1
    assert default.log_likelihood > stopped_early + 0.5

    tight = jaxgmm.fit(slow_to_converge, 2, init=STOPPED_EARLY, tol=1e-13, max_iter=5000, reg_covar=0)
    assert tight.status == Status.CONVERGED
    np.testing.assert_allclose(tight.log_likelihood, optimum, rtol=1e-10)
    # The likelihood is so flat here that 1e-13 nats per sample still leave 1e-6 of the weights open.
    np.testing.assert_allclose(tight.mixture.weights, model.weights_, atol=1e-5)


@pytest.mark.slow
def test_slow_clusters_reach_a_quarter_and_three_quarters_from_nearly_any_key_once_tol_asks_for_it(slow_to_converge):
    model, optimum = scikit_learn_optimum(slow_to_converge)
    np.testing.assert_allclose(np.sort(model.weights_), [0.25, 0.75], atol=0.02)
    # The default tol leaves some keys at weights of 0.32 or 0.37, within 1e-3 nats per sample of the optimum.
    default, tight = ([jaxgmm.fit(slow_to_converge, 2, key=key, tol=tol) for key in range(10)] for tol in (1e-5, 1e-8))
    assert all(fit.status == Status.CONVERGED for fit in [*default, *tight])
    # Of ten starts three lead there, so one key of forty, about, finds a lower optimum; another finds a higher one.
    assert sum(optimum - fit.log_likelihood < 1e-3 * len(slow_to_converge) for fit in default) >= 9
    assert sum(optimum - fit.log_likelihood < 1e-3 for fit in tight) >= 9
    same = [np.sort(fit.mixture.weights) for fit in tight if abs(optimum - fit.log_likelihood) < 1e-3]
    assert len(same) >= 8
    np.testing.assert_allclose(same, np.tile(np.sort(model.weights_), (len(same), 1)), atol=2e-3)


# The NumPy twin


@pytest.mark.parametrize("family", FULL_DIAG_AND_OTHERS)
def test_weighted_data_sets_follow_the_numpy_twin(family):
    rng = np.random.default_rng(1)
    n_sets, n_samples, n_features, n_components, n_iter, reg_covar = 4, 90, 3, 3, 12, 1e-3
    # Features of very different size and place: the ridge must follow each feature's own variance.
    x = np.stack([unit_variance_clusters(rng, n_samples, n_features) for _ in range(n_sets)])
    x = x * [1.0, 30.0, 0.02] + [5.0, -100.0, 0.1]
    sample_weight = rng.gamma(1.0, size=(n_sets, n_samples)) * (rng.random((n_sets, n_samples)) > 0.1)
    starts = [reference.random_start(rng, data_set, family, n_components) for data_set in x]
    stacked = reference.TwinMixture(*(np.stack(leaves) for leaves in zip(*starts, strict=True)))
    ours = jaxgmm.fit(
        x,
        n_components,
        covariance_type=family,
        init=in_form_of(family, stacked),
        sample_weight=sample_weight,
        tol=0,
        max_iter=n_iter,
        reg_covar=reg_covar,
        history=True,
    )
    for b in range(n_sets):
        ridge = reference.absolute_ridge(x[b], reg_covar, family, sample_weight[b])
        twin = reference.em(x[b], starts[b], family, n_iter, sample_weight=sample_weight[b], ridge=ridge)
        np.testing.assert_allclose(ours.history[b], twin.trace, rtol=1e-12)
        np.testing.assert_allclose(ours.log_likelihood[b], twin.log_likelihood, rtol=1e-12)
        # Compared in units of each feature, so that small features count as much as large ones.
        size = x[b].std(axis=0)
        mixture = row(ours.mixture, b)
        np.testing.assert_allclose(mixture.weights, twin.mixture.weights, atol=1e-10)
        np.testing.assert_allclose(mixture.means / size, twin.mixture.means / size, rtol=1e-10, atol=1e-10)
        units = np.outer(size, size)
        np.testing.assert_allclose(matrices(mixture) / units, twin.mixture.covariances / units, rtol=1e-10, atol=1e-10)
