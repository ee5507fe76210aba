"""Every picture that jaxgmm draws, and what to look for in it.

    python examples/pictures.py --out pictures

`jaxgmm.plot` has one function for each question that one asks of a fit: where its components lie (`mixture`, `pairs`,
`histogram`), how it came about (`stages`), why it has so many components (`criterion`), whether it describes the data
(`diagnosis`), and, of thousands of fits, which to look at (`overview`). All of them draw into `ax=` if it is given, and
return the axes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_iris

import jaxgmm
from jaxgmm import plot

DATA = Path(__file__).parent / "data"


def three_clusters() -> tuple[np.ndarray, jaxgmm.Mixture]:
    """The 300 points of `three_clusters.py`, and the published start."""
    data = np.load(DATA / "three_clusters.npz")
    return data["x"], jaxgmm.Mixture(np.full(3, 1 / 3), data["means"], np.stack([np.eye(2)] * 3))


def correlated_clusters() -> np.ndarray:
    """The 300 points of `correlated_clusters.py`."""
    return np.load(DATA / "correlated_clusters.npz")["x"]


def many_data_sets() -> list[np.ndarray]:
    """Four hundred data sets of two clusters and of many sizes; some of them are spoilt, and some have three."""
    rng = np.random.default_rng(0)
    sets = []
    for b in range(400):
        n = int(rng.integers(30, 400))
        centres = rng.normal(scale=4, size=(3 if b % 40 == 0 else 2, 2))
        sets.append(centres[rng.integers(len(centres), size=n)] + rng.normal(size=(n, 2)))
    for b in (20, 180, 310):
        sets[b][3, 0] = np.nan
    sets[50], sets[250] = sets[50][:1], np.repeat(sets[250][:1], 40, axis=0)
    return sets


def draw_mixture() -> None:
    """Each ellipse is one or two standard deviations from a mean."""
    x = correlated_clusters()
    plot.mixture(jaxgmm.fit(x, 3).mixture, x)


def draw_contours() -> None:
    """The density as a whole, whichever components it is made of."""
    x = correlated_clusters()
    plot.mixture(jaxgmm.fit(x, 3).mixture, x, contours=True)


def draw_histogram() -> None:
    """Two components overlap, and only their sum can be seen in the data."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 500), rng.normal(3, 0.6, 300), rng.normal(8, 1.2, 200)])[:, None]
    plot.histogram(jaxgmm.fit(x, 3).mixture, x)


def draw_stages() -> None:
    """From a start that is far off: EM has found the clusters after a few iterations."""
    x, start = three_clusters()
    plot.stages(jaxgmm.fit(x, 3, init=start, history=(0, 1)), x, (0, 1))


def draw_criterion() -> None:
    """Fisher's irises: BIC prefers two components, of three species."""
    sweep = jaxgmm.sweep(load_iris().data, range(1, 7), covariance_type=("full", "tied", "diag", "spherical"))
    plot.criterion(sweep)


def draw_pairs() -> None:
    """Two of the three species overlap in every pair of features."""
    iris = load_iris()
    names = [name.removesuffix(" (cm)") + ", cm" for name in iris.feature_names]
    plot.pairs(jaxgmm.fit(iris.data, 3).mixture, iris.data, names=names)


def draw_overview(by: str) -> Callable[[], Any]:
    """Two components for all: some data sets had no answer, and for some it is the wrong one."""

    def draw() -> None:
        x = many_data_sets()
        plot.overview(jaxgmm.fit(x, 2, max_iter=40), x, by=by)

    return draw


def draw_diagnosis(n_components: int) -> Callable[[], Any]:
    """Three species, described by as many components, and by one."""

    def draw() -> None:
        iris = load_iris()
        names = [name.removesuffix(" (cm)") for name in iris.feature_names]
        fitted = jaxgmm.fit(iris.data, n_components).mixture
        plot.diagnosis(jaxgmm.diagnose(fitted, iris.data), names=names)

    return draw


PICTURES = {
    "mixture": draw_mixture,
    "contours": draw_contours,
    "histogram": draw_histogram,
    "stages": draw_stages,
    "criterion": draw_criterion,
    "pairs": draw_pairs,
    "overview_status": draw_overview("status"),
    "overview_size": draw_overview("size"),
    "overview_misfit": draw_overview("misfit"),
    "diagnosis": draw_diagnosis(3),
    "diagnosis_misfit": draw_diagnosis(1),
}


def main(out: Path, names: list[str] | None = None) -> None:
    """Draws all pictures, or those named, into a directory."""
    mpl.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name]()
        plt.savefig(out / f"{name}.png", dpi=120)
        plt.close()
        print(f"drew {out / name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="directory for the pictures")
    parser.add_argument("names", nargs="*", help="only these")
    arguments = parser.parse_args()
    main(arguments.out, arguments.names)
