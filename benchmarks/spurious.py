"""Which components are spurious? Two simulations.

    python -m benchmarks.spurious

How narrow, and how small, are components that are there, and spurious ones? Data sets are drawn from mixtures whose
narrowest component is known. From many starts of the true number of components and of two more, every run's components
are sorted into those that stand for a true component and those that do not. Widths are relative to the covariance
within all components together.

How many samples does a component need? Data sets of three clusters, one of them small, are drawn from each family in
few and in many dimensions. K is chosen by BIC under several rules, and by scikit-learn.
"""

import json
import warnings
from collections.abc import Callable

import jax
import numpy as np
from sklearn.mixture import GaussianMixture

import jaxgmm
from benchmarks.environment import RESULTS, environment, write
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.spurious import NARROWEST

N_DATA_SETS, N_STARTS = 200, 10
FRACTIONS = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)

# Of the second simulation.
N_SMALL, N_SAMPLES, LARGEST_K = 25, 140, 5
SMALL = (4, 8, 20)
# Samples that a component needs, by the number of features.
RULES = {"the family's": None, "1": lambda _: 1, "D + 1": lambda n_features: n_features + 1}


def main() -> None:
    small = [found for n_features in (2, 8, 30) for family in FAMILIES for found in with_small(family, n_features)]
    rows = []
    for n_samples, n_features, k in ((100, 1, 2), (200, 2, 3), (300, 4, 3)):
        for narrow in (1.0, 0.1, 0.03, 0.005):
            x, truth = drawn(np.random.default_rng([n_samples, n_features, k]), n_samples, n_features, k, narrow)
            for extra in (0, 2):
                rows.append({"shape": [n_samples, n_features, k], "narrow": narrow, "extra": extra})
                rows[-1] |= judged(x, truth, k + extra)
                print(json.dumps(rows[-1]), flush=True)
    write(RESULTS / "spurious.json", {"environment": environment(), "small": small, "rows": rows})


