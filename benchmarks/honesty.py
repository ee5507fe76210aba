"""How far from their own limits are fits that are called CONVERGED?

    python -m benchmarks.honesty

Data sets are drawn from mixtures of all families, from clusters far apart to clusters in one place. Each is
fitted as `jaxgmm.fit` does by default, and EM then goes on from the answer in float64 until nothing is gained. What it
gains is what the fit had left, and what BIC is wrong by.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxgmm
from benchmarks.environment import CORES, RESULTS, environment, write
from jaxgmm import Status
from jaxgmm.em.covariance import FAMILIES

# Distances of centres, in standard deviations of a feature within a component; about √2 times as many in the mean.
SEPARATIONS = {"far apart": 6.0, "touching": 3.0, "overlapping": 1.2, "same centre": 0.0}

# The limit: where the mean log-likelihood per sample gains no more than this in one iteration, or after so many.
LIMIT_TOL, LIMIT_ITERATIONS = 1e-13, 20_000

# Of the nats per sample that are left.
THRESHOLDS = (1e-6, 1e-4, 1e-3, 1e-2)
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)

# What differences of BIC begin to count for (Raftery, 1995, "Bayesian model selection in social research"), in nats.
BIC_GAIN = 2.0


class Stack(NamedTuple):
    """Data sets of one shape, as many of each separation, fitted with the family and the K that they are drawn from."""

    n_features: int
    n_components: int
    n_samples: int
    family: str


STACKS = (
    Stack(1, 2, 304, "full"),
    Stack(2, 3, 304, "full"),
    Stack(3, 5, 800, "full"),
    Stack(6, 3, 1000, "full"),
    Stack(2, 3, 208, "tied"),
    Stack(5, 3, 400, "tied"),
    Stack(2, 6, 608, "tied"),
    Stack(1, 4, 400, "diag"),
    Stack(4, 4, 608, "diag"),
    Stack(8, 2, 304, "diag"),
    Stack(2, 2, 112, "spherical"),
    Stack(3, 6, 1000, "spherical"),
)
QUICK = tuple(stack for stack in STACKS if stack.n_samples < 305)

N_DATA_SETS, N_QUICK = 48, 12


class Judged(NamedTuple):
    """What became of the data sets of a stack, each field `(B,)`.

    Attributes:
        separation: its name.
        converged: whether the fit is called CONVERGED and has no spurious component.
        limited: whether EM that goes on from there comes to a limit that is sound too.
        finished: whether it was within a gain of `LIMIT_TOL` when it ended.
        left: nats per sample that it has gained.
        n_iter: iterations of the fit.
        below_one: whether the fit has a lower log-likelihood than one component; NaN where that was not asked.
    """

    separation: np.ndarray
    converged: np.ndarray
    limited: np.ndarray
    finished: np.ndarray
    left: np.ndarray
    n_iter: np.ndarray
    below_one: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.honesty")
    parser.add_argument("--quick", action="store_true", help="few data sets of a few shapes")
    parser.add_argument("--tol", type=float, help="of the fits that are judged; jaxgmm's own by default")
    parser.add_argument("--max-iter", type=int, help="likewise")
    parser.add_argument("--out", type=Path, default=RESULTS / "honesty.json")
    options = parser.parse_args()
    given = {"tol": options.tol, "max_iter": options.max_iter}
    given = {name: value for name, value in given.items() if value is not None}
    stacks, n_data_sets = (QUICK, N_QUICK) if options.quick else (STACKS, N_DATA_SETS)
    results = {"environment": environment(), **measured(stacks, n_data_sets, given)}
    write(options.out, results)
    print("\n".join(table(results)))


def measured(stacks: Sequence[Stack], n_data_sets: int, options: dict) -> dict:
    """Judges the fits of all stacks: a row for all of them, each family, each separation and each stack."""

    def told(stack: Stack) -> Judged:
        began = time.perf_counter()
        judged = judge(stack, n_data_sets, options)
        print(f"{_name(stack)}: {time.perf_counter() - began:.0f} s", flush=True)
        return judged

    # Most of the time is compilation, of which a core can do one.
    with ThreadPoolExecutor(CORES) as pool:
        judged = list(pool.map(told, stacks))
    everything = Judged(*map(np.concatenate, zip(*judged, strict=True)))
    n_samples, family = (
        np.repeat([getattr(stack, name) for stack in stacks], n_data_sets) for name in ("n_samples", "family")
    )

    def row(which: np.ndarray) -> dict:
        return _summary(Judged(*(leaf[which] for leaf in everything)), n_samples[which])

    rows = {"all": row(np.ones(len(family), bool))}
    rows |= {name: row(family == name) for name in dict.fromkeys(family.tolist())}
    rows |= {name: row(everything.separation == name) for name in dict.fromkeys(everything.separation.tolist())}
    number = np.repeat(np.arange(len(stacks)), n_data_sets)
    rows |= {_name(stack): row(number == s) for s, stack in enumerate(stacks)}
    return {"options": options, "n_data_sets": n_data_sets, "rows": rows}


def drawn(stack: Stack, n_data_sets: int) -> tuple[np.ndarray, np.ndarray]:
    """A stack of data sets `(B, N, D)`, and the names of their separations `(B,)`."""
    d, k, n, family = stack
    rng = np.random.default_rng([d, k, n, list(FAMILIES).index(family)])
    names = np.resize(list(SEPARATIONS), n_data_sets)
    x = np.empty((n_data_sets, n, d))
    for b, name in enumerate(names):
        labels = rng.choice(k, size=n, p=rng.dirichlet(np.full(k, 4.0)))
        centres = SEPARATIONS[name] * rng.normal(size=(k, d)) / np.sqrt(d)
        scales = np.exp(0.4 * rng.normal(size=(k, 1 if family == "spherical" else d)))
        mixing = rng.normal(size=(k, d, d)) / np.sqrt(2 * d) if family in ("full", "tied") else np.zeros((k, d, d))
        factors = scales[..., None] * (np.eye(d) + mixing)
        factors = np.broadcast_to(factors[:1], factors.shape) if family == "tied" else factors
        x[b] = centres[labels] + np.einsum("nij,nj->ni", factors[labels], rng.normal(size=(n, d)))
    return x, names


def judge(stack: Stack, n_data_sets: int, options: dict) -> Judged:
    """Fits a stack, and goes on from the fits to their limits."""
    x, separation = drawn(stack, n_data_sets)
    k, family = stack.n_components, stack.family
    fit = jaxgmm.fit(x, k, covariance_type=family, **options)
    converged = (fit.status == Status.CONVERGED) & (fit.spurious == 0)
    left, limited, finished = np.full(n_data_sets, np.nan), np.zeros(n_data_sets, bool), np.zeros(n_data_sets, bool)
    rows = np.flatnonzero(converged)
    if len(rows):
        # All of them, as programs are compiled for the number; those not asked for begin where another does.
        begin = np.where(converged, np.arange(n_data_sets), rows[0])
        start = fit.mixture.of(begin)
        limit = jaxgmm.fit(
            x[begin],
            k,
            covariance_type=family,
            init=start,
            precision="float64",
            method="em",
            tol=LIMIT_TOL,
            max_iter=LIMIT_ITERATIONS,
        )
        finished = converged & (limit.status == Status.CONVERGED)
        limited = converged & (limit.status <= Status.MAX_ITER) & (limit.spurious == 0)
        left = np.where(limited, (limit.log_likelihood - fit.log_likelihood) / stack.n_samples, np.nan)
    below_one = np.full(n_data_sets, np.nan)
    if family == "tied" and k == 3:
        one = jaxgmm.fit(x, 1, covariance_type=family)
        below_one = np.where(fit.log_likelihood < one.log_likelihood - 1e-9 * stack.n_samples, 1.0, 0.0)
    return Judged(separation, converged, limited, finished, left, fit.n_iter, below_one)


def _summary(judged: Judged, n_samples: np.ndarray) -> dict:
    """Of some data sets: how many there are of which, and of those with a limit what is left to it, and to its BIC."""
    left, asked = judged.left[judged.limited], np.isfinite(judged.below_one)
    bic = 2 * (judged.left * n_samples)[judged.limited]
    known = len(left) > 0
    return {
        "n_fits": len(judged.left),
        "n_converged": int(np.sum(judged.converged)),
        "n_limit_unsound": int(np.sum(judged.converged & ~judged.limited)),
        "n_limit_unfinished": int(np.sum(judged.limited & ~judged.finished)),
        "n_judged": len(left),
        "share_with_more_left": {f"{least:g}": float(np.mean(left > least)) if known else None for least in THRESHOLDS},
        "left": {f"{q:g}": float(np.quantile(left, q)) if known else None for q in QUANTILES},
        "share_bic_falls": float(np.mean(bic > BIC_GAIN)) if known else None,
        "median_n_iter": float(np.median(judged.n_iter)),
        "n_compared_with_one": int(np.sum(asked)),
        "n_below_one": int(np.sum(judged.below_one[asked])),
    }


def table(results: dict) -> list[str]:
    """The rows as text."""
    thresholds = [f"> {least:g}" for least in THRESHOLDS]
    quantiles = ["max" if q == 1 else f"{q:.0%}" for q in QUANTILES]
    heading = ["", "judged", *thresholds, *quantiles, "BIC - 2", "unsound", "unfinished"]
    lines = [heading]
    for name, row in results["rows"].items():
        shares = [_percent(share) for share in (*row["share_with_more_left"].values(), row["share_bic_falls"])]
        left = ["" if value is None else f"{value:.1e}" for value in row["left"].values()]
        lost = [str(row["n_limit_unsound"]), str(row["n_limit_unfinished"])]
        judged = f"{row['n_judged']} of {row['n_fits']}"
        lines.append([name, judged, *shares[:-1], *left, shares[-1], *lost])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["Nats per sample that sound fits called CONVERGED have left: shares with more, and quantiles"]
    text += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    everything = results["rows"]["all"]
    if everything["n_compared_with_one"]:
        below, compared = everything["n_below_one"], everything["n_compared_with_one"]
        text.append(f"Below one component: {below} of {compared} fits with K = 3 and tied covariances")
    return text


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _name(stack: Stack) -> str:
    return f"{stack.n_samples} × {stack.n_features}, K = {stack.n_components}, {stack.family}"


if __name__ == "__main__":
    main()
