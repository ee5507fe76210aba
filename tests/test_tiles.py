"""The demonstration's parts, on pictures of a few tiles."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import jaxgmm
from jaxgmm.tables.groups import group

SPEC = importlib.util.spec_from_file_location("tiles", Path(__file__).parent.parent / "examples" / "tiles.py")
tiles = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tiles)

ROWS, COLUMNS = 2, 3
PICTURE = np.random.default_rng(0).integers(0, 256, (ROWS * tiles.TILE, COLUMNS * tiles.TILE, 3), dtype=np.uint8)


def mixtures(n_tiles):
    """Mixtures whose components have grey means far apart."""
    means = np.broadcast_to(np.array([20.0, 90.0, 160.0, 230.0])[:, None], (n_tiles, 4, 3))
    covariances = np.broadcast_to(25 * np.eye(3) + 1, (n_tiles, 4, 3, 3))
    return jaxgmm.Mixture(np.full((n_tiles, 4), 0.25), means.copy(), covariances.copy())


def test_photographs_make_over_two_thousand_tiles():
    photographs = tiles.sample_photographs()
    assert sorted(photographs) == ["china", "flower"]
    assert sum(len(tiles.cut(photograph)) for photograph in photographs.values()) == 2080


def test_joining_undoes_cutting():
    cut = tiles.cut(PICTURE)
    np.testing.assert_array_equal(cut[1].reshape(16, 16, 3), PICTURE[:16, 16:32])
    np.testing.assert_array_equal(tiles.join(cut, ROWS), PICTURE)


def test_groups_of_the_pixel_table_are_the_tiles():
    other = 255 - PICTURE
    table = tiles.pixel_table({"b": PICTURE, "a": other})
    groups = group(table, tiles.KEY, tiles.COLOURS)
    np.testing.assert_array_equal(np.stack(groups.x), np.concatenate([tiles.cut(other), tiles.cut(PICTURE)]))


def test_pixels_are_painted_with_the_nearest_mean_and_tiles_without_a_fit_are_nan():
    mixture = mixtures(2)
    for leaf in mixture.arrays:
        leaf[1] = np.nan
    greys = np.repeat(np.array([[25, 85, 225]]), 2, axis=0)[..., None].repeat(3, axis=-1)
    painting = tiles.paint(greys, mixture)
    np.testing.assert_allclose(painting[0, :, 0] * 255, [20, 90, 230])
    assert np.isnan(painting[1]).all()


def test_comparison_is_of_bic_in_the_units_of_the_tile(monkeypatch):
    monkeypatch.setattr(tiles, "KS", range(1, 2))
    draw = np.random.default_rng(1)
    tile = (draw.normal(size=(1, 256, 3)) * [3, 10, 30]).round()
    comparison = tiles.compare(tile, np.array([0.0]))
    assert comparison.n_failed == 0
    # A Gaussian's log-likelihood is about minus its entropy, and it has nine parameters.
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(tile[0].T))[1]
    assert comparison.gains == pytest.approx([2 * 256 * entropy + 9 * np.log(256)], rel=0.01)


def test_pictures_are_drawn_also_with_tiles_without_a_fit(tmp_path):
    cut = tiles.cut(PICTURE)
    painting = cut / 255
    painting[0] = np.nan
    chosen = np.array([np.nan, 1, 2, 3, 6, 6])
    tiles.draw({"one": PICTURE}, painting, chosen, tmp_path / "tiles.png")
    bic = np.random.default_rng(0).uniform(size=(6, len(tiles.KS)))
    tiles.draw_criterion(cut, bic, chosen, tmp_path / "criterion.png")
    for name in ("tiles", "criterion"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
