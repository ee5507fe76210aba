"""A job that can be resumed: its finished parts are kept in a directory until all are joined.

    OUT/.unfinished/job.json     the request: options and file
    OUT/.unfinished/plan.arrow   its groups and parts
    OUT/.unfinished/000007/      the tables of part 7, complete as soon as the directory has this name
    OUT/.unfinished/000007/part.json    their sizes and digests, and a digest of the request
    OUT/.unfinished/stream.safetensors  where passes over the whole table stand, if it is read in passes
    OUT/.unfinished/manifest.jsonl      a line for each part, in the order in which they were done
    OUT/fits.parquet, …          all parts, joined, once the last is done; their metadata holds the request
    OUT/parts/                   all parts, not joined, if they are to stay apart
    OUT/parts/tables.json        names of the tables, and the number of parts

Files and directories get their names only when they are complete, by renaming, so that a process may be killed at any
moment: anything that has its name is complete, and anything else is redone. So is a part that has changed since.
"""

import json
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from jaxgmm.tables import atomic, files, job_files, seals
from jaxgmm.tables.requests import Differing, check_same, differing

try:
    import fcntl
except ImportError:
    # Windows lacks it; there, two processes could resume the same job.
    fcntl = None

_LOCK, _PLAN, _MANIFEST = "lock", "plan.arrow", "manifest.jsonl"
_CHECKPOINT, _PARTIAL = "stream.safetensors", ".partial"


class Job(NamedTuple):
    """A job in a directory.

    Attributes:
        out: directory of its tables.
        names: of the tables, without suffix; the last is put in place last.
        description: the request: numbers, texts, lists and dicts of them.
        mutex: held by a thread while it changes the directory.
    """

    out: Path
    names: tuple[str, ...]
    description: Mapping[str, Any]
    mutex: Any

    def __reduce__(self) -> tuple:
        """In another process, which has its own threads, a job has a mutex of its own."""
        return _elsewhere, (self.out, self.names, dict(self.description))

    @property
    def directory(self) -> Path:
        """The directory of the parts until all are done."""
        return self.out / job_files.UNFINISHED

    @property
    def plan(self) -> Path:
        """Where its plan is kept; see `jaxgmm.tables.plans`."""
        return self.directory / _PLAN

    @property
    def checkpoint(self) -> Path:
        """Where passes over a table that is read in passes are kept; see `jaxgmm.fit_stream`."""
        return self.directory / _CHECKPOINT

    def is_done(self, part: int) -> bool:
        """Whether a part has been kept and is unchanged since. This reads its files."""
        return job_files.is_whole(self.directory, part, self.names, self.description)

    @property
    def n_done(self) -> int:
        """The number of parts that have been kept."""
        return job_files.n_done(self.out)

    def keep(self, part: int, of_part: Mapping[str, pa.Table]) -> None:
        """Keeps the tables of a part. If several processes make the same part, the first is kept.

        Raises:
            OSError: the disk refuses.
        """
        place = self._part(part)
        aside = self.directory / f"{place.name}.{uuid.uuid4().hex}{_PARTIAL}"
        with self.mutex:
            with atomic.refusals(aside):
                aside.mkdir()
            for name in self.names:
                with files.written(aside / f"{name}.parquet", of_part[name].schema) as writer:
                    writer.write_table(of_part[name])
            seals.seal(aside, job_files.mark(part, self.description))
            with atomic.refusals(place):
                self._put(aside, part)

    def _put(self, aside: Path, part: int) -> None:
        """Gives a complete directory the name of its part, unless another process has been first."""
        place = self._part(part)
        try:
            aside.rename(place)
        except OSError:
            if not place.exists():
                raise
            if self.is_done(part):
                _cleared(aside)
                return
            # A part that has changed since it was kept is redone.
            _cleared(place)
            aside.rename(place)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Adds a line about a part to the manifest."""
        with self.mutex, atomic.refusals(self.directory), (self.directory / _MANIFEST).open("a") as manifest:
            manifest.write(f"{json.dumps(entry)}\n")

    def leave_apart(self, n_parts: int) -> None:
        """Puts the parts in place as they are, in a directory of their own.

        Raises:
            OSError: the disk refuses, or a part has changed since it was kept.
        """
        with self.mutex:
            self._check_parts(n_parts)
            with atomic.refusals(self.out / job_files.APART):
                for path in self.directory.iterdir():
                    if path.name not in (job_files.JOB, _PLAN, _MANIFEST) and not path.name.isdecimal():
                        _cleared(path)
                _write_json(self.directory / job_files.TABLES, {"names": self.names, "parts": n_parts})
                self.directory.rename(self.out / job_files.APART)

    def _check_parts(self, n_parts: int) -> None:
        for part in range(n_parts):
            if not self.is_done(part):
                raise OSError(f"{self._part(part)} was damaged or removed; resume the job to make it again.")

    def finish(self, n_parts: int) -> None:
        """Joins the tables of all parts, puts them in place, and removes the parts.

        Raises:
            OSError: the disk refuses, or a part has changed since it was kept.
        """
        self._check_parts(n_parts)
        for name in self.names:
            # An interrupt need not wait for this: what is not complete is made again.
            joined, place = self._joined(name, n_parts), self.out / f"{name}.parquet"
            with self.mutex, atomic.refusals(place):
                joined.replace(place)
        with self.mutex, atomic.refusals(self.directory):
            _removed(self.directory)

    def _joined(self, name: str, n_parts: int) -> Path:
        """The tables of this name of all parts, joined in the job's directory."""
        path = self.directory / f"{name}.parquet"
        parts = [self._part(part) / path.name for part in range(n_parts)]
        described = {job_files.METADATA: json.dumps(self.description).encode()}
        schema = pq.read_schema(parts[0])
        with files.written(path, schema.with_metadata({**(schema.metadata or {}), **described})) as writer:
            for part in parts:
                with files.opened(part) as file:
                    writer.write_table(file.read())
        return path

    def stop(self) -> None:
        """Waits for a change in progress, and prevents further changes by other threads."""
        self.mutex.acquire()

    def _part(self, part: int) -> Path:
        return job_files.place(self.directory, part)


