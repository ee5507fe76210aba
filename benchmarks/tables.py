"""Tables of what was measured on a CPU, and what is told in sentences."""

import numpy as np

from benchmarks.rows import (
    PEERS,
    Results,
    Row,
    failures,
    fraction,
    one_of_each,
    rate,
    ratio,
    seconds,
    share,
    table,
    times,
    work,
)

OF_FIXED_LENGTH = ("scikit-learn", "scikit-learn, joblib", "NumPy float32", "jaxgmm float32", "jaxgmm mixed")
TO_CONVERGENCE = (
    "scikit-learn",
    "scikit-learn, joblib",
    "NumPy float64",
    "jaxgmm float32",
    "jaxgmm mixed",
    "sweep of jaxgmm, mixed",
)


def exact(results: Results) -> str:
    """Rates where all make the same iterations; the figure shows how they grow with the number of data sets."""
    scenarios = {n: row for n, row in results.scenarios(exact=True).items() if not n.startswith("scaling")}
    columns, rows = results.measured(OF_FIXED_LENGTH, scenarios), []
    for name, row in scenarios.items():
        own = results(name, "jaxgmm float32")
        speedup, of_limit = (ratio(own, results(name, system)) for system in ("scikit-learn", "C limit"))
        rates = [rate(results(name, system)) for system in columns]
        rows.append([work(row), *rates, times(speedup), fraction(of_limit)])
    header = ["exactly n iterations: run-iterations/s (\\* some runs failed)", *columns]
    return table([*header, "float32 over scikit-learn", "of the C limit"], rows)


def converged(results: Results) -> str:
    """Times where each stops by the same rule."""
    scenarios = results.scenarios(exact=False)
    columns, rows = results.measured(TO_CONVERGENCE, scenarios), []
    for name, row in scenarios.items():
        own, joblib = results(name, "jaxgmm mixed"), results(name, "scikit-learn, joblib")
        speedup = times(ratio(joblib, own, "seconds_for_all"))
        cells = [seconds(results(name, system)) for system in columns]
        rows.append([work(row), *cells, speedup, share(own, "efficiency"), failures(own), _better_and_worse(joblib)])
    header = ["to convergence: seconds for all data sets", *columns]
    return table([*header, "mixed over joblib", "efficiency", "not fitted", "scikit-learn better / worse"], rows)


def beside_peers(results: Results) -> str:
    """Packages that run in an environment of their own, beside jaxgmm in the same process."""
    columns, measured = [*PEERS, "jaxgmm float32"], results.beside_peers
    scenarios = one_of_each(measured.values())
    rows = [[work(row), *(rate(measured.get((name, s, False))) for s in columns)] for name, row in scenarios.items()]
    return table(["peers, run-iterations/s", *columns], rows)


def told(results: Results) -> list[str]:
    """A paragraph for each kind of file that has no rows.

    Raises:
        ValueError: a file has none of the entries by which its kind is known.
    """
    files = {}
    for contents in results.without_rows:
        entry = next((entry for entry in TOLD if entry in contents), None)
        if entry is None:
            raise ValueError(f"{contents['environment']['file']} holds neither rows nor any of {', '.join(TOLD)}.")
        files[entry] = contents
    return [tell(files[entry]) for entry, tell in TOLD.items() if entry in files]


def _better_and_worse(row: Row | None) -> str:
    return "–" if row is None else f"{share(row, 'share_better')} / {share(row, 'share_worse')}"


def _optima(results: dict) -> str:
    """What ten starts find beside scikit-learn's, and fifty of which a few are finalists."""
    own = [row["mean_difference"] for row in results["jaxgmm"]]
    theirs = ", ".join(f"{row['mean_difference']:+.5f}" for row in results["scikit-learn, other seeds"])
    many = results["finalists"]
    shares = {
        name: f"{row['share_same']:.0%} of the data sets, with {row['share_of_iterations']:.0%} of the iterations, in "
        f"{row['share_of_seconds']:.0%} of the time"
        for name, row in many.items()
        if isinstance(row, dict)
    }
    return (
        f"Ten starts on all {results['n_data_sets']:,} data sets of `{results['scenario']}`: the mean log-likelihood "
        f"of jaxgmm's answers is {np.mean(own):+.5f} nats per sample from that of scikit-learn's, over {len(own)} "
        f"seeds ({min(own):+.5f} to {max(own):+.5f}; another seed of scikit-learn's own: {theirs}). Of "
        f"{many['n_init']} starts, {many['finalists']['n_finalists']} finalists reach the optimum of all of them for "
        f"{shares['finalists']}; {many['fewer']['n_init']} starts without finalists for {shares['fewer']}."
    )


def _compilation(results: dict) -> str:
    """What a process pays before anything is compiled, and how many programs a search over K needs."""
    cold, kept = (results["first_fit"][name] for name in ("without_cache", "with_cache"))
    search = results["search"]
    return (
        f"The first fit of a process (300 × 2, K = 3, ten starts) takes {cold['total']:.1f} s, imports included, and "
        f"{kept['total']:.1f} s where programs were kept. 60 data sets of 30 to 5,000 samples, with every K from 1 to "
        f"20, compile {search['n_programs']} programs."
    )


def _sweep(results: dict) -> str:
    """The sweep over K and families on one line."""
    own, other = results["jaxgmm"], results["scikit-learn, joblib"]
    seconds, n_compared = own["seconds"]["median"], other["n_measured"]
    return (
        f"A sweep of {results['n_data_sets']:,} data sets of 200 × 2 over K = 1–5 and four families, 5 starts each, to "
        f"convergence: jaxgmm {seconds:.3g} s, with {own['n_programs']} programs; scikit-learn with joblib "
        f"~{other['seconds_for_all']:,.0f} s, {results['times']:.0f} times as long, extrapolated from {n_compared} "
        f"data sets, on which jaxgmm's mean log-likelihood differs by {other['mean_difference']:+.4f} nats per sample."
    )


# How a file without rows is told, by the entry that only it has.
TOLD = {"finalists": _optima, "scikit-learn, joblib": _sweep, "first_fit": _compilation}
