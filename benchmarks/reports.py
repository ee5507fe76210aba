"""What a report of many groups costs: its size, the time to write it, and how fast a browser answers.

python -m benchmarks.reports
python -m benchmarks.reports --groups 5000 --keep report.html
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.environment import RESULTS, environment, write
from jaxgmm.frames import GroupFits, fit_groups
from jaxgmm.report import write_report

WELLS = [f"{chr(65 + row)}{column + 1:02}" for row in range(16) for column in range(24)]
# Samples of a group, and numbers of its clusters.
SIZES, MOST_CLUSTERS = (30, 300), 4
FRAMES = 120
# In the page: milliseconds until a deed has been done and painted.
TIMED = """async (deed) => {
    const began = performance.now();
    await eval(deed);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - began;
}"""
DEEDS = {
    "sort": "sortBy('p')",
    "search": "state.q = 'p07 b'; refresh(); 0",
    "all again": "clearFilters()",
    "pictures": "setView('pictures')",
    "plates": "setView('plates')",
    "table": "setView('table')",
    "open": "openGroup(order[Math.floor(order.length / 2)])",
}
# Milliseconds between frames while the list is scrolled by some rows in each.
SCROLLED = """async ([frames, pixels]) => {
    const found = [];
    let before = await new Promise(requestAnimationFrame);
    for (let frame = 0; frame < frames; frame++) {
        document.getElementById("scroller").scrollTop += pixels;
        const now = await new Promise(requestAnimationFrame);
        found.push(now - before);
        before = now;
    }
    return found;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="keep the report under this name")
    asked = parser.parse_args()
    df = cells(asked.groups)
    results: dict[str, Any] = {"environment": environment(), "groups": asked.groups, "samples": len(df)}
    began = time.perf_counter()
    found = fit_groups(df, ["plate", "well"], ["GFP", "mCherry"], range(1, 5), n_init=1)
    results["seconds_to_fit"] = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "report.html"
        results |= written(found, df, path)
        results["browser"] = browsed(path)
        if asked.keep:
            shutil.copy(path, asked.keep)
    write(RESULTS / "reports.json", results)
    print(json.dumps(results, indent=1))


def cells(n_groups: int) -> pd.DataFrame:
    """Wells of 384 on plates, with one to four elongated clusters each, and a hundredth with bad data."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(*SIZES, size=n_groups)
    of_group = np.repeat(np.arange(n_groups), sizes)
    cluster = rng.integers(rng.integers(1, MOST_CLUSTERS + 1, size=n_groups)[of_group])
    means = rng.normal(scale=4, size=(n_groups, MOST_CLUSTERS, 2))[of_group, cluster]
    factors = rng.normal(size=(n_groups, MOST_CLUSTERS, 2, 2))[of_group, cluster]
    x = means + np.einsum("nij,nj->ni", factors, rng.normal(size=(len(of_group), 2)))
    bad = rng.choice(n_groups, n_groups // 100, replace=False)
    x[np.searchsorted(of_group, bad), 0] = np.nan
    names = pd.DataFrame({"plate": [f"P{b // 384 + 1:02}" for b in range(n_groups)]})
    names["well"] = [WELLS[b % 384] for b in range(n_groups)]
    df = names.iloc[of_group].reset_index(drop=True)
    df["GFP"], df["mCherry"] = 10 + x[:, 0], 500 + 60 * x[:, 1]
    return df


def written(found: GroupFits, df: pd.DataFrame, path: Path) -> dict[str, Any]:
    """Size, and seconds to write: the first time, which compiles the checks of the fits, and again."""
    seconds, processor = [], []
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        write_report(found, df, path, title="A screen", overwrite=True)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return {
        "megabytes": path.stat().st_size / 1e6,
        "seconds_first": seconds[0],
        "seconds": min(seconds[1:]),
        "processor_seconds": min(processor[1:]),
    }


def browsed(path: Path) -> dict[str, Any]:
    """Milliseconds in headless Chromium, or why there are none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return {"error": "no Chromium is here"}
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (only some machines have it)

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        usable = [_opened(browser, path)[1] for _ in range(3)]
        page, _ = _opened(browser, path)
        deeds = {name: [page.evaluate(TIMED, deed) for _ in range(5)] for name, deed in DEEDS.items()}
        page.evaluate("closeGroup()")
        scrolled = {name: _scrolled(page, name) for name in ("table", "pictures")}
        found = {
            "chromium": browser.version,
            "usable": median(usable),
            "deeds": {name: median(times) for name, times in deeds.items()},
            "frame": scrolled,
            "heap_megabytes": page.evaluate("performance.memory.usedJSHeapSize / 1e6"),
        }
        browser.close()
    return found


def _opened(browser: Any, path: Path) -> tuple[Any, float]:
    """The page, and milliseconds from the start of loading until the table answers."""
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.goto(path.as_uri())
    while not page.evaluate("performance.getEntriesByName('usable').length"):
        page.wait_for_timeout(10)
    return page, page.evaluate("performance.getEntriesByName('usable')[0].startTime")


def _scrolled(page: Any, view: str) -> dict[str, float]:
    page.evaluate(f"setView('{view}'); document.getElementById('scroller').scrollTop = 0")
    page.wait_for_timeout(500)
    times = page.evaluate(SCROLLED, [FRAMES, 100])
    return {"median": median(times), "95%": quantiles(times, n=20)[-1], "longest": max(times)}


if __name__ == "__main__":
    main()
