"""The work of a run, in a folder that only its owner can read and that exists only while the run lasts.

files.jsonl   the files as the manifest lists them, with the secrets in URLs and headers
plan.json     the settings, the offsets of the chunks, and where Python looks for modules
chunks/       for each chunk a lock, and with an executor a file that the worker touches which waits for the chunk
progress/     snapshots of the files in flight
limits/       state of the limits that the processes of the run share
crashes       exists if a process of the run has crashed
coordinator   with an executor: touched every second by the process that submits the chunks
interrupted   with an executor: exists if the chunks are to end
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpp.errors import ConfigurationError
from dpp.manifest.catalog import Chunk, read_catalog, write_catalog
from dpp.manifest.entries import Entry
from dpp.models import FileData
from dpp.settings import Settings, make_settings
from dpp.shards import Census
from dpp.workspace.atomic import list_folder, read_json, stops_run, write_json
from dpp.workspace.locks import ChunkLock, held_error
from dpp.workspace.machine import current_folder

CRASHES = "crashes"
COORDINATOR = "coordinator"
INTERRUPTED = "interrupted"
BEAT_SECONDS = 1.0
_LOCK_SUFFIX = ".lock"


def chunk_name(index: int) -> str:
    """Return the name of a chunk's files, given its index in the run, from 0."""
    return f"{index:05d}"