def _elsewhere(out: Path, names: tuple[str, ...], description: Mapping[str, Any]) -> Job:
    return Job(out, names, description, threading.RLock())


@contextmanager
def begun(
    out: str | Path,
    names: Sequence[str],
    description: Mapping[str, Any],
    *,
    resume: bool,
    differing: Differing = differing,
) -> Iterator[Job]:
    """Begins or resumes a job, locked to this process.

    Args:
        out: directory of the tables; created if it does not exist.
        names: of the tables, without suffix.
        description: the request; JSON.
        resume: whether to continue a job begun earlier in this directory, if there is one.
        differing: says how the job begun earlier differs from this one.

    Raises:
        OSError: tables of these names exist already, or another process is working on them.
        ValueError: a different job was begun there.
    """
    job = _elsewhere(Path(out), tuple(names), json.loads(json.dumps(description)))
    _take_up(job, differing, resume=resume)
    if not job.directory.is_dir():
        finished = job_files.description_of(job.out / f"{job.names[0]}.parquet") if resume else None
        if finished is not None:
            check_same(job.out, finished, job.description, differing)
        files.check_absent(job.out, job.names)
    missing = [path for path in job.directory.absolute().parents if not path.exists()]
    with atomic.refusals(job.directory):
        job.directory.mkdir(parents=True, exist_ok=True)
    with _alone(job):
        if not _is_begun(job, differing, resume=resume):
            files.check_absent(job.out, job.names)
            # Parts without a description may belong to any job.
            with atomic.refusals(job.directory):
                _emptied(job.directory)
            _describe(job)
        for left in job.directory.glob(f"*{_PARTIAL}"):
            _cleared(left)
        try:
            yield job
        finally:
            job.stop()
            # Without a finished part, or a part of a pass, there is nothing to resume.
            if job.n_done == 0 and not job.checkpoint.exists() and job.directory.is_dir():
                _removed(job.directory)
            for made in missing:
                if made.is_dir() and not any(made.iterdir()):
                    made.rmdir()


def _take_up(job: Job, differing: Differing, *, resume: bool) -> None:
    """Makes parts that were left apart those of an unfinished job again."""
    apart = job.out / job_files.APART
    if not apart.is_dir():
        return
    if not resume:
        raise FileExistsError(f"{apart} exists already; remove it, or name another directory.")
    check_same(apart, job_files.description_apart(job.out) or {}, job.description, differing)
    with atomic.refusals(job.directory):
        apart.rename(job.directory)


def _is_begun(job: Job, differing: Differing, *, resume: bool) -> bool:
    """Whether this job was begun earlier; raises if another was."""
    file = job.directory / job_files.JOB
    if not file.is_file():
        return False
    if not resume:
        raise FileExistsError(
            f"{job.directory} holds an unfinished job; continue it with --resume (resume=True), or remove it to begin "
            "anew."
        )
    before = seals.json_of(file)
    if before is None:
        raise ValueError(f"{file} cannot be read; remove {job.directory} to begin anew.")
    check_same(job.directory, before, job.description, differing)
    return True


def _cleared(path: Path) -> None:
    """Removes a file or directory, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _removed(directory: Path) -> None:
    """Removes a job's directory, renaming it first: half of one would be taken for a job."""
    aside = directory.with_name(job_files.REMOVED)
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _emptied(directory: Path) -> None:
    """Removes what a killed process left in a job's directory and beside it."""
    shutil.rmtree(directory.with_name(job_files.REMOVED), ignore_errors=True)
    for path in directory.iterdir():
        if path.name != _LOCK:
            _cleared(path)


def _describe(job: Job) -> None:
    _write_json(job.directory / job_files.JOB, job.description)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic.written(path) as file:
        file.write(json.dumps(value, indent=1).encode())


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Locks a job against other processes; the system releases the lock when the process ends, in whatever way."""
    with ExitStack() as stack:
        with atomic.refusals(job.directory):
            lock = stack.enter_context((job.directory / _LOCK).open("w"))
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise FileExistsError(f"another process is at work in {job.directory}; wait for it.") from None
        yield
