"""Jobs: what a process leaves behind when it ends at any moment, and what the next one makes of it."""

import json
import os
import pickle
import re
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxgmm.tables import files, job, job_files

NAMES, ASKED = ["models", "fits"], {"k": [1, 2], "tol": 1e-5}
N_PARTS = 3


def of_part(part):
    return {"fits": pa.table({"part": [part, part]}), "models": pa.table({"name": [f"m{part}"]})}


def do(out, *, resume=False, asked=ASKED, stop_after=None):
    """Does a job, or stops; returns the parts that were done now."""
    done = []
    with job.begun(out, NAMES, asked, resume=resume) as begun:
        for part in range(N_PARTS):
            if part == stop_after:
                raise KeyboardInterrupt
            if not begun.is_done(part):
                begun.keep(part, of_part(part))
                done.append(part)
        begun.finish(N_PARTS)
    return done


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check_whole(out):
    assert files_in(out) == ["fits.parquet", "models.parquet"]
    assert pq.read_table(out / "fits.parquet")["part"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert pq.read_table(out / "models.parquet")["name"].to_pylist() == ["m0", "m1", "m2"]


def test_tables_are_those_of_all_parts_and_say_what_was_asked_for(tmp_path):
    assert do(tmp_path / "new" / "out") == [0, 1, 2]
    check_whole(tmp_path / "new" / "out")
    assert job_files.description_of(tmp_path / "new" / "out" / "fits.parquet") == ASKED


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_job_goes_on_where_it_was(tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=stop_after)
    assert not (tmp_path / "fits.parquet").exists()
    assert do(tmp_path, resume=True) == list(range(stop_after, N_PARTS))
    check_whole(tmp_path)


def test_a_job_without_a_finished_part_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "new" / "out", stop_after=0)
    assert list(tmp_path.iterdir()) == []


def places(monkeypatch, stop_at):
    """Ends the process, as it were, just before change number `stop_at` of the directory."""
    n_changes = 0

    def counted(change):
        def changed(*args, **kwargs):
            nonlocal n_changes
            n_changes += 1
            if n_changes >= stop_at:
                # From here on the process does nothing any more, not even tidy up.
                raise _Killed
            return change(*args, **kwargs)

        return changed

    for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (Path, "rmdir")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    for name in ("rmtree",):
        monkeypatch.setattr(job.shutil, name, counted(getattr(job.shutil, name)))
    return lambda: n_changes


class _Killed(BaseException):
    pass


def test_a_job_killed_at_any_change_is_finished_by_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count = places(patch, 10**9)
        do(tmp_path / "uninterrupted")
    assert count() > 10
    for stop_at in range(1, count() + 1):
        out = tmp_path / f"{stop_at}"
        with monkeypatch.context() as patch:
            places(patch, stop_at)
            with pytest.raises(_Killed):
                do(out)
        kept = {path.name for path in out.glob(f"{job_files.UNFINISHED}/??????") if path.name.isdecimal()}
        if not job_files.is_finished(out, NAMES, ASKED):
            done = do(out, resume=True)
            assert {f"{part:06}" for part in done} == {f"{part:06}" for part in range(N_PARTS)} - kept
        check_whole(out)


def test_a_finished_job_is_known_by_what_was_asked_for(tmp_path):
    assert not job_files.is_finished(tmp_path, NAMES, ASKED)
    do(tmp_path)
    assert job_files.is_finished(tmp_path, NAMES, ASKED)
    assert not job_files.is_finished(tmp_path, NAMES, ASKED | {"tol": 1e-4})


def test_another_job_is_refused_by_what_differs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=1)
    with pytest.raises(ValueError, match=r"was begun with tol 1e-05, not 0\.1; ask for the same again, or remove it"):
        do(tmp_path, resume=True, asked=ASKED | {"tol": 0.1})
    with pytest.raises(ValueError, match="was begun with new left out, not 1"):
        do(tmp_path, resume=True, asked=ASKED | {"new": 1})
    with pytest.raises(FileExistsError, match="unfinished job; continue it with --resume"):
        do(tmp_path)
    assert do(tmp_path, resume=True) == [1, 2]
    with pytest.raises(ValueError, match=r"was begun with tol 1e-05, not 0\.1; ask for the same again, or remove it"):
        do(tmp_path, resume=True, asked=ASKED | {"tol": 0.1})


