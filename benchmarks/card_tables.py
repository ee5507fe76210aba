"""Tables of what was measured on a card: beside the card's limit, and beside a CPU."""

from typing import NamedTuple

import numpy as np

from benchmarks.gpu import FLOAT32, FLOAT32_ON_CARD, LIMIT, MIXED, MIXED_ON_CARD, PEER, SWEEP
from benchmarks.rows import (
    Results,
    Row,
    failures,
    fraction,
    rate,
    ratio,
    runs,
    seconds,
    share,
    size,
    table,
    times,
    work,
)

# Systems of a fixed number of iterations, and what they are compared with, by the headings of their columns.
COLUMNS = {
    PEER: "gmm-gpu",
    FLOAT32: "jaxgmm float32",
    FLOAT32_ON_CARD: "float32, data on the card",
    MIXED_ON_CARD: "mixed, data on the card",
}
COMPARED = {PEER: "float32 over gmm-gpu", LIMIT: "float32, data on the card, of the CUDA limit"}


class Pair(NamedTuple):
    """A row of a card, and that of the same work on a CPU, where there is one."""

    card: Row
    cpu: Row | None


def exact(results: Results) -> str:
    """Rates of a card where all make the same iterations.

    gmm-gpu pays for copies to the card and back, as jaxgmm does with NumPy arrays; the limit, as data on the card, does
    not.
    """
    scenarios, rows = results.scenarios(exact=True, gpu=True), []
    columns, others = (results.measured(systems, scenarios, gpu=True) for systems in (COLUMNS, COMPARED))
    for name, row in scenarios.items():
        own = {system: results(name, system, gpu=True) for system in (*COLUMNS, *COMPARED)}
        compared = {
            PEER: times(ratio(own[FLOAT32], own[PEER])),
            LIMIT: fraction(ratio(own[FLOAT32_ON_CARD], own[LIMIT])),
        }
        rows.append([work(row), *(rate(own[system]) for system in columns), *(compared[other] for other in others)])
    header = ["exactly n iterations on the card: run-iterations/s (\\* some runs failed)"]
    return table([*header, *(COLUMNS[system] for system in columns), *(COMPARED[other] for other in others)], rows)


def beside_cpu(results: Results) -> str:
    """Seconds on a card and on a CPU, and how the answers differ."""
    pairs = _pairs(results)
    header = [
        "mixed precision, NumPy in and out: seconds for all data sets",
        *_devices(pairs),
        "CPU over card",
        "efficiency on the card",
        "not fitted: CPU / card",
        "mean log-likelihood: card − CPU, nats per sample",
    ]
    rows = [
        [
            work(pair.card) + _kind(pair.card),
            seconds(pair.cpu),
            seconds(pair.card),
            _speedup(pair),
            share(pair.card, "efficiency"),
            f"{failures(pair.cpu)} / {failures(pair.card)}",
            _range(_differences(pair)),
        ]
        for pair in pairs
    ]
    return table(header, rows)


def in_short(results: Results) -> str:
    """The same for a reader who does not know the scenarios: what each is, how long it takes, and on what."""
    pairs = _pairs(results)
    header = ["", *_devices(pairs), "CPU over card"]
    rows = [
        [_in_words(pair.card), *(seconds(row) + " s" * bool(row) for row in (pair.cpu, pair.card)), _speedup(pair)]
        for pair in pairs
    ]
    return "\n\n".join(filter(None, [table(header, rows), _outcome(pairs), lacking(results), _measured_on(pairs)]))


def lacking(results: Results) -> str:
    """What the card was given and has no figure for, as a sentence; the file has the whole errors."""
    names = [
        f"`{row['scenario']}`" + f" by {row['system']}" * bool(row["system"]) + f" ({row['error'].split(':')[0]})"
        for row in results.failed_on_card
    ]
    return f"Without a figure on the card: {', '.join(names)}." if names else ""


def _pairs(results: Results) -> list[Pair]:
    """What jaxgmm fitted in mixed precision from NumPy arrays, in a call for each model or in a sweep."""
    return [
        Pair(row, results.on_cpu(row))
        for (_, system, gpu), row in results.rows.items()
        if gpu and system in (MIXED, SWEEP)
    ]


def _devices(pairs: list[Pair]) -> list[str]:
    """Headings of the two columns of seconds."""
    cores = sorted({pair.cpu["environment"]["cores"] for pair in pairs if pair.cpu})
    cpu = f"{' or '.join(map(str, cores))} CPU cores" if cores else "CPU"
    return [cpu, " or ".join(dict.fromkeys(pair.card["device"] for pair in pairs))]


def _kind(row: Row) -> str:
    return ", one sweep" * _is_sweep(row) + f", exactly {row['max_iter']} iterations" * (row["tol"] == 0)


def _in_words(row: Row) -> str:
    n = row["n_data_sets"]
    data_sets = f"{n:,} data set{'s' * (n > 1)} of {size(row)}"
    return f"{row['stands_for']} (`{row['scenario']}`): {data_sets}, {runs(row)}" + ", one sweep" * _is_sweep(row)


def _is_sweep(row: Row) -> bool:
    return row["system"] == SWEEP


def _speedup(pair: Pair) -> str:
    return times(ratio(pair.cpu, pair.card, "seconds_for_all"))


def _differences(pair: Pair) -> list[float]:
    """Mean log-likelihood of each model on the card less that on the CPU, of the same data sets."""
    card, cpu = pair
    name = "mean_log_likelihood"
    if not cpu or not card[name] or not cpu[name] or card["n_scored"] != cpu["n_scored"]:
        return []
    models = zip(card[name], cpu[name], strict=True)
    return [own - other for own, other in models if own is not None and other is not None]


def _range(differences: list[float]) -> str:
    """One number, or the least and the most of several."""
    if not differences:
        return "–"
    return " to ".join(dict.fromkeys(_signed(value) for value in (min(differences), max(differences))))


def _signed(value: float) -> str:
    return np.format_float_scientific(value, precision=0, trim="-", sign=True, exp_digits=1) if value else "0"


def _outcome(pairs: list[Pair]) -> str:
    both = [pair for pair in pairs if pair.cpu]
    differences = [value for pair in both for value in _differences(pair)]
    if not differences:
        return ""
    n_card, n_cpu = (sum(row["failures"] for row in rows if row) for rows in zip(*both, strict=True))
    return (
        f"The mean log-likelihoods on the card differ from those on the CPU by {_range(differences)} nats per sample; "
        f"{n_card:,} of the card's fits failed, and {n_cpu:,} of the CPU's."
    )


def _measured_on(pairs: list[Pair]) -> str:
    """Machines, versions and commits of the rows."""
    rows = [row for pair in pairs for row in pair if row]
    machines = dict.fromkeys(
        (row["device"] if row["device"] != "cpu" else about["cpu"])
        + f": commit {about['commit']}, {about['date']}, jax {about['versions']['jax']}"
        for row in rows
        if (about := row["environment"])
    )
    return f"Measured on {'; '.join(machines)}." if machines else ""