def drawn(
    rng: np.random.Generator, n_samples: int, n_features: int, k: int, narrow: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stacks of data sets, one component of each `narrow` times as wide as the others, and the components' labels."""
    centres = 4 * rng.normal(size=(N_DATA_SETS, k, n_features))
    labels = np.argsort(rng.random((N_DATA_SETS, n_samples)), axis=1) % k
    widths = np.where(labels == 0, narrow, 1.0)[..., None]
    noise = rng.normal(size=(N_DATA_SETS, n_samples, n_features))
    return np.take_along_axis(centres, labels[..., None], axis=1) + widths * noise, labels


def judged(x: np.ndarray, labels: np.ndarray, k: int) -> dict:
    """Shares of true and of false components that are narrower than each fraction, or small; sizes in samples."""
    smallest, size, genuine = [], [], []
    for key in range(N_STARTS):
        result = jaxgmm.fit(x, k, n_init=1, init="random_from_data", precision="float64", key=key)
        parts = jaxgmm.responsibilities(result.mixture, x)
        for b in np.flatnonzero(result.status <= jaxgmm.Status.MAX_ITER):
            within = np.tensordot(result.mixture.weights[b], result.mixture.covariances[b], 1)
            factor = np.linalg.inv(np.linalg.cholesky(within))
            values = np.linalg.eigvalsh(factor @ result.mixture.covariances[b] @ factor.T)[:, 0]
            smallest += np.sqrt(np.maximum(values, 0)).tolist()
            size += parts[b].sum(axis=0).tolist()
            # A component is genuine where it holds most of a true one, and little else.
            shared = np.array([[parts[b][labels[b] == c, j].sum() for c in range(labels.max() + 1)] for j in range(k)])
            own = shared.max(axis=1)
            of_true = np.bincount(labels[b])[shared.argmax(axis=1)]
            genuine += ((own > 0.8 * of_true) & (own > 0.8 * shared.sum(axis=1))).tolist()
    smallest, size, genuine = np.array(smallest), np.array(size), np.array(genuine)
    few = size < x.shape[2] + 1
    narrow = smallest < NARROWEST
    tiny = ~genuine & (size < 0.1 * x.shape[1])
    return {
        "n_genuine": int(genuine.sum()),
        "n_small_and_false": int(tiny.sum()),
        "genuine_few": _share(few[genuine]),
        "genuine_narrower": {str(f): _share(smallest[genuine] < f) for f in FRACTIONS},
        "largest_false_and_narrow": _extreme(max, size[~genuine & narrow]),
        "smallest_genuine_and_narrow": _extreme(min, size[genuine & narrow]),
        "small_and_false_few": _share(few[tiny]),
        "small_and_false_narrower": {str(f): _share(smallest[tiny] < f) for f in FRACTIONS},
        "small_and_false_either": {str(f): _share(few[tiny] | (smallest[tiny] < f)) for f in FRACTIONS},
    }


def with_small(family: str, n_features: int) -> list[dict]:
    """Shares of data sets for which three components are chosen, by the size of the smallest, under every rule."""
    x = np.concatenate([with_cluster_of(size, family, n_features) for size in SMALL])
    chosen = {"scikit-learn": by_scikit_learn(x, family)}
    own = FAMILIES[family]
    try:
        for name, rule in RULES.items():
            FAMILIES[family] = own if rule is None else own._replace(least_samples=rule)
            # The rule is part of compiled programs.
            jax.clear_caches()
            chosen[name] = jaxgmm.sweep(x, range(1, LARGEST_K + 1), covariance_type=family).chosen["n_components"]
    finally:
        FAMILIES[family] = own
    found = []
    for i, size in enumerate(SMALL):
        right = {name: _share(k[i * N_SMALL : (i + 1) * N_SMALL] == 3) for name, k in chosen.items()}
        found.append({"family": family, "n_features": n_features, "smallest": size, "right": right})
        print(json.dumps(found[-1]), flush=True)
    return found


def with_cluster_of(size: int, family: str, n_features: int) -> np.ndarray:
    """Data sets of two large clusters and a small one, whose covariances are of a family."""
    rng = np.random.default_rng([size, n_features, list(FAMILIES).index(family)])
    labels = np.repeat([0, 1, 2], [(N_SAMPLES - size + 1) // 2, (N_SAMPLES - size) // 2, size])
    centres = 3 * rng.normal(size=(N_SMALL, 3, n_features))
    scales = np.exp(0.3 * rng.normal(size=(N_SMALL, 3, n_features)))
    turns = np.linalg.qr(rng.normal(size=(N_SMALL, 3, n_features, n_features)))[0]
    if family == "spherical":
        scales = scales[..., :1] * np.ones(n_features)
    if family == "tied":
        scales, turns = scales[:, :1] * np.ones((3, 1)), turns[:, :1] * np.ones((3, 1, 1))
    noise = scales[:, labels] * rng.normal(size=(N_SMALL, N_SAMPLES, n_features))
    if family in ("full", "tied"):
        noise = np.einsum("bnij,bnj->bni", turns[:, labels], noise)
    return centres[:, labels] + noise


def by_scikit_learn(x: np.ndarray, family: str) -> np.ndarray:
    """K of the lowest BIC."""
    chosen = []
    for samples in x:
        bic = []
        for k in range(1, LARGEST_K + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = GaussianMixture(k, covariance_type=family, n_init=3, random_state=0)
                try:
                    bic.append(model.fit(samples).bic(samples))
                except ValueError:
                    bic.append(np.inf)
        chosen.append(1 + int(np.argmin(bic)))
    return np.array(chosen)


def _extreme(which: Callable[[np.ndarray], float], sizes: np.ndarray) -> float | None:
    return round(float(which(sizes)), 1) if len(sizes) else None


def _share(flags: np.ndarray) -> float | None:
    return round(float(np.mean(flags)), 4) if len(flags) else None


if __name__ == "__main__":
    main()
