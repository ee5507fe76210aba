"""Two photographs, one mixture of colours for every tile: the job of the command `jaxgmm fit` on real input.

The photographs that scikit-learn ships are cut into tiles of 16 × 16 pixels. A tile is a data set of 256 samples (its
pixels) with three features (red, green, blue); a mixture of four Gaussians describes its colours. The command reads all
pixels from one Parquet table and fits every tile; scikit-learn then fits some of the same tiles, for comparison; and a
picture shows what came out.

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
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.datasets import load_sample_images
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import jaxgmm
from jaxgmm import cli, storage

TILE = 16
COLOURS = ("red", "green", "blue")
KEY = ("photograph", "tile_row", "tile_column")
N_COMPONENTS, N_STARTS, TOL = 4, 10, 1e-5
# scikit-learn's default, so that both may go equally far.
MAX_ITER = 100
# Colours are whole numbers and repeat within a tile. Were the ridge much smaller, components would shrink onto single
# colours, and the ridge alone would decide how likely they are.
REG_COVAR = 0.01
N_COMPARED = 30
# Nats a pixel; closer fits count as equal, as they stop at slightly different places.
TOLERANCE = 0.01
OUTPUTS = ("pixels.parquet", "components.parquet", "fits.parquet", "tiles.png")
# Okabe and Ito's palette, told apart with every kind of colour vision.
STATUS_COLOURS = {
    jaxgmm.Status.CONVERGED: "#56B4E9",
    jaxgmm.Status.MAX_ITER: "#F0E442",
    jaxgmm.Status.DEGENERATE: "#D55E00",
    jaxgmm.Status.NONFINITE: "#000000",
    jaxgmm.Status.TOO_FEW_SAMPLES: "#CC79A7",
}


class Comparison(NamedTuple):
    """What scikit-learn needed for some of the tiles, and how the fits compare.

    Attributes:
        seconds_per_fit: mean time of a tile.
        n_failed: tiles on which it raised an error.
        gains: of every other tile, jaxgmm's log-likelihood less scikit-learn's, nats a pixel.
    """

    seconds_per_fit: float
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
    storage.write_tables(out, {"pixels": pixel_table(photographs)})
    command = ["fit", str(out / "pixels.parquet"), "--by", ",".join(KEY), "--features", ",".join(COLOURS)]
    command += ["--components", str(N_COMPONENTS), "--starts", str(N_STARTS), "--tol", str(TOL)]
    command += ["--max-iter", str(MAX_ITER), "--reg-covar", str(REG_COVAR), "--out", str(out)]
    print(f"$ jaxgmm {shlex.join(command)}", flush=True)
    began = time.perf_counter()
    code = cli.main(command)
    seconds = time.perf_counter() - began
    if code:
        return code

    tiles = np.concatenate([cut(photographs[name]) for name in sorted(photographs)])
    fits = pq.read_table(out / "fits.parquet")
    report(compare(tiles, fits["log_likelihood"].to_numpy()), len(tiles), seconds)
    painting = paint(tiles, read_mixture(out / "components.parquet"))
    draw(photographs, painting, fits["status"].to_pylist(), out / "tiles.png")
    print(f"drew {out / 'tiles.png'}")
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


def read_mixture(components: Path) -> jaxgmm.Mixture:
    """The mixtures of all tiles, out of the table of their components."""
    table = pq.read_table(components)

    def numbers(name: str) -> np.ndarray:
        return table[name].to_numpy().reshape(-1, N_COMPONENTS)

    covariances = np.empty((table.num_rows // N_COMPONENTS, N_COMPONENTS, 3, 3))
    for i, f in enumerate(COLOURS):
        for j, g in enumerate(COLOURS[: i + 1]):
            covariances[..., i, j] = covariances[..., j, i] = numbers(f"covariance_{f}_{g}")
    means = np.stack([numbers(f"mean_{colour}") for colour in COLOURS], axis=-1)
    return jaxgmm.Mixture(numbers("weight"), means, covariances)


def paint(tiles: np.ndarray, mixture: jaxgmm.Mixture) -> np.ndarray:
    """Every pixel in the mean colour of its most probable component, from 0 to 1; NaN where a tile has no fit."""
    component = np.asarray(jaxgmm.predict(mixture, tiles.astype(np.float64)))
    colours = np.take_along_axis(np.asarray(mixture.means), np.maximum(component, 0)[..., None], axis=1)
    return np.where(component[..., None] >= 0, np.clip(colours / 255, 0, 1), np.nan)


def compare(tiles: np.ndarray, log_likelihood: np.ndarray) -> Comparison:
    """Fits some tiles with scikit-learn: the same model, number and kind of starts, and stopping rule."""
    chosen = np.random.default_rng(0).choice(len(tiles), size=min(N_COMPARED, len(tiles)), replace=False)
    seconds, n_failed, gains = 0.0, 0, []
    for b in chosen:
        # Its ridge is the same for all features, so they are scaled; the log-likelihood is scaled back below.
        scale = tiles[b].std(axis=0)
        x = tiles[b] / scale
        model = GaussianMixture(
            N_COMPONENTS,
            n_init=N_STARTS,
            tol=TOL,
            max_iter=MAX_ITER,
            reg_covar=REG_COVAR,
            init_params="k-means++",
            random_state=0,
        )
        began = time.perf_counter()
        try:
            # On matrices this small, more threads in scikit-learn's linear algebra only wait for each other.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                model.fit(x)
        except ValueError:
            n_failed += 1
        else:
            gains.append(log_likelihood[b] / len(x) - (model.score(x) - np.log(scale).sum()))
        seconds += time.perf_counter() - began
    return Comparison(seconds / len(chosen), n_failed, np.array(gains))


def report(comparison: Comparison, n_tiles: int, seconds: float) -> None:
    """Says how long both took, and for which answers."""
    gains = comparison.gains
    total = comparison.seconds_per_fit * n_tiles
    n_higher, n_lower = np.count_nonzero(gains > TOLERANCE), np.count_nonzero(gains < -TOLERANCE)
    print(f"""
