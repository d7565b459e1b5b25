"""One try at a batch: its folder, its chunks, its ledgers, and how it ends.

batches/<batch>/lock                     held by whoever runs the batch, and gone with them
batches/<batch>/manifest/                what is to be done, private, and only while a run lasts: see dpp.batch.workfile
batches/<batch>/runs/<n>/run.json        what was asked
batches/<batch>/runs/<n>/chunks/         ledgers, one a chunk (or one a file, in a small batch)
batches/<batch>/runs/<n>/jobs/           a small batch's notes of its files between their tasks
batches/<batch>/runs/<n>/stopped.json    why the surroundings stopped the run
batches/<batch>/runs/<n>/results.jsonl   one line a file
batches/<batch>/runs/<n>/report.html     the same as a page
batches/<batch>/runs/<n>/summary.json    the end
batches/<batch>/runs/<n>/log.txt         the log, where the run was begun from a command line
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from dpp._version import __version__
from dpp.batch.workfile import WorkFile, is_graph
from dpp.engine.activity import Keeper
from dpp.engine.engine import Engine
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import Slow, Snapshot, keep_snapshot
from dpp.engine.supervisor import Supervisor
from dpp.errors import INTERRUPTED, BatchFailed, ConfigurationError, EnvironmentStop
from dpp.manifest.catalog import Chunk
from dpp.manifest.readers import Entry
from dpp.manifest.sources import Existing
from dpp.models import FileData, Outcome
from dpp.names import file_key
from dpp.plugins.registry import Registry
from dpp.plugins.steps import Steps
from dpp.report.html import Page
from dpp.report.summary import PAGE, Summary, fold
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.workspace.atomic import is_alive, read_json, remove, write_atomic, write_json, write_stream
from dpp.workspace.layout import Workspace
from dpp.workspace.ledger import Ledger, Record, read_ledgers, read_rows
from dpp.workspace.locks import BatchLock


class Run:
    """One try at a batch.

    Args:
        folder: ``batches/<batch>/runs/<n>``.
        lock: What keeps others from running the same batch, for as long as this object lives.
        registry: The plugins that are told when the run has ended.
    """

    def __init__(self, folder: Path, lock: BatchLock | None = None, registry: Registry | None = None) -> None:
        self.folder = folder
        self.root = folder.parents[3]
        self._registry = registry
        self.number = int(folder.name)
        self.batch = folder.parent.parent.name
        self.label = f"{self.batch}/{self.number}"
        self.ledgers = folder / "chunks"
        self.results_path = folder / "results.jsonl"
        self._lock = lock
        self.workfile = WorkFile(folder.parent.parent / "manifest", self.number, self.label)

    def begin(
        self,
        source: str,
        rows: Iterator[Entry],
        settings: Settings,
        steps: Steps,
        schemes: set[str],
        workers: int,
        facts: Mapping[str, Any],
        existing: Existing | None = None,
    ) -> None:
        """Check the manifest and write down what this run is to do.

        Args:
            source: What messages call the manifest.
            rows: Its rows as read.
            settings: The settings.
            steps: The steps.
            schemes: URL schemes that can be fetched.
            workers: Processes that are to work on it.
            facts: How it was asked for.
            existing: Counts the files that were left out, as they are where they should get to.

        Raises:
            ManifestError: Some row has a problem; all of them are in it.
        """
        chunks = self.workfile.begin(source, rows, settings, schemes, workers)
        total = sum(chunk.size for chunk in chunks)
        skipped = existing.skipped if existing else 0
        write_json(self.folder / "run.json", {**self._asked(source, total, steps), **facts, "skipped": skipped})
        self.workfile.open(settings, chunks)

    def _asked(self, source: str, total: int, steps: Steps) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "run": self.number,
            "files": source,
            "total": total,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "started_at": time.time(),
            "started_clock": time.clock_gettime(time.CLOCK_BOOTTIME),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "dpp": __version__,
            "plugins": steps.described(),
            "fingerprints": steps.fingerprints(),
        }

    def pipeline(self, settings: Settings, registry: Registry, steps: Steps | None = None) -> Pipeline:
        """Return a pipeline that works for this run, and keeps its limits with those of other processes."""
        return Pipeline(settings, registry, self.label, steps, self.workfile.limits, self._selection())

    def _selection(self) -> Selection | None:
        asked = self.asked().get("selection")
        return Selection.model_validate(asked) if asked else None

    def ledger(self, name: str) -> Path:
        """Return the path of a ledger: that of a chunk's number or of a file's key."""
        return self.ledgers / f"{name}.jsonl"

    def notes(self, key: str) -> Path:
        """Return where the tasks of one file leave notes for one another."""
        return self.folder / "jobs" / f"{key}.json"

    def snapshot(self, name: str) -> Path:
        """Return the path of the snapshot that belongs to a ledger."""
        return self.workfile.snapshots / f"{name}.json"

    @contextmanager
    def at_task(self, file: FileData, stage: str, following: str) -> Iterator[None]:
        """Let those who watch know that a task's stage is at a file, and for which stage it waits then; note what stops the run."""
        path = self.snapshot(file_key(file.id, file.url))
        keep_snapshot(path, Snapshot(running={stage: 1}, slowest=[Slow(id=file.id, stage=stage, since=time.time())]))
        try:
            with self.stops_noted():
                yield
        finally:
            keep_snapshot(path, Snapshot(waiting={following: 1} if following else {}))

    def work(self, pipeline: Pipeline, files: Iterable[FileData], name: str) -> None:
        """Run files through a pipeline in this process, recording their outcomes in a ledger of the run.

        Args:
            pipeline: The stages; closed at the end.
            files: The files.
            name: The ledger's name.
        """
        with self.stops_noted(), closing(pipeline), closing(Ledger(self.ledger(name))) as ledger:
            Engine(pipeline, ledger).run(files)
            ledger.finish()

    def supervise(
        self,
        chunk: Chunk,
        name: str,
        registry: Registry,
        on_progress: Callable[[int, int], None] | None = None,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        """Run a chunk in a process of its own, recording the outcomes in a ledger of the run; files that are in it are passed over.

        Args:
            chunk: The chunk.
            name: The ledger's name.
            registry: The plugins.
            on_progress: Called several times a second with the number of files that have their outcome, and of those that failed.
            guard: Held while a process is forked.
        """
        settings, keeper = self.workfile.settings(), Keeper(self.snapshot(name))
        supervisor = Supervisor(
            lambda: self.workfile.files(chunk),
            chunk.size,
            self.ledger(name),
            lambda: self.pipeline(settings, registry),
            stage_timeout=settings.stage_timeout,
            on_progress=on_progress,
            on_wait=keeper.keep,
            on_crash=self.workfile.note_crash,
            guard=guard,
        )
        with self.stops_noted():
            try:
                supervisor.run()
            finally:
                remove(self.snapshot(name))

    @contextmanager
    def stops_noted(self) -> Iterator[None]:
        """Note why the surroundings stop the run, if they do; where they did already, nothing is begun any more."""
        if reason := self._why_stopped():
            raise EnvironmentStop(reason)
        try:
            yield
        except EnvironmentStop as error:
            self.stop(error)
            raise

    def record_known(self, pipeline: Pipeline) -> None:
        """Record the outcomes of files that were complete before a small batch's tasks were scheduled.

        Another process that shares the run may have done so and ended it; then there is nothing to do.
        """
        with suppress(ConfigurationError, FileNotFoundError):
            chunks = self.workfile.chunks()
            files = [file for chunk in chunks for file in self.workfile.files(chunk)] if is_graph(chunks) else []
            jobs = [Job(file) for file in files if not self.ledger(file_key(file.id, file.url)).exists()]
            outcomes = [outcome for job in jobs if (outcome := pipeline.recalled(job))]
            ledger = Ledger(self.ledger(f"known-{socket.gethostname()}-{os.getpid()}"))
            for outcome in outcomes:
                ledger.append(outcome)
            ledger.finish()

    def discard(self) -> None:
        """Leave no trace of this run, which nobody worked on, and let others run the batch."""
        self.workfile.forget()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def is_held(self) -> bool:
        """Whether somebody is running this batch at this moment."""
        lock = BatchLock(self.folder.parent.parent / "lock")
        try:
            return not lock.is_free()
        finally:
            lock.release()

    def is_under_way(self) -> bool:
        """Whether the run has no summary yet, and somebody is at it; the lock is asked only where its process cannot be."""
        asked = self.asked()
        if self.summary() is not None:
            return False
        return (asked.get("host") == socket.gethostname() and is_alive(str(asked.get("pid")))) or self.is_held()

    def results(self) -> Iterator[Outcome]:
        """Yield the outcomes: the results where the run has ended, or what is recorded so far."""
        return (row.outcome for row in self._rows())

    def _rows(self) -> Iterator[Record]:
        return read_rows(self.results_path) if self.results_path.is_file() else read_ledgers(self.ledgers)

    def asked(self) -> dict[str, Any]:
        """Return ``run.json``: what was asked, without secrets."""
        asked = read_json(self.folder / "run.json")
        return asked if isinstance(asked, dict) else {}

    def summary(self) -> Summary | None:
        """Return the summary, where the run has ended."""
        stored = read_json(self.folder / "summary.json")
        with suppress(ValidationError):
            return Summary.model_validate({**stored, "folder": str(self.folder)}) if stored else None
        return None

    def progress(self) -> Summary:
        """Return a summary of what is recorded so far."""
        summary = self._empty_summary()
        for _ in fold(summary, read_ledgers(self.ledgers)):
            pass
        return summary

    def _empty_summary(self) -> Summary:
        asked = self.asked()
        return Summary(
            batch=self.batch,
            run=self.number,
            total=int(asked.get("total", 0)),
            skipped=int(asked.get("skipped", 0)),
            seconds=round(seconds_since(asked), 3),
            folder=str(self.folder),
        )

    @contextmanager
    def settled_results(self) -> Iterator[Path]:
        """Yield a file of the outcomes that does not change while it is read: the results, or what is recorded so far, each file once."""
        if self.results_path.exists():
            yield self.results_path
            return
        with TemporaryDirectory() as folder:
            path = Path(folder, "results.jsonl")
            write_stream(path, (row.line for row in fold(self._empty_summary(), read_ledgers(self.ledgers))))
            yield path

    def finish(self) -> Summary:
        """Fold the ledgers into results, a page and a summary, and forget what is private.

        Raises:
            EnvironmentStop: It can't be written, or nobody can tell any more how many files there are.
        """
        if self.workfile.had_crashes():
            Workspace(self.root).sweep()
        summary, asked = self._empty_summary(), self.asked()
        if not asked:
            raise EnvironmentStop(f"{self.folder / 'run.json'} was removed or damaged during the run; run the same command again")
        with Page(self.folder / PAGE, asked) as page:
            rows = page.take(fold(summary, read_ledgers(self.ledgers)))
            write_stream(self.results_path, (row.line for row in rows), durable=True)
            page.write(summary, stopped=self._why_stopped())
        write_atomic(self.folder / "summary.json", summary.model_dump_json(indent=2).encode() + b"\n")
        self.workfile.forget()
        if self._registry is not None:
            self._registry.notify("dpp_batch_finished", summary=summary.model_dump())
        return summary

    def write_page(self, path: Path) -> None:
        """Write the page of a run; of one that has not ended, with what is recorded so far.

        Raises:
            EnvironmentStop: It can't be written.
        """
        recorded, ended = self._empty_summary(), self.summary()
        with Page(path, self.asked()) as page:
            for _ in page.take(fold(recorded, self._rows())):
                pass
            page.write(ended or recorded, ended=ended is not None, stopped=self._why_stopped())

    def conclude(self, *, interrupted: bool = False) -> tuple[Summary, int]:
        """Return how the run ended, and the exit code that says so.

        Where nobody summed it up (it was interrupted, or stopped by its surroundings) that is done here, unless
        others still work on it.
        """
        summary = self.summary() or (self.finish() if self._is_alone() else self.progress())
        if interrupted:
            return summary, INTERRUPTED
        return summary, self.exit_code(summary)

    def exit_code(self, summary: Summary) -> int:
        """Return the exit code that says what a summary and the run's folder say."""
        if self._stop_note().exists():
            return EnvironmentStop.exit_code
        return 0 if summary.complete else BatchFailed.exit_code

    def stop(self, error: EnvironmentStop) -> None:
        """Note that the surroundings stopped the run, if that can still be written."""
        with suppress(EnvironmentStop):
            write_json(self._stop_note(), {"reason": str(error)})

    def _why_stopped(self) -> str:
        return str((read_json(self._stop_note()) or {}).get("reason", ""))

    def _stop_note(self) -> Path:
        return self.folder / "stopped.json"

    def _is_alone(self) -> bool:
        return self._lock is None or self._lock.is_free()

    def release(self) -> None:
        """Let others run the batch."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def unlock(self) -> None:
        """Let others run the batch, though the process that began the run, of which this is a child, has not ended yet."""
        if self._lock is not None:
            self._lock.unlock()


def seconds_since(asked: Mapping[str, Any]) -> float:
    """Return for how long the run has been going on that was asked for so: on its own machine by a clock that nobody sets."""
    if asked.get("host") == socket.gethostname() and "started_clock" in asked:
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - float(asked["started_clock"]))
    return max(0.0, time.time() - float(asked.get("started_at", time.time())))
