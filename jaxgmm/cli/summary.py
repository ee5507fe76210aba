"""The summary that `jaxgmm fit` and `jaxgmm sweep` print at the end."""

from collections import Counter
from pathlib import Path

import numpy as np

from jaxgmm.cli import console
from jaxgmm.doubts import FLAGS
from jaxgmm.engine.progress import per_second
from jaxgmm.jobs.running import Done
from jaxgmm.status import Status
from jaxgmm.tables import files
from jaxgmm.tables.wording import counted

# Statuses of fits that ended as requested.
_ENDED_WELL = (Status.CONVERGED.name, Status.MAX_ITER.name)


def summarised(written: list[Path], keys: dict[str, str], done: Done, *, is_sweep: bool, as_json: bool) -> bool:
    """Prints how the fits ended and how long they took; returns whether any ended CONVERGED or MAX_ITER.

    Args:
        written: the tables that were written, `fits.parquet` first.
        keys: the types that the key columns were read as; none for one mixture of a whole table.
        done: the work of this call.
        is_sweep: whether models were chosen.
        as_json: whether to print one JSON object.
    """
    chosen = ["n_components", "covariance_type"] if is_sweep else []
    with files.opened(written[0]) as file:
        fits = file.read(["status", "n_samples", "flags", *chosen])
    counts, n_samples = Counter(fits["status"].to_pylist()), int(np.sum(fits["n_samples"].to_numpy()))
    raised = Counter(name for flags in fits["flags"].to_pylist() for name in flags.split(", ") if name)
    # In the order in which they are documented.
    n_flagged = {name: raised[name] for name in FLAGS if raised[name]}
    if as_json:
        facts = {"groups": fits.num_rows, "samples": n_samples, "status": dict(counts), "flags": n_flagged}
        facts |= {"keys": keys, "notes": list(done.notes), "fitted": done.n_fitted, "seconds": round(done.seconds, 3)}
        console.print_json(facts | {"files": [str(path) for path in written]})
    else:
        for note in done.notes:
            console.say(f"jaxgmm: {note}")
        fitted = f"{counted(fits.num_rows, 'group')}," if keys else "one mixture of"
        console.plain().print(f"\n{fitted} {counted(n_samples, 'sample')}", style="bold")
        console.print_statuses(counts)
        if n_flagged:
            table = console.plain_table("flag", "fits", "a fit that")
            table.columns[1].justify = "right"
            for name, n in n_flagged.items():
                table.add_row(name, f"{n:,}", FLAGS[name])
            console.plain().print(table)
        _print_done(fits.num_rows, done, written, has_groups=bool(keys))
        if is_sweep:
            answered = fits.select(chosen).drop_null()
            chosen_k, family = answered["n_components"].to_numpy(), np.array(answered["covariance_type"].to_pylist())
            if len(chosen_k):
                _print_choice(chosen_k, family, "groups by the model chosen" if keys else "the model chosen")
    has_ended_well = any(counts[name] for name in _ENDED_WELL)
    if not has_ended_well:
        ended = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        wanted = " or ".join(_ENDED_WELL)
        whose, each = ("no group", " about each") if keys else ("the fit has not", "")
        console.say(f"jaxgmm: {whose} ended {wanted} ({ended}); {written[0]} says what to do{each}.")
    return has_ended_well


def _print_done(n_groups: int, done: Done, written: list[Path], *, has_groups: bool) -> None:
    """Prints how many groups were fitted, in what time, and where the tables are."""
    printed = console.plain()
    if done.n_fitted == 0:
        printed.print("all groups had been fitted before" if has_groups else "it had been fitted before")
    elif not has_groups:
        printed.print(f"fitted in {done.seconds:.1f} s")
    else:
        rest = "" if done.n_fitted == n_groups else f"; {n_groups - done.n_fitted:,} had been fitted before"
        rate = done.n_fitted / done.seconds if done.seconds else 0
        printed.print(f"fitted {done.n_fitted:,} in {done.seconds:.1f} s, {per_second(rate)} groups/s{rest}")
    printed.print(("wrote " if done.n_fitted else "see ") + _listed(written), soft_wrap=True)


def _listed(written: list[Path]) -> str:
    """Names of files, with "and" before the last."""
    *others, last = map(str, written)
    return f"{', '.join(others)} and {last}"


def _print_choice(n_components: np.ndarray, covariance_type: np.ndarray, title: str) -> None:
    """Prints how often each model was chosen: K in rows, families in columns."""
    families = list(dict.fromkeys(covariance_type.tolist()))
    table = console.plain_table("components", *families)
    for column in table.columns:
        column.justify = "right"
    for k in np.unique(n_components).tolist():
        of_k = covariance_type[n_components == k]
        table.add_row(str(k), *(f"{np.count_nonzero(of_k == family):,}" for family in families))
    console.plain().print(f"\n{title}", style="bold")
    console.plain().print(table)
