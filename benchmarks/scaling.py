"""The figure of how time grows with the number of data sets."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.rows import Results

# Labels at the ends of lines are drawn so many times apart, at least, on an axis of eight decades.
APART = 2.0

# System, whether on a card, colour and marker: Okabe and Ito's colours, which colour-blind readers tell apart; markers
# say it again.
LINES = {
    "scikit-learn": ("scikit-learn", False, "#000000", "o"),
    "scikit-learn, joblib": ("scikit-learn, joblib", False, "#D55E00", "s"),
    "NumPy float32": ("NumPy float32", False, "#CC79A7", "v"),
    "jaxgmm mixed": ("jaxgmm mixed", False, "#56B4E9", "^"),
    "jaxgmm float32": ("jaxgmm float32", False, "#0072B2", "D"),
    "jaxgmm on a GPU": ("jaxgmm float32", True, "#009E73", "P"),
    "C limit": ("C limit", False, "#999999", "x"),
    "CUDA limit": ("CUDA limit", True, "#999999", "+"),
}


def draw(results: Results, path: Path) -> None:
    """Data sets against seconds, one line per system."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes, ends = figure.subplots(), []
    for label, (system, gpu, colour, marker) in LINES.items():
        rows = [row for key, row in results.rows.items() if key[0].startswith("scaling") and key[1:] == (system, gpu)]
        rows.sort(key=lambda row: row["n_data_sets"])
        x, y = [row["n_data_sets"] for row in rows], [row["seconds_for_all"] for row in rows]
        axes.plot(x, y, color=colour, linewidth=1.2)
        for row in rows:
            # Markers that are lines have no inside.
            face = "white" if row["extrapolated"] and marker not in "x+" else colour
            axes.plot(row["n_data_sets"], row["seconds_for_all"], marker, color=colour, markerfacecolor=face)
        if rows:
            ends.append((y[-1], x[-1], label, colour))
    place = 0.0
    for y, x, label, colour in sorted(ends):
        place = max(y, place * APART)
        axes.annotate(label, (x, place), (8, 0), textcoords="offset points", color=colour, va="center", fontsize=8)
    axes.set(
        xscale="log", yscale="log", xlabel="data sets of 100 × 1, K = 2", ylabel="seconds for exactly 50 iterations"
    )
    axes.margins(x=0.05)
    axes.set_xlim(right=axes.get_xlim()[1] * 12)
    axes.set_title("Hollow: extrapolated from the first data sets", fontsize=8, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
