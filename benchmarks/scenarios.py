"""Scenarios: what is fitted, from which start, and when it stops. Data come from fixed seeds; nothing here needs JAX.

Samples are float32, so that every system, whatever its precision, is given the same numbers. Data sets are drawn in
whole blocks, each from a seed of its own: the first ones are the same, however many there are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Numbers in a block of drawn data, and data sets in a block of drawn starts.
DRAWN = 2**20
BLOCK = 4096
REG_COVAR = 1e-6


class Model(NamedTuple):
    """One number of components and one covariance family."""

    n_components: int
    covariance_type: str


class Scenario(NamedTuple):
    """A piece of work that every system is asked to do.

    Attributes:
        name: what it is called in results.
        stands_for: whose work it is.
        n_data_sets: B.
        n_samples: N, or the least and the most where data sets differ.
        n_features: D.
        models: what is fitted to every data set, one after another.
        draw: from a random generator, B, N and D to samples `(B, N, D)`.
        quick: fields that differ in the quick suite.
        n_init: R, starts for each data set.
        start: `"given"` (random samples as means, all systems from the same), or the initialiser's name.
        tol: of plain EM: stop when the mean log-likelihood per sample gains less; 0 makes `max_iter` iterations.
        max_iter: iterations at most.
        seed: of the starts that systems draw themselves.
    """

    name: str
    stands_for: str
    n_data_sets: int
    n_samples: int | tuple[int, int]
    n_features: int
    models: tuple[Model, ...]
    draw: Callable[[np.random.Generator, int, int, int], np.ndarray]
    quick: dict[str, Any]
    n_init: int = 1
    start: str = "k-means++"
    tol: float = 1e-5
    max_iter: int = 1000
    seed: int = 0

    def shrunk(self) -> "Scenario":
        """The same work in the size of the quick suite."""
        return self._replace(**self.quick)


class Start(NamedTuple):
    """Parameters to begin from: `(B, R, K)`, `(B, R, K, D)` and `(B, R, K, D, D)`, float64."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class Problem(NamedTuple):
    """A scenario with its data: `(B, N, D)`, or a list of `(N_i, D)`; float32."""

    scenario: Scenario
    data: np.ndarray | list[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        """Number of samples of each data set."""
        return np.array([len(x) for x in self.data])

    def first(self, n_data_sets: int) -> "Problem":
        """The same with fewer data sets."""
        return self._replace(data=self.data[:n_data_sets])


def problem(scenario: Scenario) -> Problem:
    """Draws the data of a scenario."""
    ragged = isinstance(scenario.n_samples, tuple)
    most = scenario.n_samples[1] if ragged else scenario.n_samples
    size, blocks = max(1, DRAWN // (most * scenario.n_features)), []
    for first in range(0, scenario.n_data_sets, size):
        rng = np.random.default_rng([len(blocks), scenario.n_features, most])
        drawn = scenario.draw(rng, size, most, scenario.n_features).astype(np.float32)
        blocks.append(drawn[: scenario.n_data_sets - first])
    data = np.concatenate(blocks)
    if ragged:
        lengths = np.random.default_rng(most).integers(*scenario.n_samples, endpoint=True, size=len(data))
        return Problem(scenario, [x[:n] for x, n in zip(data, lengths, strict=True)])
    return Problem(scenario, data)


def padded(data: np.ndarray | list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Data sets of one length `(B, N, D)`, filled up with zeros, and which samples are there `(B, N)`."""
    if isinstance(data, np.ndarray):
        return data, np.ones(data.shape[:2], bool)
    longest = max(map(len, data))
    x = np.zeros((len(data), longest, data[0].shape[1]), data[0].dtype)
    present = np.arange(longest) < np.array([len(item) for item in data])[:, None]
    for row, item in zip(x, data, strict=True):
        row[: len(item)] = item
    return x, present


def starts(problem: Problem, n_components: int) -> Start:
    """Distinct random samples as means, equal weights, and the covariance of all samples in every component."""
    n_init, blocks = problem.scenario.n_init, []
    for first in range(0, len(problem.data), BLOCK):
        rng = np.random.default_rng([first, n_components, n_init])
        x, present = padded(problem.data[first : first + BLOCK])
        order = rng.random((len(x), n_init, x.shape[1]))
        order = np.where(present[:, None], order, 2.0)
        chosen = np.argpartition(order, n_components - 1, axis=-1)[..., :n_components]
        means = np.take_along_axis(x[:, None], chosen[..., None], axis=2).astype(np.float64)
        count = present.sum(axis=1)[:, None, None]
        centred = (x - x.sum(axis=1, keepdims=True, dtype=np.float64) / count) * present[..., None]
        covariance = centred.swapaxes(1, 2) @ centred / count
        shape = (*means.shape, means.shape[-1])
        weights = np.full(means.shape[:3], 1 / n_components)
        blocks.append((weights, means, np.broadcast_to(covariance[:, None, None], shape)))
    return Start(*map(np.concatenate, zip(*blocks, strict=True)))


def clusters(n_clusters: int, distance: float = 3.0) -> Callable[[np.random.Generator, int, int, int], np.ndarray]:
    """Draws Gaussian clusters, each with its own weight, place and correlated spread."""

    def draw(rng: np.random.Generator, n_data_sets: int, n_samples: int, n_features: int) -> np.ndarray:
        weights = rng.dirichlet(np.full(n_clusters, 4.0), size=n_data_sets)
        means = distance * rng.standard_normal((n_data_sets, n_clusters, n_features))
        wobble = rng.standard_normal((n_data_sets, n_clusters, n_features, n_features)) / np.sqrt(2 * n_features)
        factors = np.eye(n_features) * rng.uniform(0.4, 1.2, (n_data_sets, n_clusters, 1, 1)) + wobble
        labels = np.sum(rng.random((n_data_sets, n_samples))[..., None] > np.cumsum(weights, axis=1)[:, None], axis=2)
        noise = rng.standard_normal((n_data_sets, n_samples, n_features))
        x = np.empty_like(noise)
        for k in range(n_clusters):
            own = means[:, None, k] + noise @ factors[:, k].swapaxes(1, 2)
            np.copyto(x, own, where=(np.minimum(labels, n_clusters - 1) == k)[..., None])
        return x

    return draw


def background_and_signal(rng: np.random.Generator, n_data_sets: int, n_samples: int, n_features: int) -> np.ndarray:
    """Log counts of proteins on a cell: most are background, some are there."""
    one_per_cell = (n_data_sets, 1, n_features)
    background = rng.normal(0.5, 0.2, one_per_cell)
    signal = background + rng.uniform(1, 3, one_per_cell)
    present = rng.random((n_data_sets, n_samples, 1)) < rng.beta(2, 8, (n_data_sets, 1, 1))
    noise = rng.standard_normal((n_data_sets, n_samples, n_features))
    spread = np.where(present, rng.uniform(0.4, 1.0, one_per_cell), rng.uniform(0.2, 0.5, one_per_cell))
    return np.where(present, signal, background) + spread * noise


def dosages(rng: np.random.Generator, n_data_sets: int, n_samples: int, n_features: int) -> np.ndarray:
    """Allele ratios of a genetic marker in tetraploid plants: five doses, of which some may be absent."""
    frequency = rng.beta(1.5, 1.5, (n_data_sets, 1, 1))
    dose = rng.binomial(4, np.broadcast_to(frequency, (n_data_sets, n_samples, n_features)))
    bend = rng.uniform(0.8, 1.3, (n_data_sets, 1, 1))
    return (dose / 4) ** bend + rng.uniform(0.02, 0.05, (n_data_sets, 1, 1)) * rng.standard_normal(dose.shape)


def pixels(rng: np.random.Generator, n_data_sets: int, n_samples: int, n_features: int) -> np.ndarray:
    """Colours of an image tile: a few surfaces, each brighter and darker along one line, in 8 bits."""
    surfaces = 128 + 18 * clusters(3, distance=1.5)(rng, n_data_sets, n_samples, n_features)
    light = 14 * rng.standard_normal((n_data_sets, n_samples, 1))
    return np.clip(np.round(surfaces + light + rng.normal(0, 2, surfaces.shape)), 0, 255)


class Shape(NamedTuple):
    """N, D and K of the targets."""

    n_samples: int
    n_features: int
    n_components: int


ONE_D, TWO_D, EIGHT_D = Shape(100, 1, 2), Shape(300, 2, 3), Shape(2_000, 8, 8)


def _steps(name: str, n: int, shape: Shape, n_init: int = 1, n_quick: int | None = None) -> Scenario:
    """Exactly 50 iterations; several starts of one data set are each system's own random samples."""
    start = "given" if n_init == 1 else "random_from_data"
    text = "arithmetic alone: exactly 50 iterations" + (f" from {n_init} starts" if n_init > 1 else "")
    settings = {"n_init": n_init, "start": start, "tol": 0.0, "max_iter": 50}
    return Scenario(name, text, n, *_work_of(shape), {"n_data_sets": n_quick or n}, **settings)


def _converge(name: str, n: int, shape: Shape, n_quick: int) -> Scenario:
    return Scenario(name, "10 starts to convergence", n, *_work_of(shape), {"n_data_sets": n_quick}, n_init=10)


def _work_of(shape: Shape) -> tuple:
    """A scenario's fields from `n_samples` to `draw`: as many clusters as components, each with its own covariance."""
    k = shape.n_components
    return shape.n_samples, shape.n_features, (Model(k, "full"),), clusters(k)


_WORK = [
    Scenario(
        name="cells",
        stands_for="the background of every cell in CITE-seq data: one or two populations, of one width or two",
        n_data_sets=20_000,
        n_samples=100,
        n_features=1,
        models=tuple(Model(k, family) for family in ("full", "tied") for k in (1, 2)),
        draw=background_and_signal,
        quick={"n_data_sets": 1_000},
    ),
    Scenario(
        name="gene-pairs",
        stands_for="co-expression of pairs of genes, in one to five groups of samples",
        n_data_sets=10_000,
        n_samples=(200, 500),
        n_features=2,
        models=tuple(Model(k, "full") for k in range(1, 6)),
        draw=clusters(3, distance=1.5),
        quick={"n_data_sets": 200, "models": tuple(Model(k, "full") for k in (1, 2, 3))},
    ),
    Scenario(
        name="markers",
        stands_for="genotypes of every marker of tetraploid plants: five doses, all of one width",
        n_data_sets=20_000,
        n_samples=200,
        n_features=1,
        models=(Model(5, "tied"),),
        draw=dosages,
        quick={"n_data_sets": 1_000},
    ),
    Scenario(
        name="tiles",
        stands_for="the colours of every 16 x 16 tile of a picture",
        n_data_sets=4_000,
        n_samples=256,
        n_features=3,
        models=(Model(4, "full"),),
        draw=pixels,
        quick={"n_data_sets": 100},
        n_init=10,
    ),
    Scenario(
        name="cytometry",
        stands_for="cell populations in tubes of a flow cytometer",
        n_data_sets=64,
        n_samples=2_000,
        n_features=8,
        models=(Model(8, "full"),),
        draw=clusters(8, distance=2.0),
        quick={"n_data_sets": 2},
        n_init=10,
    ),
    Scenario(
        name="survey",
        stands_for="the density of galaxies in bins of a sky survey",
        n_data_sets=8,
        n_samples=50_000,
        n_features=15,
        models=(Model(20, "full"),),
        draw=clusters(20, distance=1.5),
        quick={"n_data_sets": 2, "n_samples": 2_000},
        max_iter=200,
    ),
    Scenario(
        name="one-large",
        stands_for="one large data set: exactly 10 iterations",
        n_data_sets=1,
        n_samples=1_000_000,
        n_features=16,
        models=(Model(32, "full"),),
        draw=clusters(32, distance=1.5),
        quick={"n_samples": 50_000},
        start="given",
        tol=0.0,
        max_iter=10,
    ),
    Scenario(
        name="million",
        stands_for="a small data set for each of a million customers or sensors",
        n_data_sets=1_000_000,
        n_samples=100,
        n_features=1,
        models=(Model(2, "full"),),
        draw=clusters(2),
        quick={"n_data_sets": 10_000},
    ),
]
TARGETS = [
    _steps("steps-2d", 1_000, TWO_D),
    _steps("steps-1d", 8_192, ONE_D),
    _steps("steps-8d", 64, EIGHT_D, n_quick=16),
    _steps("steps-2d-starts", 128, TWO_D, n_init=10),
    _steps("steps-8d-starts", 16, EIGHT_D, n_init=10, n_quick=4),
    _converge("converge-2d", 1_000, TWO_D, n_quick=200),
    _converge("converge-8d", 64, EIGHT_D, n_quick=4),
]
SCALING = [_steps(f"scaling-{n}", n, ONE_D) for n in (100, 1_000, 10_000, 100_000, 1_000_000)]
FOR_A_GPU = [
    _steps("steps-2d-many", 100_000, TWO_D),
    _steps("steps-8d-many", 8_192, EIGHT_D),
    Scenario(
        name="gene-pairs-million",
        stands_for="co-expression of all pairs of 1,400 genes, in one to five groups of samples",
        n_data_sets=1_000_000,
        n_samples=200,
        n_features=2,
        models=tuple(Model(k, "full") for k in range(1, 6)),
        draw=clusters(3, distance=1.5),
        quick={"n_data_sets": 1_000},
        n_init=5,
    ),
]
SCENARIOS = {scenario.name: scenario for scenario in [*TARGETS, *_WORK, *SCALING, *FOR_A_GPU]}
# Too much for a machine without a card.
ONLY_BY_NAME = {"gene-pairs-million"}
NOT_QUICK = {"scaling-1000000", *(scenario.name for scenario in FOR_A_GPU)}
