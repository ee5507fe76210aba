"""Two photographs, a mixture of colours for every tile, each with its own number of components.

The photographs that scikit-learn ships are cut into tiles of 16 × 16 pixels. A tile is a data set of 256 samples (its
pixels) with three features (red, green, blue). The command `jaxgmm sweep` reads all pixels from one Parquet table, fits
mixtures of one to six Gaussians to every tile, and chooses among them by BIC; scikit-learn then does the same for some
of the tiles, for comparison; and pictures show what came out.

    python examples/tiles.py --out demo
"""

import argparse
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.datasets import load_sample_images
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import jaxgmm
from jaxgmm import cli
from jaxgmm.tables import tabular

TILE = 16
COLOURS = ("red", "green", "blue")
KEY = ("photograph", "tile_row", "tile_column")
KS, N_STARTS, TOL = range(1, 7), 10, 1e-5
# scikit-learn's default, so that both may go equally far.
MAX_ITER = 100
# Colours are whole numbers and repeat within a tile. Were the ridge much smaller, components would shrink onto single
# colours, and the ridge alone would decide how likely they are.
REG_COVAR = 0.01
N_COMPARED = 16
# Closer BICs count as equal, as fits stop at slightly different places.
TOLERANCE = 5.0
OUTPUTS = ("pixels.parquet", "models.parquet", "components.parquet", "fits.parquet", "tiles.png", "criterion.png")
# Light is few components. The steps differ in lightness, so that they are told apart in grey as well.
FEW_TO_MANY = mpl.colormaps["viridis_r"]


class Comparison(NamedTuple):
    """What scikit-learn needed for some of the tiles, and how the choices compare.

    Attributes:
        seconds_per_tile: mean time of a tile.
        n_failed: tiles on which it raised an error.
        gains: of every other tile, how much lower jaxgmm's BIC is.
    """

    seconds_per_tile: float
    n_failed: int
    gains: np.ndarray


