"""A run in progress: start it, work on its files, and end it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

from dpp import names
from dpp.batch.folder import RunFolder
from dpp.batch.workfile import chunk_name
from dpp.engine.activity import SNAPSHOT_SECONDS
from dpp.engine.engine import Engine
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import Slow, Snapshot, keep_snapshot
from dpp.engine.wear import Wear
from dpp.errors import INTERRUPTED, ConfigurationError, DppError, EnvironmentStop
from dpp.manifest.entries import Entry
from dpp.manifest.sources import Existing
from dpp.models import FileData, key_of
from dpp.plugins.registry import Registry
from dpp.plugins.steps import Steps
from dpp.redact import redact_text
from dpp.report.html import Page
from dpp.report.info import RunInfo, read_info
from dpp.report.summary import PAGE, Summary, fold
from dpp.settings import Settings
from dpp.shards import Census
from dpp.workspace.atomic import write_atomic, write_json, write_stream
from dpp.workspace.layout import Workspace
from dpp.workspace.ledger import Ledger, read_ledgers
from dpp.workspace.locks import BatchLock
from dpp.workspace.machine import process_name, stop_for
from dpp.workspace.space import StoppedDownloads

MARK_BYTES = 8


class Run(RunFolder):
    """A run that processes work on.

    Args:
        folder: ``batches/<batch>/runs/<n>``.
        registry: The plugins.
        lock: Lock that keeps other runs of the batch from starting, for the lifetime of this object.
    """

    def __init__(self, folder: Path, registry: Registry, lock: BatchLock | None = None) -> None:
        super().__init__(folder)
        self._registry = registry
        self._lock = lock
        self._steps: Steps | None = None
        self._stopped = StoppedDownloads(folder.parent.parent / "stopped.jsonl")

    def begin(
        self,
        info: RunInfo,
        entries: Iterator[Entry],
        settings: Settings,
        schemes: set[str],
        workers: int,
        existing: Existing | None = None,
        census: Census | None = None,
    ) -> None:
        """Check the manifest and write the work file of this run.

        Args:
            info: The request for the run; it is completed here.
            entries: The manifest's entries as read.
            settings: The settings.
            schemes: URL schemes that can be fetched.
            workers: Number of processes that will work on the run.
            existing: Counter of the files that are skipped, as the destination has them.
            census: Counter of the manifest's entries, if the run is that of a shard.

        Raises:
            ManifestError: Some entries are invalid; it lists all problems.
        """
        if sizes := self._stopped.sizes():
            entries = _largest_last(entries, sizes)
        chunks = self.workfile.begin(info.files, entries, settings, schemes, workers, census)
        now = datetime.now(UTC)
        self._info = info.model_copy(
            update={
                "batch": self.batch,
                "run": self.number,
                "total": sum(chunk.size for chunk in chunks),
                "started": now.isoformat(timespec="seconds"),
                "started_at": now.timestamp(),
                "started_clock": time.clock_gettime(time.CLOCK_BOOTTIME),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "mark": secrets.token_hex(MARK_BYTES),
                "skipped": census.skipped if census else existing.skipped if existing else 0,
                "shard": settings.shard,
                "manifest": census.digest() if census else "",
                "listed": census.files if census else 0,
            }
        )
        write_json(self.folder / "run.json", self._info.model_dump(mode="json"))
        self.workfile.open(settings, chunks)

    def pipeline(self, steps: Steps | None = None) -> Pipeline:
        """Return a pipeline for this run, which shares the run's limits with other processes.

        Args:
            steps: The steps; None for those that the settings name.

        Raises:
            ConfigurationError: The run has ended.
        """
        settings = self.workfile.settings
        self._steps = steps or self._steps or self._registry.steps(settings)
        return Pipeline(settings, self._registry, self.label, self._steps, self.workfile.limits, self.info.selection, self._stopped.note)

    def chunk_snapshot(self, index: int) -> Path:
        """Return the path of the snapshot of a chunk's files in flight."""
        return self.snapshot(chunk_name(index))

    def notes(self, key: str) -> Path:
        """Return the path of the state that the tasks of one file pass on."""
        return self.folder / "jobs" / f"{key}.json"

    def snapshot(self, name: str) -> Path:
        """Return the path of the snapshot that belongs to a ledger."""
        return self.workfile.snapshot(name)

    @contextmanager
    def at_task(self, file: FileData, stage: str, following: str) -> Iterator[Callable[[int], None]]:
        """Record in a snapshot that a task works on a file, and then for which stage the file waits; record what stops the run.

        The block gets a function that records the number of bytes downloaded so far.
        """
        path, began, due = self.snapshot(key_of(file)), time.monotonic(), 0.0

        def show(received: int) -> None:
            nonlocal due
            if (now := time.monotonic()) >= due:
                due = now + SNAPSHOT_SECONDS
                # The time of day may have been set meanwhile.
                slow = Slow(id=file.id, stage=stage, since=time.time() - (now - began), bytes=received)
                keep_snapshot(path, Snapshot(running={stage: 1}, slowest=[slow], bytes=received))

        show(0)
        try:
            with self.stops_noted():
                yield show
        finally:
            keep_snapshot(path, Snapshot(waiting={following: 1} if following else {}))

    def work(self, pipeline: Pipeline, files: Iterable[FileData], name: str) -> None:
        """Run files through a pipeline in this process, recording their outcomes in a ledger of the run.

        Args:
            pipeline: The stages; closed at the end.
            files: The files.
            name: The ledger's name.
        """
        with self.stops_noted(), closing(pipeline), closing(Wear()) as wear, closing(Ledger(self.ledger(name))) as ledger:
            Engine(pipeline, ledger, wear).run(files)
            ledger.finish()

    @contextmanager
    def stops_noted(self) -> Iterator[None]:
        """Record why the environment stops the run, if it does; raise at once if the run was stopped before."""
        self.check_not_stopped()
        try:
            yield
        except EnvironmentStop as error:
            self.stop(error)
            raise
        except OSError as error:
            # No plugin runs in this process, so this is an error of the workspace or of the machine.
            stop = stop_for(error)
            self.stop(stop)
            raise stop from error

    def check_not_stopped(self) -> None:
        """Raise EnvironmentStop if the environment has stopped the run."""
        if reason := self.why_stopped():
            raise EnvironmentStop(reason)

    def record_known(self) -> None:
        """Record the outcomes of files that were complete before a small batch's tasks were scheduled."""
        # Another process that shares the run may have recorded them and ended the run.
        with suppress(ConfigurationError, FileNotFoundError):
            chunks, pipeline = self.workfile.chunks(), self.pipeline()
            files = [self.workfile.file(index) for index in range(len(chunks))] if self.workfile.is_graph() else []
            jobs = [Job(file) for file in files if not self.ledger(key_of(file)).exists()]
            records = [record for job in jobs if (record := pipeline.recalled(job))]
            ledger = Ledger(self.ledger(f"known-{process_name()}"))
            for record in records:
                ledger.append(record)
            ledger.finish()

    def check_there(self) -> None:
        """Raise EnvironmentStop if the folder of the run was removed."""
        # Without run.json, the number of files is unknown.
        if not read_info(self.folder).run:
            raise EnvironmentStop(f"{self.folder / 'run.json'} was removed or damaged during the run; run the same command again")

    def discard(self) -> None:
        """Remove all files of this run, on which no process has worked, and release the batch's lock."""
        self.workfile.forget()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def finish(self) -> Summary:
        """Combine the ledgers into results, a page and a summary, and remove the private work file.

        Raises:
            EnvironmentStop: The results cannot be written, or ``run.json`` is missing or damaged.
        """
        if self.workfile.had_crashes():
            Workspace(self.root).sweep()
        self.check_there()
        summary = self._empty_summary()
        with Page(self.folder / PAGE, self.info) as page:
            records = page.take(fold(summary, read_ledgers(self.ledgers)))
            write_stream(self.results_path, (record.line for record in records), durable=True)
            page.write(summary, stopped=self.why_stopped())
        write_atomic(self.folder / "summary.json", summary.model_dump_json(indent=2).encode() + b"\n")
        self.workfile.forget()
        if not self.why_stopped():
            self._stopped.forget()
        self._registry.notify("dpp_batch_finished", summary=summary.model_dump())
        return summary

    def conclude(self, *, interrupted: bool = False) -> tuple[Summary, int]:
        """Return the summary of the run and its exit code; finish the run if no process did and none still works on it."""
        # A run that was interrupted, or that the environment stopped, has no summary yet.
        summary = self.summary() or (self.finish() if self._try_alone() else self.progress())
        if interrupted:
            return summary, INTERRUPTED
        return summary, self.exit_code(summary)

    def stop(self, error: DppError) -> None:
        """Record what stopped the run, if that can still be written."""
        with suppress(EnvironmentStop):
            write_json(self.stop_path, {"reason": redact_text(str(error)), "exit_code": error.exit_code})

    def _try_alone(self) -> bool:
        return self._lock is None or self._lock.try_alone()

    def release(self) -> None:
        """Release the lock, so that other processes can run the batch."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def unlock(self) -> None:
        """Release the lock for the parent process as well, which started the run and has not ended yet."""
        if self._lock is not None:
            self._lock.unlock()


def _largest_last(entries: Iterable[Entry], sizes: Mapping[str, int]) -> Iterator[Entry]:
    """Yield the entries, and at the end those of downloads that a full disk stopped before.

    Args:
        entries: The entries.
        sizes: Bytes that these downloads had received, by digest of the URL.
    """
    # Otherwise a file that is too large for the disk stops each rerun at the same place, and no run comes to the files after it.
    stopped = []
    for entry in entries:
        size = sizes.get(names.digest(str((entry.fields or {}).get("url"))))
        if size is None:
            yield entry
        else:
            stopped.append((size, entry))
    yield from (entry for _, entry in sorted(stopped, key=itemgetter(0)))
