"""Reports of frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from report_contents import read

from jaxgmm.frames import fit_groups
from jaxgmm.report import write_report

FRAME = pd.DataFrame(
    {
        "well": np.repeat(["a", "b", None], [40, 36, 46]),
        "red": np.random.default_rng(0).normal(size=122),
        "green": np.random.default_rng(1).normal(size=122),
        "w": np.random.default_rng(2).integers(1, 3, size=122).astype(float),
    }
).sample(frac=1, random_state=0)
FITTED = {"by": "well", "features": ["red", "green"], "n_init": 1, "precision": "float64"}


@pytest.fixture(scope="module")
def found():
    return fit_groups(FRAME, n_components=2, dropna=False, **FITTED)


def test_a_report_of_a_frame_is_of_its_groups(found, tmp_path: Path) -> None:
    write_report(found, FRAME, tmp_path / "report.html")
    page = read((tmp_path / "report.html").read_text("ascii"))
    assert page.meta["title"] == "3 groups by well"
    assert page.meta["features"] == ["red", "green"]
    assert page.meta["keys"] == [["a", "b", None]]
    assert page.core["n"].tolist() == [40, 36, 46]
    assert page.meta["criterion"] is None
    lowest = FRAME.groupby("well", dropna=False)[["red", "green"]].min().to_numpy()
    np.testing.assert_array_equal(page.column("low").reshape(3, 2), lowest)


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_the_kind_of_frame_makes_no_difference(found, tmp_path: Path, kind: str) -> None:
    other = pl.from_pandas(FRAME) if kind == "polars" else pa.Table.from_pandas(FRAME)
    write_report(found, FRAME, tmp_path / "one.html")
    write_report(fit_groups(other, n_components=2, dropna=False, **FITTED), other, tmp_path / "other.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


def test_some_groups_can_be_reported(found, tmp_path: Path) -> None:
    write_report(found, FRAME, tmp_path / "all.html")
    write_report(found.of([2, 0]), FRAME, tmp_path / "some.html", title="two")
    whole, some = (read((tmp_path / f"{name}.html").read_text("ascii")) for name in ("all", "some"))
    assert some.meta["title"] == "two"
    assert [some.meta["keys"][0][code] for code in some.core["key0"]] == [None, "a"]
    np.testing.assert_array_equal(some.core["p"], whole.core["p"][[2, 0]])
    with pytest.raises(ValueError, match=r"found\.of\(\[b\]\)"):
        write_report(found.of(0), FRAME, tmp_path / "one.html")


@pytest.mark.slow
def test_weights_and_models_of_a_frame_are_reported(tmp_path: Path) -> None:
    options = {"weights": "w", "covariance_type": ["full", "diag"], "criterion": "aic", **FITTED}
    swept = fit_groups(FRAME.dropna(), n_components=[2], **options)
    write_report(swept, FRAME, tmp_path / "report.html")
    page = read((tmp_path / "report.html").read_text("ascii"))
    assert page.meta["criterion"] == "aic"
    assert page.meta["families"] == ["full", "diag"]
    assert page.column("models").tolist() == [2, 2]
    np.testing.assert_allclose(page.core["value"], swept.fits["aic"], rtol=1e-12)
    np.testing.assert_allclose(page.core["total"], FRAME.groupby("well")["w"].sum())
    assert page.core["k"].tolist() == swept.fits["n_components"].tolist()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.iloc[1:], "rows in the frame, where"),
        (FRAME.assign(well="z"), "a has 0 rows in the frame, where 40 were fitted"),
        (FRAME.drop(columns="red"), "no column 'red'"),
        (FRAME.assign(red=FRAME["red"] + 1e-3), "a has other values in the frame than were fitted; pass"),
        (3, "must be a pandas or Polars DataFrame"),
    ],
)
def test_other_frames_are_refused(found, tmp_path: Path, frame: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_report(found, frame, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_fit_of_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got int"):
        write_report(3, FRAME, tmp_path / "report.html")