def main() -> int:
    """Runs the demonstration, and returns the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="directory for tables and picture")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS:
        (out / name).unlink(missing_ok=True)

    photographs = sample_photographs()
    pq.write_table(pixel_table(photographs), out / "pixels.parquet")
    command = ["sweep", str(out / "pixels.parquet"), "--by", ",".join(KEY), "--features", ",".join(COLOURS)]
    command += ["--components", f"{KS[0]}-{KS[-1]}", "--criterion", "bic", "--starts", str(N_STARTS)]
    command += ["--method", "em", "--tol", str(TOL)]  # as scikit-learn does
    command += ["--max-iter", str(MAX_ITER), "--reg-covar", str(REG_COVAR), "--out", str(out)]
    print(f"$ jaxgmm {shlex.join(command)}", flush=True)
    began = time.perf_counter()
    code = cli.main(command)
    seconds = time.perf_counter() - began
    if code:
        return code

    tiles = np.concatenate([cut(photographs[name]) for name in sorted(photographs)])
    fits = pq.read_table(out / "fits.parquet")
    report(compare(tiles, fits["bic"].to_numpy()), len(tiles), seconds)
    chosen = fits["n_components"].to_numpy()
    mixture = tabular.mixture_of(pq.read_table(out / "components.parquet"), len(tiles), COLOURS)
    painting = paint(tiles, mixture)
    draw(photographs, painting, chosen, out / "tiles.png")
    bic = pq.read_table(out / "models.parquet")["bic"].to_numpy().reshape(len(tiles), len(KS))
    draw_criterion(tiles, bic, chosen, out / "criterion.png")
    print(f"drew {out / 'tiles.png'} and {out / 'criterion.png'}")
    return 0


def sample_photographs() -> dict[str, np.ndarray]:
    """The photographs by name, `(height, width, 3)`, cropped to whole tiles."""
    bunch = load_sample_images()
    photographs = {}
    for file, image in zip(bunch.filenames, bunch.images, strict=True):
        height, width = (size // TILE * TILE for size in image.shape[:2])
        photographs[Path(file).stem] = image[:height, :width]
    return photographs


def cut(photograph: np.ndarray) -> np.ndarray:
    """A photograph as tiles `(tiles, 256, 3)`, row by row."""
    rows, columns = photograph.shape[0] // TILE, photograph.shape[1] // TILE
    tiles = photograph.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    return tiles.reshape(rows * columns, TILE * TILE, 3)


def join(tiles: np.ndarray, rows: int) -> np.ndarray:
    """Tiles `(tiles, 256, channels)` as a picture: the inverse of `cut`."""
    columns, channels = len(tiles) // rows, tiles.shape[-1]
    picture = tiles.reshape(rows, columns, TILE, TILE, channels).swapaxes(1, 2)
    return picture.reshape(rows * TILE, columns * TILE, channels)


def pixel_table(photographs: dict[str, np.ndarray]) -> pa.Table:
    """One row for every pixel: its photograph, the row and column of its tile, and its colour."""
    tables = []
    for name, photograph in photographs.items():
        height, width = photograph.shape[:2]
        row, column = np.divmod(np.arange(height * width), width)
        colours = photograph.reshape(-1, 3)
        columns = {"photograph": pa.array(np.full(height * width, name))}
        columns |= {"tile_row": pa.array(row // TILE), "tile_column": pa.array(column // TILE)}
        columns |= {colour: pa.array(colours[:, i]) for i, colour in enumerate(COLOURS)}
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def paint(tiles: np.ndarray, mixture: jaxgmm.Mixture) -> np.ndarray:
    """Every pixel in the mean colour of its most probable component, from 0 to 1; NaN where a tile has no fit."""
    component = np.asarray(jaxgmm.predict(mixture, tiles.astype(np.float64)))
    colours = np.take_along_axis(np.asarray(mixture.means), np.maximum(component, 0)[..., None], axis=1)
    return np.where(component[..., None] >= 0, np.clip(colours / 255, 0, 1), np.nan)


def compare(tiles: np.ndarray, bic: np.ndarray) -> Comparison:
    """Has scikit-learn choose for some tiles: the same models, number and kind of starts, and stopping rule."""
    chosen = np.random.default_rng(0).choice(len(tiles), size=min(N_COMPARED, len(tiles)), replace=False)
    seconds, n_failed, gains = 0.0, 0, []
    for b in chosen:
        # Its ridge is the same for all features, so they are scaled; the log-likelihood is scaled back below.
        scale = tiles[b].std(axis=0)
        x = tiles[b] / scale
        began = time.perf_counter()
        try:
            # On matrices this small, more threads in scikit-learn's linear algebra only wait for each other.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                lowest = min(scikit_learn(k).fit(x).bic(x) for k in KS)
        except ValueError:
            n_failed += 1
        else:
            gains.append(lowest + 2 * len(x) * np.log(scale).sum() - bic[b])
        seconds += time.perf_counter() - began
    return Comparison(seconds / len(chosen), n_failed, np.array(gains))


def scikit_learn(n_components: int) -> GaussianMixture:
    """scikit-learn's estimator with the demonstration's options."""
    return GaussianMixture(
        n_components,
        n_init=N_STARTS,
        tol=TOL,
        max_iter=MAX_ITER,
        reg_covar=REG_COVAR,
        init_params="k-means++",
        random_state=0,
    )


def report(comparison: Comparison, n_tiles: int, seconds: float) -> None:
    """Says how long both took, and for which answers."""
    gains = comparison.gains
    total = comparison.seconds_per_tile * n_tiles
    n_lower, n_higher = np.count_nonzero(gains > TOLERANCE), np.count_nonzero(gains < -TOLERANCE)
    print(f"""
scikit-learn, with the same K, starts of the same kind and number, the same method, tol, max_iter and ridge, one core:
  {comparison.seconds_per_tile:.2f} s a tile ({len(gains) + comparison.n_failed} at random), \
so about {total:,.0f} s for all {n_tiles:,}.
jaxgmm, on all cores, from file to file and with compilation:
  {seconds:.1f} s for all, about {total / seconds:,.0f} times less.
On the {len(gains)} tiles that both fitted ({comparison.n_failed} errors in scikit-learn), jaxgmm's BIC is
  lower (better) on {n_lower}, equal to {TOLERANCE:g} on {len(gains) - n_higher - n_lower}, higher on {n_higher}; \