def test_existing_tables_are_left_alone(tmp_path):
    (tmp_path / "fits.parquet").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="exists already; remove it"):
            do(tmp_path, resume=resume)
    assert files_in(tmp_path) == ["fits.parquet"]


def test_two_processes_do_not_share_a_job(tmp_path):
    if job.fcntl is None:
        pytest.skip("the system has no locks of this kind")
    with job.begun(tmp_path, NAMES, ASKED, resume=False) as first:
        first.keep(0, of_part(0))
        with (
            pytest.raises(FileExistsError, match="another process is at work"),
            job.begun(tmp_path, NAMES, ASKED, resume=True),
        ):
            pass
        assert first.is_done(0)


def test_of_two_processes_that_make_the_same_part_at_the_same_time_the_first_is_kept(tmp_path, monkeypatch):
    """The other one's appears when this one is complete, and has only to be renamed."""
    rename, other = Path.rename, {name: pa.table({"other": [0]}) for name in NAMES}

    def after_the_other(path, place):
        monkeypatch.setattr(Path, "rename", rename)
        elsewhere.keep(0, other)
        return path.rename(place)

    with job.begun(tmp_path, NAMES, ASKED, resume=False) as begun:
        elsewhere = pickle.loads(pickle.dumps(begun))
        monkeypatch.setattr(Path, "rename", after_the_other)
        begun.keep(0, of_part(0))
        assert begun.is_done(0)
        assert pq.read_table(begun.directory / "000000" / "fits.parquet").equals(other["fits"])
        assert not list(begun.directory.glob("*.partial"))


def test_an_unreadable_description_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / job_files.UNFINISHED).mkdir()
    (tmp_path / job_files.UNFINISHED / "job.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read; remove"):
        do(tmp_path, resume=True)


def test_a_full_disk_keeps_the_parts_that_are_done(tmp_path, monkeypatch):
    write, calls = files.pq.ParquetWriter.write_table, []

    def full(self, table):
        calls.append(table)
        if len(calls) > 2:
            raise OSError(28, os.strerror(28))
        write(self, table)

    with monkeypatch.context() as patch:
        patch.setattr(files.pq.ParquetWriter, "write_table", full)
        with pytest.raises(OSError, match="No space"):
            do(tmp_path)
    assert do(tmp_path, resume=True) == [1, 2]
    check_whole(tmp_path)


def test_parts_that_nobody_describes_are_not_taken_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=2)
    (tmp_path / job_files.UNFINISHED / "job.json").unlink()
    assert do(tmp_path, asked=ASKED | {"tol": 1.0}) == [0, 1, 2]
    check_whole(tmp_path)


def test_an_interrupt_waits_for_the_part_that_is_being_kept(tmp_path, monkeypatch):
    writing, may_go_on = threading.Event(), threading.Event()
    written = files.written

    def slow(*args, **kwargs):
        writing.set()
        may_go_on.wait(10)
        return written(*args, **kwargs)

    def interrupted():
        with job.begun(tmp_path, NAMES, ASKED, resume=False) as begun:
            thread = threading.Thread(target=begun.keep, args=(0, of_part(0)))
            thread.start()
            writing.wait(10)
            threading.Timer(0.2, may_go_on.set).start()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "written", slow)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert job_files.n_done(tmp_path) == 1
    assert do(tmp_path, resume=True) == [1, 2]
    check_whole(tmp_path)


def cut_short(part):
    path = part / "fits.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def changed(part):
    """One byte of another value, where a table has its numbers."""
    path = part / "fits.parquet"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(bytes(content))


def exchanged(part):
    shutil.rmtree(part)
    shutil.copytree(part.with_name("000000"), part)