scikit-learn, with as many k-means++ starts and the same tol, max_iter and ridge, one tile after another on one core:
  {comparison.seconds_per_fit:.2f} s a tile ({len(gains) + comparison.n_failed} at random), \
so about {total:,.0f} s for all {n_tiles:,}.
jaxgmm, on all cores, from file to file and with compilation:
  {seconds:.1f} s for all, about {total / seconds:,.0f} times less.
On the {len(gains)} tiles that both fitted ({comparison.n_failed} errors in scikit-learn), jaxgmm's log-likelihood is
  higher on {n_higher}, equal on {len(gains) - n_higher - n_lower}, lower on {n_lower} \
(nats a pixel: median {np.median(gains):+.3f}, from {np.min(gains):+.3f} to {np.max(gains):+.3f}).""")


def draw(photographs: dict[str, np.ndarray], painting: np.ndarray, statuses: list[str], path: Path) -> None:
    """Draws each photograph, its tiles painted with their components' means, and the statuses of the fits."""
    with mpl.rc_context({"font.size": 13, "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(16, 8), layout="constrained")
        panels = figure.subplots(len(photographs), 3, squeeze=False)
        codes = np.array([jaxgmm.Status[name] for name in statuses])
        first = 0
        for axes, name in zip(panels, sorted(photographs), strict=True):
            rows, columns = (size // TILE for size in photographs[name].shape[:2])
            tiles = slice(first, first + rows * columns)
            first += rows * columns
            axes[0].imshow(photographs[name])
            axes[0].set_ylabel(f"{name}: {rows * columns:,} tiles")
            _draw_painting(axes[1], join(painting[tiles], rows))
            _draw_statuses(axes[2], codes[tiles].reshape(rows, columns))
            for panel in axes:
                panel.set(xticks=[], yticks=[])
        titles = ("photograph", f"every pixel in its component's mean colour, K = {N_COMPONENTS}", "how each fit ended")
        for panel, title in zip(panels[0], titles, strict=True):
            panel.set_title(title)
        figure.legend(handles=_legend(codes, painting), loc="outside lower center", ncols=6, frameon=False)
        figure.savefig(path, dpi=110)


def _draw_painting(axes: Axes, painting: np.ndarray) -> None:
    missing = np.isnan(painting).any(axis=-1)
    axes.imshow(np.where(missing[..., None], 0.75, painting))
    if missing.any():
        axes.contourf(missing, levels=[0.5, 1.5], colors="none", hatches=["////"])


def _draw_statuses(axes: Axes, codes: np.ndarray) -> None:
    colours = ListedColormap([STATUS_COLOURS[status] for status in jaxgmm.Status])
    axes.imshow(codes, cmap=colours, norm=BoundaryNorm(np.arange(len(jaxgmm.Status) + 1) - 0.5, colours.N))
    edges_x, edges_y = np.arange(codes.shape[1] + 1) - 0.5, np.arange(codes.shape[0] + 1) - 0.5
    axes.hlines(edges_y, edges_x[0], edges_x[-1], color="white", linewidth=0.4)
    axes.vlines(edges_x, edges_y[0], edges_y[-1], color="white", linewidth=0.4)


def _legend(codes: np.ndarray, painting: np.ndarray) -> list[Patch]:
    """A patch for every status that occurs, with its count."""
    handles = [
        Patch(color=STATUS_COLOURS[status], label=f"{status.name}: {np.count_nonzero(codes == status):,} fits")
        for status in jaxgmm.Status
        if np.any(codes == status)
    ]
    if np.isnan(painting).any():
        handles.append(Patch(facecolor="0.75", hatch="////", label="no answer"))
    return handles


if __name__ == "__main__":
    sys.exit(main())