class WorkFile:
    """The files, settings and chunks of a run.

    Args:
        folder: Path of the folder; all runs of a batch use the same one, one run at a time.
        run: Number of the run.
        label: Name of the run in messages.
    """

    def __init__(self, folder: Path, run: int, label: str) -> None:
        self.snapshots = folder / "progress"
        self.locks = folder / "chunks"
        self.limits = folder / "limits"
        self.folder = folder
        self._run = run
        self._label = label
        self._settings: Settings | None = None
        self._files: list[FileData] = []
        self._beat_due = 0.0

    def begin(
        self,
        source: str,
        entries: Iterator[Entry],
        settings: Settings,
        schemes: set[str],
        workers: int,
        census: Census | None = None,
    ) -> list[Chunk]:
        """Check the manifest and write its files.

        Args:
            source: Name of the manifest in messages.
            entries: Its entries as read.
            settings: The settings.
            schemes: URL schemes that can be fetched.
            workers: Number of processes that will work on the run.
            census: Counter of the entries, which finds those of the run's shard; None if it runs all files.

        Returns:
            The chunks, in the order of the manifest.

        Raises:
            ManifestError: Some entries are invalid; it lists all problems.
        """
        self.forget()
        with stops_run(self.folder):
            self.folder.mkdir(mode=0o700, parents=True)
            self.snapshots.mkdir()
            self.locks.mkdir()
        try:
            return write_catalog(
                self.folder / "files.jsonl",
                source,
                entries,
                schemes,
                lambda total: settings.chunk_size_for(total, workers),
                skip_bad=settings.skip_bad,
                census=census,
            )
        except BaseException:
            self.forget()
            raise

    def open(self, settings: Settings, chunks: Sequence[Chunk]) -> None:
        """Write the plan, so that other processes can join the run."""
        self._settings = settings
        plan = {"run": self._run, "settings": settings.model_dump(mode="json"), "chunks": chunks}
        write_json(self.folder / "plan.json", plan | {"current_folder": current_folder(), "path": sys.path})

    def restore_imports(self) -> None:
        """Let this process find the modules of steps where the process that began the run finds them.

        Raises:
            ConfigurationError: The run has ended.
        """
        plan = self._plan()
        with suppress(OSError):
            os.chdir(plan["current_folder"])
        sys.path += [folder for folder in plan["path"] if folder not in sys.path]

    def is_open(self) -> bool:
        """Whether the run can be joined: it has started and not ended."""
        return self._stored() is not None

    @property
    def settings(self) -> Settings:
        """The settings of the run; read once.

        Raises:
            ConfigurationError: The run has ended.
        """
        self._settings = self._settings or make_settings(self._plan()["settings"])
        return self._settings

    def chunks(self) -> list[Chunk]:
        """Return the chunks, in the order of the manifest.

        Raises:
            ConfigurationError: The run has ended.
        """
        return [Chunk(*chunk) for chunk in self._plan()["chunks"]]

    def file(self, index: int) -> FileData:
        """Return a file of a small batch, which has Luigi tasks for each file; the first call reads all files.

        Args:
            index: Index of the file in the run, from 0.

        Raises:
            ConfigurationError: The run has ended.
        """
        self._files = self._files or [file for chunk in self.chunks() for file in self.files(chunk)]
        return self._files[index]

    def files(self, chunk: Chunk, numbers: Iterable[int] | None = None) -> Iterator[FileData]:
        """Yield the files of a chunk, or those with the given numbers in it: from 0, in ascending order."""
        return read_catalog(self.folder / "files.jsonl", chunk, numbers)

    def _plan(self) -> dict[str, Any]:
        if (stored := self._stored()) is None:
            raise self._ended_error()
        return stored

    def _ended_error(self) -> ConfigurationError:
        """Return the error for work on a run that has ended."""
        return ConfigurationError(f"run {self._label} has ended or was replaced; start RunBatch again")

    def _stored(self) -> dict[str, Any] | None:
        stored = read_json(self.folder / "plan.json")
        return stored if isinstance(stored, dict) and stored["run"] == self._run else None

    def is_graph(self) -> bool:
        """Whether every file has its own Luigi tasks: Luigi's workers run them, and no chunk has several files."""
        return not self.settings.executor and all(chunk.size == 1 for chunk in self.chunks())

    def beat(self) -> None:
        """Record that the process that submits the chunks to an executor works, once a second."""
        if (now := time.monotonic()) >= self._beat_due:
            self._beat_due = now + BEAT_SECONDS
            # Chunks end if it cannot be written for a while.
            with suppress(OSError):
                (self.folder / COORDINATOR).touch()

    def last_beat(self) -> int:
        """Return the last time of :meth:`beat`, in nanoseconds on the clock of the file system; 0 if there was none."""
        return _modified(self.folder / COORDINATOR)

    def beat_for(self, index: int) -> None:
        """Record that a worker waits for a chunk that it was given; do nothing if that cannot be written or the run has ended."""
        with suppress(OSError):
            if self.locks.is_dir():
                self._chunk_beat(index).touch()

    def last_beat_for(self, index: int) -> int:
        """Return the last sign of life of a chunk, in nanoseconds on the clock of the file system; 0 if there was none."""
        return max(_modified(self._chunk_beat(index)), _modified(self.snapshot(chunk_name(index))))

    def snapshot(self, name: str) -> Path:
        """Return the path of the snapshot that belongs to a ledger."""
        return self.snapshots / f"{name}.json"

    def _chunk_beat(self, index: int) -> Path:
        return self.locks / f"{chunk_name(index)}.beat"

    def interrupt(self) -> None:
        """Let the chunks that an executor runs end."""
        with suppress(OSError):
            (self.folder / INTERRUPTED).touch()

    def resume(self) -> None:
        """Let an executor run chunks again after :meth:`interrupt`."""
        with stops_run(self.folder):
            (self.folder / INTERRUPTED).unlink(missing_ok=True)

    def is_interrupted(self) -> bool:
        """Whether the chunks that an executor runs are to end: see :meth:`interrupt`, or the run has ended."""
        return (self.folder / INTERRUPTED).exists() or not self.is_open()

    def chunk_lock(self, index: int) -> ChunkLock:
        """Return the lock of a chunk, not taken yet.

        Raises:
            ConfigurationError: The run has ended.
        """
        if not self.locks.is_dir():
            raise self._ended_error()
        return ChunkLock(self.locks / f"{chunk_name(index)}{_LOCK_SUFFIX}")

    def chunk_holder(self, index: int) -> str:
        """Return the last process that has run a chunk, as "pid ... on <host> since ..."; "" if there was none."""
        lock = self.chunk_lock(index)
        try:
            return lock.holder()
        finally:
            lock.release()

    def check_free(self) -> None:
        """Check that no process runs a chunk of an earlier run, whose coordinator has ended before it.

        Raises:
            LockedError: One does.
        """
        for path in list_folder(self.locks):
            if path.suffix != _LOCK_SUFFIX:
                continue
            lock = ChunkLock(path)
            try:
                if not lock.try_hard():
                    raise held_error(lock.holder())
            finally:
                lock.release()

    def note_crash(self) -> None:
        """Record that a process of the run has crashed, and may have left temporary files."""
        with suppress(OSError):
            (self.folder / CRASHES).touch()

    def had_crashes(self) -> bool:
        """Whether a process of the run has crashed."""
        return (self.folder / CRASHES).exists()

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _modified(path: Path) -> int:
    """Return a file's time of modification in nanoseconds; 0 if it does not exist."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
