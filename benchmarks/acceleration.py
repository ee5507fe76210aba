"""How many E-steps and how much time the methods need, and where they end.

    python -m benchmarks.acceleration

Data sets are drawn whose clusters overlap, or are fewer than the components fitted, in 1 to 16 features. First, single
runs in float64: E-steps until the log-likelihood is within 1e-6 nats per sample of the run's own limit, which plain EM
finds by going on from where the run ended. Then whole calls of `jaxgmm.fit` with ten starts, as users make them: their
seconds, and how far below the best optimum found by any method they end.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import jaxgmm
from benchmarks.environment import RESULTS, environment, write
from jaxgmm import Status
from jaxgmm.settings import FAMILIES

# Nats per sample.
NEAR, NOTICEABLE = 1e-6, 1e-4

# Where plain EM has found the limit of a run: no more is gained, or so many iterations were made.
LIMIT = {"method": "em", "precision": "float64", "tol": 1e-13, "max_iter": 20_000}

# Options of single runs; EM's tolerance is so small that nearly all have come near their limit.
RUNS: dict[str, dict[str, Any]] = {
    "em": {"method": "em", "tol": 1e-10, "max_iter": 10_000},
    "quasi-newton": {"method": "quasi-newton"},
    "squarem": {"method": "squarem", "max_iter": 10_000},
}

# Whole calls: EM as it was by default, EM with ever smaller tolerances, and the default.
CALLS: dict[str, dict[str, Any]] = {
    "em, tol 1e-5": {"method": "em", "tol": 1e-5},
    "em, tol 1e-9": {"method": "em", "tol": 1e-9, "max_iter": 10_000},
    "em, tol 1e-10": {"method": "em", "tol": 1e-10, "max_iter": 20_000},
    "em, tol 1e-11": {"method": "em", "tol": 1e-11, "max_iter": 20_000},
    "default": {},
}
REPEATS = 2

COLOURS = {"em": "#888888", "quasi-newton": "#c2410c", "squarem": "#1d4ed8"}

# Distances to the limit that the picture shows, after these E-steps.
CURVE = np.unique(np.geomspace(1, 3000, 60).astype(int))


class Sets(NamedTuple):
    """Data sets of one kind.

    Attributes:
        name: what they are called in results.
        n_data_sets: B.
        n_samples: N.
        n_features: D.
        n_clusters: clusters that they are drawn from.
        distance: standard deviation of the centres of clusters, in each feature.
        is_round: whether clusters are spherical, of standard deviation 1; otherwise they have covariances of their own.
        n_components: K that is fitted.
        family: the family that is fitted.
    """

    name: str
    n_data_sets: int
    n_samples: int
    n_features: int
    n_clusters: int
    distance: float
    is_round: bool
    n_components: int
    family: str


SETS = (
    Sets("2-D", 80, 300, 2, 3, 3.0, True, 3, "full"),
    Sets("4-D, overlapping", 60, 300, 4, 6, 1.0, False, 6, "full"),
    Sets("1-D, overlapping", 60, 400, 1, 4, 2.0, True, 4, "full"),
    Sets("8-D, overlapping", 16, 1000, 8, 8, 1.0, False, 8, "full"),
    Sets("16-D, overlapping", 16, 1000, 16, 3, 0.5, False, 3, "full"),
    *(Sets(f"K too large, {family}", 50, 300, 2, 2, 2.0, False, 5, family) for family in FAMILIES),
)
N_QUICK = 6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acceleration")
    parser.add_argument("--quick", action="store_true", help="few data sets of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS / "acceleration.json")
    parser.add_argument("--picture", type=Path, help="where to draw the distance to the limit against E-steps")
    options = parser.parse_args()
    kinds = [sets._replace(n_data_sets=N_QUICK) for sets in SETS] if options.quick else SETS
    results = {"environment": environment(), **measured(kinds, print)}
    write(options.out, results)
    if options.picture:
        draw(results, options.picture)
    print("\n".join(table(results)))


def measured(kinds: Sequence[Sets], tell: Callable[[str], None]) -> dict:
    """All kinds of data sets: single runs from two sorts of starts, and whole calls."""
    runs, calls = [], []
    for sets in kinds:
        x = drawn(sets)
        for init in ("k-means++", "random_from_data"):
            runs.append({"sets": sets.name, "init": init, **{name: _run(x, sets, init, name) for name in RUNS}})
        calls.append({"sets": sets.name, **_calls(x, sets)})
        tell(f"{sets.name}: done")
    fewer = {
        name: _geometric_mean([row["em"]["mean_steps"] / row[name]["mean_steps"] for row in runs])
        for name in RUNS
        if name != "em"
    }
    at_one_tol = [row["default"]["seconds"] / row["em, tol 1e-9"]["seconds"] for row in calls]
    as_honest = [row["default"]["seconds"] / row[as_honest_as_default(row)]["seconds"] for row in calls]
    return {
        "runs": runs,
        "calls": calls,
        "times_fewer_steps": fewer,
        "share_of_time_at_one_tol": _geometric_mean(at_one_tol),
        "share_of_time_at_equal_honesty": _geometric_mean(as_honest),
    }


def as_honest_as_default(row: dict) -> str:
    """The fastest EM after which no more fits are far from their limits than by default, or else the tightest."""
    by_em = [name for name in CALLS if name != "default"]
    enough = [name for name in by_em if row[name]["share_left"] <= row["default"]["share_left"]]
    return min(enough, key=lambda name: row[name]["seconds"]) if enough else by_em[-1]


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def drawn(sets: Sets) -> np.ndarray:
    """Data sets `(B, N, D)`."""
    rng = np.random.default_rng([sets.n_samples, sets.n_features, sets.n_components])
    k, d = sets.n_clusters, sets.n_features
    x = np.empty((sets.n_data_sets, sets.n_samples, d))
    for own in x:
        centres = sets.distance * rng.normal(size=(k, d))
        factors = np.broadcast_to(np.eye(d), (k, d, d))
        if not sets.is_round:
            mixing = np.eye(d) + 0.5 * rng.normal(size=(k, d, d))
            factors = np.linalg.cholesky(mixing @ np.swapaxes(mixing, 1, 2))
        labels = rng.choice(k, sets.n_samples)
        own[:] = centres[labels] + np.einsum("nij,nj->ni", factors[labels], rng.normal(size=(sets.n_samples, d)))
    return x


def _run(x: np.ndarray, sets: Sets, init: str, name: str) -> dict:
    """One run on each data set."""
    asked = {"covariance_type": sets.family, "n_init": 1, "precision": "float64"}
    fit = jaxgmm.fit(x, sets.n_components, init=init, history=True, **asked, **RUNS[name])
    sound, limit = _limits(x, sets, fit)
    history = fit.history[sound] / sets.n_samples
    distances = np.maximum(limit[sound, None] - history, 0)
    is_near = distances < NEAR
    steps = np.where(np.any(is_near, axis=1), 1 + np.argmax(is_near, axis=1), np.nan)
    left = (limit - fit.log_likelihood / sets.n_samples)[sound & (fit.status == Status.CONVERGED)]
    # A run stays where it ended.
    last = fit.n_iter[sound, None]
    at = np.minimum(CURVE[None, :] - 1, last)
    return {
        "mean_steps": float(np.nanmean(steps)),
        "longest_steps": float(np.nanquantile(steps, 0.99)),
        "share_not_near": float(np.mean(np.isnan(steps))),
        "mean_steps_at_stop": float(np.mean(fit.n_iter[sound] + 1)),
        "share_unsound": float(np.mean(~sound)),
        "share_noticeable_left": float(np.mean(left > NOTICEABLE)),
        "left": {f"{q:g}": float(np.quantile(left, q)) for q in (0.5, 0.9, 0.99, 1.0)},
        "median_distance": np.median(np.take_along_axis(distances, at, axis=1), axis=0).tolist(),
    }


def _calls(x: np.ndarray, sets: Sets) -> dict:
    """Whole calls, in turn."""
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    fits: dict[str, jaxgmm.FitResult] = {}
    for _ in range(1 + REPEATS):
        for name, options in CALLS.items():
            began = time.perf_counter()
            fits[name] = jaxgmm.fit(x, sets.n_components, covariance_type=sets.family, **options)
            times[name].append(time.perf_counter() - began)
    ends = {name: _limits(x, sets, fit)[1] for name, fit in fits.items()}
    best = np.nanmax(np.array(list(ends.values())), axis=0)
    rows = {}
    for name, fit in fits.items():
        left = ends[name] - fit.log_likelihood / sets.n_samples
        rows[name] = {
            "seconds": median(times[name][1:]),
            "share_converged": float(np.mean(fit.status == Status.CONVERGED)),
            "share_spurious": float(np.mean(fit.spurious > 0)),
            "share_noticeable_left": float(np.mean(left > NOTICEABLE)),
            "share_left": float(np.mean(left > NEAR)),
            "share_below_best": float(np.mean(ends[name] < best - NOTICEABLE)),
        }
    return rows


def _limits(x: np.ndarray, sets: Sets, fit: "jaxgmm.FitResult") -> tuple[np.ndarray, np.ndarray]:
    """Which fits `(B,)` are sound, and the mean log-likelihoods to which plain EM comes from there; NaN for others."""
    sound = (fit.status <= Status.MAX_ITER) & (fit.spurious == 0)
    if not np.any(sound):
        return sound, np.full(len(x), np.nan)
    # All of them, as programs are compiled for the number; those that are not sound begin where another does.
    begin = np.where(sound, np.arange(len(x)), np.flatnonzero(sound)[0])
    asked = {"covariance_type": sets.family, "init": fit.mixture.of(begin)}
    end = jaxgmm.fit(x[begin], sets.n_components, **asked, **LIMIT).log_likelihood
    return sound, np.where(sound, np.maximum(end, fit.log_likelihood), np.nan) / sets.n_samples


def table(results: dict) -> list[str]:
    """The results as text."""
    lines = [f"E-steps to within {NEAR:g} nats per sample of the run's own limit: mean (99%), single runs", ""]
    head = ["data sets", "starts", *RUNS, *(f"unsound, {name}" for name in RUNS)]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in results["runs"]:
        own = [row[name] for name in RUNS]
        cells = [f"{run['mean_steps']:.0f} ({run['longest_steps']:.0f})" for run in own]
        unsound = [f"{run['share_unsound']:.1%}" for run in own]
        lines.append("| " + " | ".join([row["sets"], row["init"], *cells, *unsound]) + " |")
    fewer = ", ".join(f"{name} {ratio:.1f}" for name, ratio in results["times_fewer_steps"].items())
    lines += ["", f"Times fewer than EM, in the geometric mean: {fewer}.", ""]
    lines += [
        "Whole calls with ten starts: seconds, and shares of fits with more than 1e-6 and 1e-4 nats per sample left to"
    ]
    lines += ["gain, with a spurious component, and whose optimum is 1e-4 below the best that any method found", ""]
    lines += [
        "| data sets | method | seconds | > 1e-6 left | > 1e-4 left | spurious | below the best |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["calls"]:
        for name in CALLS:
            own = row[name]
            keys = ("share_left", "share_noticeable_left", "share_spurious", "share_below_best")
            shares = [f"{own[key]:.1%}" for key in keys]
            lines.append("| " + " | ".join([row["sets"], name, f"{own['seconds']:.3f}", *shares]) + " |")
    at_one_tol, as_honest = (results[f"share_of_time_at_{how}"] for how in ("one_tol", "equal_honesty"))
    lines += ["", f"The default takes {at_one_tol:.2f} of the time of EM at tol 1e-9, in the geometric mean, and"]
    return [*lines, f"{as_honest:.2f} of the time of the fastest EM after which no more fits have 1e-6 left."]


def draw(results: dict, path: Path) -> None:
    """Draws the median distance to the limit against E-steps, for every kind of data sets."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    rows = [row for row in results["runs"] if row["init"] == "k-means++"]
    figure, axes = plt.subplots(3, 3, figsize=(9, 7.5), sharex=True, sharey=True, layout="constrained")
    for ax, row in zip(axes.flat, rows, strict=True):
        for name, colour in COLOURS.items():
            distance = np.maximum(row[name]["median_distance"], 1e-12)
            ax.loglog(CURVE, distance, color=colour, label="EM" if name == "em" else name)
        ax.set_title(row["sets"], fontsize=9)
        ax.axhline(NEAR, color="#bbbbbb", linewidth=0.8, linestyle=":")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylim(1e-10, 3)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.supxlabel("E-steps")
    figure.supylabel("median distance to the run's limit, nats per sample")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
