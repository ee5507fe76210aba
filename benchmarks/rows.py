"""Rows of results from several files, and what a table's cells say of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# Scenario, system, and whether it ran on a card.
Key = tuple[str, str, bool]

PEERS = ("gmmx, loop", "gmmx, vmap", "gmm-gpu", "pomegranate")
# What two rows must agree in for their times to be compared.
WORK = (
    "scenario",
    "system",
    "n_data_sets",
    "n_samples",
    "n_features",
    "n_components",
    "covariance_type",
    "n_init",
    "tol",
    "max_iter",
)


class Results:
    """Rows of several files, by scenario, system and kind of device. A row knows the environment of its file."""

    def __init__(self, files: list[Path]) -> None:
        self.environments: list[dict] = []
        self.rows: dict[Key, Row] = {}
        # The same and the rows that later files replaced, the latest last.
        self.history: list[Row] = []
        # jaxgmm runs beside the peers too, in their environment, which has no place in the other tables.
        self.beside_peers: dict[Key, Row] = {}
        # What is told in sentences.
        self.without_rows: list[dict] = []
        # Rows of a card that have an error; they have no system where its process was stopped.
        self.failed_on_card: list[Row] = []
        for file in files:
            self._read(json.loads(file.read_text()), file)

    def _read(self, results: dict, file: Path) -> None:
        about = results["environment"] | {"file": file.name}
        self.environments.append(about)
        if "rows" not in results:
            self.without_rows.append(results | {"environment": about})
            return
        known = [row | {"environment": about} for row in results["rows"] if "error" not in row]
        table = self.beside_peers if any(row["system"] in PEERS for row in known) else self.rows
        # Rows of one scenario are of one size and one run: a later file replaces all of an earlier one's.
        measured = {(row["scenario"], on_card(row)) for row in known}
        for key in [key for key in table if (key[0], key[2]) in measured]:
            del table[key]
        table |= {(row["scenario"], row["system"], on_card(row)): row for row in known}
        self.history += known if table is self.rows else []
        if "gpu" in about:
            given = {row["scenario"] for row in results["rows"]}
            self.failed_on_card = [row for row in self.failed_on_card if row["scenario"] not in given]
            self.failed_on_card += [row for row in results["rows"] if "error" in row]

    def __call__(self, scenario: str, system: str, *, gpu: bool = False) -> Row | None:
        """A row, or None where there is none."""
        return self.rows.get((scenario, system, gpu))

    def on_cpu(self, row: Row) -> Row | None:
        """The latest row of a CPU for the same work: a later one may be of another size, or stop by another rule."""
        same = (other for other in reversed(self.history) if all(row[name] == other[name] for name in WORK))
        return next((other for other in same if not on_card(other)), None)

    def scenarios(self, *, exact: bool, gpu: bool = False) -> dict[str, Row]:
        """A row of each scenario of a fixed number of iterations, or to convergence, in the order they were run in."""
        rows = (row for (_, _, on), row in self.rows.items() if on == gpu and (row["tol"] == 0) == exact)
        return one_of_each(rows)

    def measured(self, systems: Iterable[str], scenarios: Iterable[str], *, gpu: bool = False) -> list[str]:
        """Those of the systems that have a row of any of the scenarios."""
        names = list(scenarios)
        return [system for system in systems if any((name, system, gpu) in self.rows for name in names)]

    @property
    def has_gpu(self) -> bool:
        """Whether anything ran on a GPU."""
        return any(gpu for _, _, gpu in self.rows)


def on_card(row: Row) -> bool:
    """Whether a row was measured on a GPU."""
    return not row["device"].startswith("cpu")


def one_of_each(rows: Iterable[Row]) -> dict[str, Row]:
    """The first row of every scenario, by its name."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row["scenario"], row)
    return found


def ratio(above: Row | None, below: Row | None, name: str = "run_iterations_per_second") -> float | None:
    """An entry of one row over that of another, or None where a row or its entry is missing."""
    return above[name] / below[name] if above and below and above[name] and below[name] else None


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown, or nothing where there are no rows; all columns but the first are numbers."""
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] + ["---:"] * (len(header) - 1), *rows])


def work(row: Row) -> str:
    """The scenario of a row with its sizes, in one cell."""
    return f"`{row['scenario']}`: {row['n_data_sets']:,} × {size(row)}, {runs(row)}"


def size(row: Row) -> str:
    """Samples × features of a data set."""
    samples = row["n_samples"]
    samples = f"{samples:,}" if isinstance(samples, int) else "–".join(f"{n:,}" for n in samples)
    return f"{samples} × {row['n_features']}"


def runs(row: Row) -> str:
    """The least and the most K, and the numbers of families and of starts if there are several."""
    least, most = min(row["n_components"]), max(row["n_components"])
    several = {"families": len(set(row["covariance_type"])), "starts": row["n_init"]}
    k = f"K = {least}" + f"–{most}" * (most > least)
    return ", ".join([k, *(f"{n} {name}" for name, n in several.items() if n > 1)])


def rate(row: Row | None) -> str:
    """Run-iterations per second; an asterisk says that some runs failed."""
    if row is None:
        return "–"
    value = row["run_iterations_per_second"]
    unit_size, unit = next(((size, unit) for size, unit in ((1e6, " M"), (1e3, " k")) if value >= size), (1, ""))
    return f"{value / unit_size:.3g}{unit}" + "*" * bool(row["failures"])


def seconds(row: Row | None) -> str:
    """Seconds for all data sets; a tilde says that they are extrapolated from the first."""
    if row is None:
        return "–"
    value = float(f"{row['seconds_for_all']:.3g}")
    return "~" * row["extrapolated"] + (f"{value:,.0f}" if value >= 100 else f"{value:.3g}")


def times(value: float | None) -> str:
    """How many times as fast."""
    return "–" if value is None else f"{float(f'{value:.3g}'):,.{1 if value < 100 else 0}f} ×"


def fraction(value: float | None) -> str:
    """A share of a limit."""
    return "–" if value is None else f"{value:.2f}"


def share(row: Row | None, name: str) -> str:
    """An entry in per cent."""
    return "–" if row is None or row[name] is None else f"{100 * row[name]:.0f}%"


def failures(row: Row | None) -> str:
    """How many fits have no sound answer."""
    return "–" if row is None else f"{row['failures']:,}"