DAMAGE = {
    "cut short": cut_short,
    "changed": changed,
    "empty file": lambda part: (part / "models.parquet").write_bytes(b""),
    "garbage": lambda part: (part / "fits.parquet").write_bytes(b"PAR1 garbage PAR1"),
    "lacks a table": lambda part: (part / "models.parquet").unlink(),
    "lacks all": lambda part: [file.unlink() for file in part.iterdir()],
    "a directory in a table's place": lambda part: [(part / "fits.parquet").unlink(), (part / "fits.parquet").mkdir()],
    "another schema": lambda part: pq.write_table(pa.table({"other": [1, 1]}), part / "fits.parquet"),
    "fewer rows": lambda part: pq.write_table(pa.table({"part": [1]}), part / "fits.parquet"),
    "another part": exchanged,
    "no digests": lambda part: (part / "part.json").unlink(),
    "digests cut short": lambda part: (part / "part.json").write_text("{"),
    "digests of another form": lambda part: (part / "part.json").write_text('{"files": {"fits.parquet": 3}}'),
    "digests of nothing": lambda part: (part / "part.json").write_text('{"part": 1, "files": {}}'),
    "a file": lambda part: [shutil.rmtree(part), part.write_bytes(b"")],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_part_is_made_again(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=2)
    damage(tmp_path / job_files.UNFINISHED / "000001")
    assert do(tmp_path, resume=True) == [1, 2]
    check_whole(tmp_path)


def test_a_part_of_another_job_is_made_again(tmp_path):
    """As of a task that runs on when its directory has been removed, and another job begun in its place."""
    other = ASKED | {"tol": 1.0}
    for name, asked in (("one", ASKED), ("other", other)):
        with pytest.raises(KeyboardInterrupt):
            do(tmp_path / name, asked=asked, stop_after=2)
    place = tmp_path / "other" / job_files.UNFINISHED / "000001"
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "one" / job_files.UNFINISHED / "000001", place)
    assert do(tmp_path / "other", resume=True, asked=other) == [1, 2]


def test_parts_are_counted_without_those_that_lack_something(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=2)
    assert job_files.n_done(tmp_path) == 2
    cut_short(tmp_path / job_files.UNFINISHED / "000001")
    assert job_files.n_done(tmp_path) == 1


def test_a_part_damaged_while_others_are_made_ends_the_job_with_the_remedy(tmp_path):
    def interfered():
        with job.begun(tmp_path, NAMES, ASKED, resume=False) as begun:
            for part in range(N_PARTS):
                begun.keep(part, of_part(part))
            cut_short(tmp_path / job_files.UNFINISHED / "000001")
            begun.finish(N_PARTS)

    with pytest.raises(OSError, match="000001 was damaged or removed; resume the job to make it again"):
        interfered()
    assert not (tmp_path / "fits.parquet").exists()
    assert do(tmp_path, resume=True) == [1]
    check_whole(tmp_path)


@pytest.mark.parametrize("before", ["keep", "finish"])
def test_a_directory_removed_while_the_job_runs_is_one_line_with_the_remedy(tmp_path, before):
    out = tmp_path / "out"

    def interfered():
        with job.begun(out, NAMES, ASKED, resume=False) as begun:
            begun.keep(0, of_part(0))
            shutil.rmtree(out)
            if before == "keep":
                begun.keep(1, of_part(1))
            begun.finish(1)

    with pytest.raises(
        OSError, match=r"removed: leave it in its place, and begin anew\.|removed; resume the job"
    ) as caught:
        interfered()
    assert str(out / job_files.UNFINISHED) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_that_names_the_path(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, os.strerror(28))

    for owner, name in ((Path, "mkdir"), (files.pq.ParquetWriter, "write_table"), (Path, "rename"), (os, "fsync")):
        out = tmp_path / name
        with job.begun(out, NAMES, ASKED, resume=False) as begun:
            begun.keep(0, of_part(0))
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, full)
                with pytest.raises(
                    OSError, match=r"cannot be written \(No space left on device\); free some room"
                ) as caught:
                    begun.keep(1, of_part(1))
        assert str(caught.value).startswith(str(out / job_files.UNFINISHED))
        assert str(caught.value).count("No space") == 1


