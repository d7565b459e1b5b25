"""The folder of a run: what it holds, for those who read it, while the run lasts and afterwards.

batches/<batch>/lock                     held while the batch is run; it ends with the processes that hold it
batches/<batch>/manifest/                the work of the run, private, and only while the run lasts: see dpp.batch.workfile
batches/<batch>/runs/<n>/run.json        how the run was asked for: see dpp.report.info
batches/<batch>/runs/<n>/chunks/         ledgers, one per chunk (or one per file, in a small batch)
batches/<batch>/runs/<n>/jobs/           a small batch's notes of its files between their tasks
batches/<batch>/runs/<n>/stopped.json    why the run stopped early
batches/<batch>/runs/<n>/results.jsonl   one line per file
batches/<batch>/runs/<n>/report.html     the same as a page
batches/<batch>/runs/<n>/summary.json    the end
batches/<batch>/runs/<n>/log.txt         the log, where the run was started from a command line
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from dpp import names
from dpp.batch.workfile import WorkFile
from dpp.errors import BatchFailed, ConfigurationError, EnvironmentStop
from dpp.models import Outcome
from dpp.report.html import Page
from dpp.report.info import RunInfo, read_info
from dpp.report.summary import Summary, fold
from dpp.workspace.atomic import is_alive, read_json, write_stream
from dpp.workspace.ledger import Record, read_ledgers, read_records
from dpp.workspace.locks import BatchLock


class RunFolder:
    """What there is of a run.

    Args:
        folder: ``batches/<batch>/runs/<n>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder.parents[3]
        self.number = int(folder.name)
        self.batch = folder.parent.parent.name
        self.label = f"{self.batch}/{self.number}"
        self.ledgers = folder / "chunks"
        self.results_path = folder / "results.jsonl"
        self.stop_path = folder / "stopped.json"
        self.workfile = WorkFile(folder.parent.parent / "manifest", self.number, self.label)
        self._info = RunInfo()

    @property
    def info(self) -> RunInfo:
        """How the run was asked for; read until it is there, then kept."""
        if not self._info.run:
            self._info = read_info(self.folder)
        return self._info

    def new_lock(self) -> BatchLock:
        """Return a lock on the run's batch, not held yet."""
        return BatchLock(self.folder.parent.parent / "lock")

    def is_held(self) -> bool:
        """Whether a process runs this batch at this moment."""
        lock = self.new_lock()
        try:
            return not lock.is_free()
        finally:
            lock.release()

    def is_under_way(self) -> bool:
        """Whether the run has no summary yet and a process works on it."""
        if self.summary() is not None:
            return False
        is_here = self.info.host == socket.gethostname()  # then no lock has to be taken to find out
        return (is_here and is_alive(str(self.info.pid))) or self.is_held()

    def results(self) -> Iterator[Outcome]:
        """Yield the outcomes: the results where the run has ended, or what is recorded so far."""
        return (record.outcome for record in self.records())

    def records(self) -> Iterator[Record]:
        """Yield the records of the results where the run has ended, or of its ledgers."""
        return read_records(self.results_path) if self.results_path.is_file() else read_ledgers(self.ledgers)

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
        return Summary(
            batch=self.batch,
            run=self.number,
            total=self.info.total,
            skipped=self.info.skipped,
            seconds=round(self.info.elapsed(), 3),
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

    def write_page(self, path: Path) -> None:
        """Write the page of a run; of one that has not ended, with what is recorded so far.

        Raises:
            EnvironmentStop: It can't be written.
        """
        recorded, ended = self._empty_summary(), self.summary()
        with Page(path, self.info) as page:
            for _ in page.take(fold(recorded, self.records())):
                pass
            page.write(ended or recorded, ended=ended is not None, stopped=self.why_stopped())

    def exit_code(self, summary: Summary) -> int:
        """Return the exit code that says what a summary and the run's folder say."""
        if self.stop_path.exists():
            return EnvironmentStop.exit_code
        return 0 if summary.complete else BatchFailed.exit_code

    def why_stopped(self) -> str:
        """Return why the run stopped early; "" where it did not."""
        return str((read_json(self.stop_path) or {}).get("reason", ""))


def latest_runs(root: Path) -> list[RunFolder]:
    """Return the latest run of each batch in a workspace, the newest first."""
    found = [run for batch in (root / "batches").glob("*") if (run := latest_run(batch))]
    return sorted(found, key=lambda run: -run.info.started_at)


def find_run(root: Path, batch: str = "", number: int | None = None) -> RunFolder:
    """Return a run of a workspace.

    Args:
        root: The workspace.
        batch: Name of the batch, or the beginning of one; the newest batch if empty.
        number: Number of the run; the last one if None.

    Raises:
        ConfigurationError: There is no such run.
    """
    runs = [run for run in latest_runs(root) if run.batch.startswith(batch)]
    if not runs:
        raise ConfigurationError(_no_batch(root, batch))
    run = runs[0] if number is None else RunFolder(runs[0].folder.with_name(str(number)))
    if not run.folder.exists():
        raise ConfigurationError(f"batch {run.batch} has no run {number}, its last one is {runs[0].number}")
    return run


def _no_batch(root: Path, batch: str) -> str:
    known = [folder.name for folder in (root / "batches").glob("*")]
    titles = [name.rpartition("-")[0] for name in known]
    near = names.close_match(batch, [*known, *titles])
    hint = f"did you mean {near!r}? " if near else ""
    return f"no batch {batch or 'at all'} was run in {root}; {hint}dpp status lists batches, --workspace names another folder"


def latest_run(batch: Path) -> RunFolder | None:
    """Return the latest run of a batch, if it ever ran."""
    numbers = [int(folder.name) for folder in (batch / "runs").glob("*") if folder.name.isdigit()]
    return RunFolder(batch / "runs" / str(max(numbers))) if numbers else None
