"""Tables on a Ray cluster: the answers of one process, whatever is killed meanwhile."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from jaxgmm import __version__, cli, distributed
from jaxgmm.jobs import request
from jaxgmm.jobs.cluster import check_answers, check_versions
from jaxgmm.tables import job_files, places, ranges, rows, shuffle

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    # Ray's own.
    pytest.mark.filterwarnings("default"),
]

N_GROUPS, ROWS_PER_PART = 24, 150
FEATURES = ["red", "green"]
# A fixed number of iterations, so that a part takes some time.
OPTIONS = {"n_init": 2, "precision": "float64", "tol": 0, "max_iter": 400, "key": 3}
TYPED = ["--starts", "2", "--precision", "float64", "--tol", "0", "--max-iter", "400", "--seed", "3"]
COMMAND = ["fit", "cells.parquet", "--by", "well", "--features", "red,green", "--components", "2", *TYPED]


def table():
    """Groups of two clusters in no order; in one a value is missing, and another is too small."""
    draw, sizes = np.random.default_rng(0), [1, *range(25, 25 + N_GROUPS - 1)]
    well = np.repeat([f"w{i:02}" for i in range(N_GROUPS)], sizes)
    x = draw.normal(size=(len(well), 2)) + 6 * draw.integers(2, size=(len(well), 1))
    x[np.flatnonzero(well == "w05")[3], 0] = np.nan
    order = draw.permutation(len(well))
    return pa.table({"well": well[order], "red": x[order, 0], "green": x[order, 1]})


@pytest.fixture(scope="module")
def _environment():
    """That of all processes."""
    kept = str(Path(__file__).parents[1] / ".pytest_cache" / "jax-cluster")
    own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    own["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("JAX_COMPILATION_CACHE_DIR", kept)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def cluster(_environment):
    """Two workers on this machine; gives the address."""
    import ray

    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    ray.init("local", num_cpus=2, _node_ip_address="127.0.0.1", object_store_memory=80_000_000, **quiet)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory, _environment):
    """The tables of the command on one core."""
    folder = tmp_path_factory.mktemp("expected")
    pq.write_table(table(), folder / "cells.parquet")
    words = [sys.executable, "-m", "jaxgmm", *COMMAND, "--threads", "1", "--out", "out"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return {name: pq.read_table(folder / "out" / f"{name}.parquet") for name in ("fits", "components")}


@pytest.fixture
def here(tmp_path, monkeypatch, cluster):
    """A folder with the table, whose rows and keys are counted in several ranges, and which is cut into some parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(request, "_ROWS", ROWS_PER_PART)
    monkeypatch.setattr(ranges, "_NUMBERS", 3 * 250)
    monkeypatch.setattr(shuffle, "_ROWS", 300)
    pq.write_table(table(), "cells.parquet")
    return tmp_path


def fitted(source="cells.parquet", features=FEATURES, **options):
    return distributed.fit_table(source, "well", features, 2, **{"out": "out"} | OPTIONS | options)