def test_a_file_in_the_place_of_the_job_is_refused(tmp_path):
    (tmp_path / job_files.UNFINISHED).write_text("mine")
    with pytest.raises(OSError, match=r"\.unfinished cannot be written .*something else is in its place: remove that"):
        do(tmp_path)


def test_a_job_begun_by_another_version_is_refused_in_words(tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "data" / "version_0_1_0" / "unfinished", tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    asked = json.loads((tmp_path / "out" / job_files.UNFINISHED / "job.json").read_text())
    # Whatever else a later version asks for, it is the version that is named.
    later = {"new": 1, **asked, "jaxgmm": "12.3.4", "tol": 1.0}
    words = (
        "was begun by jaxgmm '0.1.0', and this is '12.3.4'; continue with the version that began it, or remove it to"
    )
    with (
        pytest.raises(ValueError, match=re.escape(words)),
        job.begun(tmp_path / "out", ["components", "fits"], later, resume=True),
    ):
        pass
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "[" * 100_000, "\xff"])
def test_a_description_that_is_none_is_one_line_with_the_remedy(tmp_path, content):
    (tmp_path / job_files.UNFINISHED).mkdir()
    (tmp_path / job_files.UNFINISHED / "job.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read; remove"):
        do(tmp_path, resume=True)


def test_what_differs_is_said_in_few_words(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, stop_after=1, asked=ASKED | {"features": ["x" * 90] * 90})
    with pytest.raises(ValueError, match="was begun with features") as caught:
        do(tmp_path, resume=True, asked=ASKED | {"features": ["y" * 90] * 90})
    assert len(str(caught.value)) < 700


def leave_apart(out):
    with job.begun(out, NAMES, ASKED, resume=False) as begun:
        for part in range(N_PARTS):
            begun.keep(part, of_part(part))
        begun.leave_apart(N_PARTS)


def join(out):
    asked, names, n_parts = job_files.left_apart(out)
    with job.begun(out, names, asked, resume=True) as begun:
        begun.finish(n_parts)


def test_parts_that_were_left_apart_are_joined(tmp_path):
    leave_apart(tmp_path)
    assert job_files.left_apart(tmp_path) == (ASKED, tuple(NAMES), N_PARTS)
    assert job_files.is_left_apart(tmp_path, NAMES, ASKED)
    assert not job_files.is_left_apart(tmp_path, NAMES, ASKED | {"tol": 1.0})
    join(tmp_path)
    check_whole(tmp_path)
    assert job_files.left_apart(tmp_path) is None


@pytest.mark.parametrize("lost", range(N_PARTS))
def test_parts_are_not_joined_without_one_that_is_lost(tmp_path, lost):
    leave_apart(tmp_path)
    shutil.rmtree(tmp_path / "parts" / f"{lost:06}")
    assert not job_files.is_left_apart(tmp_path, NAMES, ASKED)
    # As often as it is tried.
    for _ in range(2):
        with pytest.raises(OSError, match=f"{lost:06} was damaged or removed"):
            join(tmp_path)
    assert do(tmp_path, resume=True) == [lost]
    check_whole(tmp_path)


def test_an_interrupt_does_not_wait_for_tables_to_be_joined(tmp_path, monkeypatch):
    acquired = []

    def interrupted(begun, _name, _n_parts):
        # As the thread that handles the interrupt does, while another joins.
        def stop():
            acquired.append(begun.mutex.acquire(timeout=10))
            begun.mutex.release()

        stopping = threading.Thread(target=stop)
        stopping.start()
        stopping.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(job.Job, "_joined", interrupted)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path)
    monkeypatch.undo()
    assert acquired == [True]
    assert do(tmp_path, resume=True) == []
    check_whole(tmp_path)