scikit-learn's less jaxgmm's: median {np.median(gains):+.1f}, from {np.min(gains):+.1f} to {np.max(gains):+.1f}.""")


def draw(photographs: dict[str, np.ndarray], painting: np.ndarray, n_components: np.ndarray, path: Path) -> None:
    """Draws each photograph, its tiles painted with their components' means, and how many components each has."""
    with mpl.rc_context({"font.size": 13, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(16, 8), layout="constrained")
        panels = figure.subplots(len(photographs), 3, squeeze=False)
        first = 0
        for axes, name in zip(panels, sorted(photographs), strict=True):
            rows, columns = (size // TILE for size in photographs[name].shape[:2])
            tiles = slice(first, first + rows * columns)
            first += rows * columns
            axes[0].imshow(photographs[name])
            axes[0].set_ylabel(f"{name}: {rows * columns:,} tiles")
            _draw_painting(axes[1], join(painting[tiles], rows))
            _draw_numbers(axes[2], n_components[tiles].reshape(rows, columns))
            for panel in axes:
                panel.set(xticks=[], yticks=[])
        titles = ("photograph", "every pixel in its component's mean colour", "components that BIC chose")
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        figure.legend(handles=_legend(n_components), loc="outside lower center", ncols=7, frameon=False)
        figure.savefig(path, dpi=110)


def draw_criterion(tiles: np.ndarray, bic: np.ndarray, n_components: np.ndarray, path: Path) -> None:
    """Draws BIC against K for one tile of each number of components that was chosen."""
    # Of all tiles with one number of components, the most colourful.
    variety = tiles.std(axis=1).sum(axis=1)
    examples = [int(np.argmax(np.where(n_components == k, variety, -1))) for k in KS if np.any(n_components == k)]
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(2.2 * len(examples), 4.2), layout="constrained")
        panels = figure.subplots(2, len(examples), squeeze=False, height_ratios=(1, 1.3))
        for (above, below), b in zip(panels.T, examples, strict=True):
            above.imshow(tiles[b].reshape(TILE, TILE, 3))
            above.set(xticks=[], yticks=[], title=f"K = {int(n_components[b])}")
            gain = bic[b] - np.nanmin(bic[b])
            below.plot(KS, gain, color="0.4", marker="o", markersize=4, linewidth=1)
            below.plot(n_components[b], gain[int(n_components[b]) - KS[0]], "o", color="#D55E00", markersize=9)
            below.set(xticks=list(KS), xlabel="components")
            below.spines[["top", "right"]].set_visible(False)
        panels[1, 0].set_ylabel("BIC above its minimum")
        figure.savefig(path, dpi=110)


def _draw_painting(axes: Axes, painting: np.ndarray) -> None:
    missing = np.isnan(painting).any(axis=-1)
    axes.imshow(np.where(missing[..., None], 0.75, painting))
    if missing.any():
        axes.contourf(missing, levels=[0.5, 1.5], colors="none", hatches=["////"])


def _draw_numbers(axes: Axes, numbers: np.ndarray) -> None:
    image = np.array([_colour(k) for k in numbers.ravel()]).reshape(*numbers.shape, 4)
    axes.imshow(image)
    edges_x, edges_y = np.arange(numbers.shape[1] + 1) - 0.5, np.arange(numbers.shape[0] + 1) - 0.5
    axes.hlines(edges_y, edges_x[0], edges_x[-1], color="white", linewidth=0.4)
    axes.vlines(edges_x, edges_y[0], edges_y[-1], color="white", linewidth=0.4)


def _colour(n_components: float) -> tuple[float, float, float, float]:
    if np.isnan(n_components):
        return (0.75, 0.75, 0.75, 1.0)
    return FEW_TO_MANY((n_components - KS[0]) / (KS[-1] - KS[0]))


def _legend(n_components: np.ndarray) -> list[Patch]:
    """A patch for every number of components that was chosen, with its count."""
    handles = [
        Patch(color=_colour(k), label=f"K = {k}: {np.count_nonzero(n_components == k):,} tiles")
        for k in KS
        if np.any(n_components == k)
    ]
    if np.isnan(n_components).any():
        handles.append(Patch(facecolor="0.75", label="no answer"))
    return handles


if __name__ == "__main__":
    sys.exit(main())