def entries(path):
    """The lines of a manifest, so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def first_entry(path):
    """The first line of a manifest, as soon as it is there."""
    until = time.monotonic() + 120
    while not entries(path):
        assert time.monotonic() < until, "no part was done in two minutes"
        time.sleep(0.01)
    return entries(path)[0]


def check_tables(found, expected):
    for name, one in expected.items():
        assert pa.concat_tables(pq.read_table(path) for path in found.paths(name)).equals(one)


@pytest.mark.slow
def test_answers_are_those_of_the_command_bit_for_bit_and_bad_groups_have_a_status(here, expected):
    told = []
    found = fitted(progress=lambda *counts: told.append(counts))
    assert (found.n_groups, found.n_fitted) == (N_GROUPS, N_GROUPS)
    assert len(found.paths("fits")) > 4
    check_tables(found, expected)
    status = dict(zip(*(expected["fits"][name].to_pylist() for name in ("well", "status")), strict=True))
    assert (status["w00"], status["w05"], status["w01"]) == ("TOO_FEW_SAMPLES", "NONFINITE", "MAX_ITER")
    assert told[-1] == (N_GROUPS, N_GROUPS)
    parts = [entry["part"] for entry in entries(here / "out" / "parts" / "manifest.jsonl")]
    assert sorted(parts) == list(range(len(found.paths("fits"))))

    # Nothing is done twice, and nothing overwritten.
    assert fitted(resume=True).n_fitted == 0
    with pytest.raises(FileExistsError, match="parts exists already"):
        fitted()
    with pytest.raises(ValueError, match="parts was begun with key 3, not 4"):
        fitted(resume=True, key=4)
    distributed.join("out")
    assert sorted(path.name for path in (here / "out").iterdir()) == ["components.parquet", "fits.parquet"]
    check_tables(found, expected)
    assert fitted(resume=True, join=True).n_fitted == 0
    assert fitted(resume=True).paths("fits") == [here / "out" / "fits.parquet"]


@pytest.mark.slow
def test_workers_read_a_table_at_a_uri(here, expected):
    check_tables(fitted((here / "cells.parquet").as_uri()), expected)


@pytest.mark.slow
def test_tables_at_uris_are_those_at_paths_and_credentials_are_not_recorded(tmp_path, monkeypatch):
    pq.write_table(table(), tmp_path / "cells.parquet")
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(places, "opened", lambda _: (system, ""))
    options = OPTIONS | {"max_iter": 3, "n_init": 1, "engine": "process"}
    uri = "s3://key:s3cret@bucket/cells.parquet?region=x"
    for call in (distributed.fit_table, distributed.sweep_table):
        outs = [tmp_path / f"{call.__name__}{number}" for number in range(2)]
        own, path = (
            call(at, "well", FEATURES, 2, out=out, **options)
            for at, out in zip((uri, tmp_path / "cells.parquet"), outs, strict=True)
        )
        check_tables(own, {name: pa.concat_tables(map(pq.read_table, path.paths(name))) for name in path.names})
        assert job_files.description_apart(own.out) == job_files.description_apart(path.out)
        assert not [file for file in own.out.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_nothing(here, expected):
    """The table is in two files here, which changes nothing either."""
    found, whole = [], table()
    Path("cells").mkdir()
    pq.write_table(whole.slice(0, 300), "cells/1.parquet")
    pq.write_table(whole.slice(300), "cells/2.parquet")
    running = threading.Thread(target=lambda: found.append(fitted("cells", join=True)))
    running.start()
    os.kill(first_entry(here / "out" / ".unfinished" / "manifest.jsonl")["process"], signal.SIGKILL)
    running.join(120)
    check_tables(found[0], expected)


DRIVER = f"""
import sys
from jaxgmm import cli
from jaxgmm.jobs import request

request._ROWS = {ROWS_PER_PART}
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_what_was_done_before_the_driver_was_killed_is_not_done_again(here, expected, cluster, capsys):
    words = [sys.executable, "-c", DRIVER, *COMMAND, "--out", "out", "--ray", cluster]
    manifest = here / "out" / ".unfinished" / "manifest.jsonl"
    with subprocess.Popen(words, stderr=subprocess.PIPE) as driver:
        first_entry(manifest)
        driver.kill()
    before = entries(manifest)
    assert not (here / "out" / "fits.parquet").exists()
    assert cli.main([*COMMAND, "--out", "out", "--ray", "auto", "--resume", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    # Parts may have been kept and not told.
    assert 0 < answer["fitted"] <= N_GROUPS - sum(entry["groups"] for entry in before) < N_GROUPS
    for name, one in expected.items():
        assert pq.read_table(here / "out" / f"{name}.parquet").equals(one)


@pytest.mark.slow
def test_a_part_that_cannot_be_read_is_named(here, monkeypatch):
    """Its last row group is damaged; only keys and the first rows are read before parts are fitted."""
    monkeypatch.setattr(rows, "_BLOCK", 50)
    pq.write_table(table().sort_by("well"), "cells.parquet", row_group_size=50)
    column = pq.ParquetFile("cells.parquet").metadata.row_group(15).column(1)
    with Path("cells.parquet").open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(b"\xff" * column.total_compressed_size)
    with pytest.raises(ValueError, match=r"^part \d+ could not be done: .*cells.parquet cannot be read as Parquet"):
        fitted()


@pytest.mark.slow
def test_a_ray_dataset_is_written_in_its_order(here, expected):
    from ray import data

    data.DataContext.get_current().enable_progress_bars = False
    rows = data.from_arrow([table().slice(first, 97) for first in range(0, table().num_rows, 97)])
    with pytest.raises(ValueError, match="the table has no column 'blue'; its columns are well, red, green"):
        distributed.fit_table(rows, "well", ["blue"], 2, out="out")
    assert not Path("out.rows").exists()
    found = fitted(rows)
    assert pq.read_table("out.rows")["green"].equals(table()["green"])
    check_tables(found, expected)
    assert fitted(rows, resume=True).n_fitted == 0
    with pytest.raises(FileExistsError, match=r"out\.rows exists already; remove it"):
        fitted(rows)


def test_misuse_is_refused_before_a_cluster_is_sought(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(), "cells.parquet")
    Path("cells.csv").write_text("well,red,green\na,1,2\n")
    for words, given in {
        "engine must be one of 'process', 'ray'; got 'dask'": {"engine": "dask"},
        "n_init must be": {"n_init": 0},
        "order_by must be one of": {"order_by": "colour"},
        "key must be": {"key": "seed"},
        "avoid_spurious must be True or False; got 3": {"avoid_spurious": 3},
        "no table is named": {"source": []},
        "a table is named by paths and patterns; got 3": {"source": 3},
        "the table is in memory; fit it by jaxgmm.frames.fit_groups": {"source": table().to_pandas()},
        "address must be a text, such as 'auto', or None; got 3": {"address": 3},
        "output is named by a path; got 3": {"out": 3},
        "features must be the name of a column, or a sequence of names; got 3": {"features": 3},
        r"weights must be the name of a column; got \['red'\]": {"weights": ["red"]},
        "3 is not a valid condition: it is not a text": {"where": 3},
        "resume must be True or False; got 'no'": {"resume": "no"},
        "join must be True or False; got 'no'": {"join": "no"},
        "progress must be True, False or a function; got 3": {"progress": 3},
    }.items():
        with pytest.raises(ValueError, match=words):
            fitted(**given)
    for words, given in {
        "n_components must name at least one value; it is empty": {"n_components": []},
        "n_components must be an integer of at least 1, and less than 2.*; got 'a'": {"n_components": [1, "a"]},
        "covariance_type must name at least one value": {"covariance_type": ()},
        "criterion must be one of 'bic', .*; got 'bix'": {"criterion": "bix"},
        r"criterion must be one of .*; got \['bic'\]": {"criterion": ["bic"]},
        "n_folds must be an integer of at least 2; got 1": {"n_folds": 1},
        "patience must be an integer of at least 1; got 0": {"patience": 0},
        "split must be True or False; got 'x'": {"split": "x"},
    }.items():
        with pytest.raises(ValueError, match=words):
            distributed.sweep_table("cells.parquet", "well", FEATURES, out="out", **given)
    with pytest.raises(ValueError, match="a cluster reads Parquet, not CSV"):
        distributed.fit_table("cells.csv", "well", FEATURES, 2, out="out")
    for call in (distributed.fit_table, distributed.sweep_table):
        with pytest.raises(ValueError, match="s3: begins a URI; name a directory, and copy from there"):
            call("cells.parquet", "well", FEATURES, 2, out="s3://bucket/out")
    with pytest.raises(ValueError, match="no key column is named"):
        distributed.fit_table("cells.parquet", [], FEATURES, 2, out="out")
    assert not Path("out").exists()
    assert (
        cli.main(["fit", "cells.parquet", "--features", "red", "--components", "1", "--out", "out", "--ray", "auto"])
        == 2
    )


def test_an_address_at_which_nothing_answers_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_answers(address)
    for silent in (address, "127.0.0.1:99999"):
        with pytest.raises(OSError, match=f"no Ray cluster answers at '{silent}'; start one"):
            check_answers(silent)
    check_answers("auto")


def test_machines_with_other_versions_are_refused():
    versions = {name: version(name) for name in ("jax", "jaxlib", "numpy")} | {"jaxgmm": __version__}
    check_versions(versions)
    with pytest.raises(ValueError, match=r" has jax \S+, and the driver 0\.1; install the same versions on all"):
        check_versions(versions | {"jax": "0.1"})


@pytest.mark.slow
def test_parts_that_are_all_done_are_joined_without_a_cluster(tmp_path):
    """By a process of its own, which is connected to none: the one before was killed while it joined them."""
    pq.write_table(table(), tmp_path / "cells.parquet")
    options = OPTIONS | {"max_iter": 3}
    distributed.fit_table(
        tmp_path / "cells.parquet", "well", FEATURES, 2, out=tmp_path / "out", engine="process", **options
    )
    (tmp_path / "out" / "parts").rename(tmp_path / "out" / ".unfinished")
    words = [sys.executable, "-m", "jaxgmm", *COMMAND, "--max-iter", "3", "--out", "out", "--ray", "local", "--resume"]
    words[words.index("cells.parquet")] = str(tmp_path / "cells.parquet")
    ended = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "fits.parquet").exists()


def test_a_finished_job_is_not_touched_again(tmp_path, monkeypatch, capsys):
    """Others may be reading its parts; nor are groups counted again."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(), "cells.parquet")
    first = fitted(engine="process", max_iter=3)
    monkeypatch.setattr(distributed, "planned", None)
    again = fitted(engine="process", max_iter=3, resume=True)
    assert (again.n_groups, again.n_fitted) == (N_GROUPS, 0)
    assert again.paths("fits") == first.paths("fits")
    # Commands that take fits say so.
    for words in (["info", "out"], ["predict", "cells.parquet", "--fits", "out", "--out", "p.parquet"]):
        assert cli.main(words) == 2
        assert "the tables in out are in parts; join them by jaxgmm.distributed.join" in capsys.readouterr().err


def test_options_may_be_numpy_numbers(tmp_path):
    pq.write_table(table(), tmp_path / "cells.parquet")
    given = {"n_components": np.arange(1, 2), "key": np.int64(3), "tol": np.float64(0), "max_iter": np.int32(3)}
    source, out = tmp_path / "cells.parquet", tmp_path / "out"
    distributed.sweep_table(source, "well", FEATURES, out=out, engine="process", n_init=np.int64(1), **given)
    described = job_files.description_apart(out)
    assert described["n_components"] == [1]
    assert "n_replicates" not in described


@pytest.mark.slow
def test_a_sweep_has_the_tables_of_the_command(here):
    distributed.sweep_table(
        "cells.parquet", ["well"], FEATURES, [1, 2], out="out", n_init=2, precision="float64", join=True
    )
    words = [sys.executable, "-m", "jaxgmm", "sweep", *COMMAND[1:6], "--components", "1-2", "--starts", "2"]
    subprocess.run([*words, "--precision", "float64", "--threads", "1", "--out", "command"], check=True)
    for name in ("fits", "components", "models"):
        assert pq.read_table(f"out/{name}.parquet").equals(pq.read_table(f"command/{name}.parquet"))
        assert pq.read_schema(f"out/{name}.parquet").metadata == pq.read_schema(f"command/{name}.parquet").metadata


TWO_NODES = f"""
import signal, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from jaxgmm import distributed
from jaxgmm.jobs import request

signal.alarm(240)
request._ROWS = {ROWS_PER_PART}
node = {{"num_cpus": 1, "object_store_memory": 80_000_000}}
cluster = Cluster(initialize_head=True, head_node_args={{**node, "include_dashboard": False}})
other = cluster.add_node(**node)
cluster.wait_for_nodes()
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

def lose():
    manifest = Path("out/.unfinished/manifest.jsonl")
    while not manifest.exists():
        time.sleep(0.01)
    cluster.remove_node(other, allow_graceful=False)

losing = threading.Thread(target=lose)
losing.start()
distributed.fit_table("cells.parquet", "well", {FEATURES}, 2, out="out", join=True, **{OPTIONS})
losing.join()
# Ray may notice after the job has ended.
while all(node["Alive"] for node in ray.nodes()):
    time.sleep(0.1)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("_environment")
def test_a_machine_that_is_lost_changes_nothing(tmp_path, expected):
    pq.write_table(table(), tmp_path / "cells.parquet")
    words = [sys.executable, "-c", TWO_NODES]
    done = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stderr
    for name, one in expected.items():
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet").equals(one)
