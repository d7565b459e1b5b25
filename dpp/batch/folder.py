"""The folder of a run, for readers, during the run and after it.

batches/<batch>/lock                     held while the batch is run; released when the processes that hold it end
batches/<batch>/manifest/                the work of the run, private, removed at its end: see dpp.batch.workfile
batches/<batch>/runs/<n>/run.json        the request for the run: see dpp.report.info
batches/<batch>/runs/<n>/chunks/         ledgers, one per chunk (or one per file, in a small batch)
batches/<batch>/runs/<n>/jobs/           state of files between their tasks, in a small batch
batches/<batch>/runs/<n>/stopped.json    why the run stopped early
batches/<batch>/runs/<n>/results.jsonl   one line per file
batches/<batch>/runs/<n>/report.html     the results as a page
batches/<batch>/runs/<n>/summary.json    the summary; it exists once the run has ended
batches/<batch>/runs/<n>/log.txt         the log, if the run was started from a command line
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from dpp import names
from dpp.batch.workfile import WorkFile, chunk_name
from dpp.errors import BatchFailed, ConfigurationError, DppError, EnvironmentStop
from dpp.models import Outcome
from dpp.report.html import Page
from dpp.report.info import RunInfo, read_info
from dpp.report.summary import Summary, fold
from dpp.workspace.atomic import is_alive, list_folder, read_json, write_stream
from dpp.workspace.ledger import Record, read_ledgers, read_records
from dpp.workspace.locks import BatchLock


class RunFolder:
    """Read the folder of a run.

    Args:
        folder: ``batches/<batch>/runs/<n>``; for readers of results also a copy of it, with any name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = [*folder.parents[:4]][-1]
        self.number = int(folder.name) if folder.name.isdecimal() else 0
        self.batch = folder.parent.parent.name
        self.label = f"{self.batch}/{self.number}"
        self.ledgers = folder / "chunks"
        self.results_path = folder / "results.jsonl"
        self.stop_path = folder / "stopped.json"
        self.workfile = WorkFile(folder.parent.parent / "manifest", self.number, self.label)
        self._info = RunInfo()

    @property
    def info(self) -> RunInfo:
        """The request for the run; read until ``run.json`` exists, then kept."""
        if not self._info.run:
            self._info = read_info(self.folder)
        return self._info

    def new_lock(self) -> BatchLock:
        """Return a lock on the run's batch, not taken yet."""
        return BatchLock(self.folder.parent.parent / "lock")

    def is_held(self) -> bool:
        """Whether a process is running this batch."""
        return self.new_lock().is_held()

    def is_under_way(self) -> bool:
        """Whether the run has no summary yet and a process works on it."""
        if self.summary() is not None:
            return False
        # If the process runs on this machine, its id is enough, and the lock need not be taken.
        is_here = self.info.host == socket.gethostname()
        return (is_here and is_alive(str(self.info.pid))) or self.is_held()

    def results(self) -> Iterator[Outcome]:
        """Yield the outcomes: all results if the run has ended, else those recorded so far."""
        return (record.outcome for record in self.records())

    def records(self) -> Iterator[Record]:
        """Yield the records of the results if the run has ended, else those of its ledgers."""
        return read_records(self.results_path) if self.results_path.is_file() else read_ledgers(self.ledgers)

    def has_all_ledgers(self) -> bool:
        """Whether each chunk has its ledger; only while the run lasts."""
        return all(self.chunk_ledger(index).exists() for index in range(len(self.workfile.chunks())))

    def chunk_ledger(self, index: int) -> Path:
        """Return the path of a chunk's ledger, given its index in the run, from 0."""
        return self.ledger(chunk_name(index))

    def ledger(self, name: str) -> Path:
        """Return the path of a ledger, given a chunk's name or a file's key."""
        return self.ledgers / f"{name}.jsonl"

    def check_results(self) -> None:
        """Check that the results of a run that has ended have all its outcomes.

        Raises:
            DppError: Some are missing or damaged, as after a crash of the machine.
        """
        summary = self.summary()
        recorded = summary.total - summary.missing if summary else 0
        if (read := sum(1 for _ in self.records()) if summary else 0) < recorded:
            raise DppError(f"{self.results_path}: {recorded - read} of {recorded} outcomes are missing or damaged; run the batch again")

    def summary(self) -> Summary | None:
        """Return the summary; None if the run has not ended."""
        stored = read_json(self.folder / "summary.json")
        with suppress(ValidationError):
            return Summary.model_validate({**stored, "folder": str(self.folder)}) if stored else None
        return None

    def progress(self) -> Summary:
        """Return a summary of the outcomes recorded so far."""
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
    def settled_results(self) -> Iterator[list[Path]]:
        """Yield one file of the outcomes that does not change while it is read: the results, or a copy of those recorded so far."""
        if self.results_path.exists():
            yield [self.results_path]
            return
        with TemporaryDirectory() as folder:
            path = Path(folder, "results.jsonl")
            write_stream(path, (row.line for row in fold(self._empty_summary(), read_ledgers(self.ledgers))))
            yield [path]

    def write_page(self, path: Path) -> None:
        """Write the page of a run; if the run has not ended, with the outcomes recorded so far.

        Raises:
            EnvironmentStop: The page cannot be written.
        """
        recorded, ended = self._empty_summary(), self.summary()
        with Page(path, self.info) as page:
            for _ in page.take(fold(recorded, self.records())):
                pass
            page.write(ended or recorded, ended=ended is not None, stopped=self.why_stopped())

    def exit_code(self, summary: Summary) -> int:
        """Return the exit code of a run, given its summary."""
        if self.stop_path.exists():
            return int((read_json(self.stop_path) or {}).get("exit_code", EnvironmentStop.exit_code))
        return 0 if summary.complete else BatchFailed.exit_code

    def why_stopped(self) -> str:
        """Return why the run stopped early; "" if it did not."""
        return str((read_json(self.stop_path) or {}).get("reason", ""))


def latest_runs(root: Path) -> list[RunFolder]:
    """Return the latest run of each batch in a workspace, newest first."""
    found = [run for batch in list_folder(root / "batches") if (run := latest_run(batch))]
    return sorted(found, key=lambda run: -run.info.started_at)


def find_run(root: Path, batch: str = "", number: int | None = None) -> RunFolder:
    """Return a run of a workspace.

    Args:
        root: The workspace.
        batch: Name of the batch, or a prefix of it; the newest batch if empty.
        number: Number of the run; None for the last one.

    Raises:
        ConfigurationError: The run does not exist.
    """
    runs = [run for run in latest_runs(root) if run.batch.startswith(batch)]
    if not runs:
        raise ConfigurationError(missing_batch(root, batch))
    run = runs[0] if number is None else RunFolder(runs[0].folder.with_name(str(number)))
    if not run.folder.exists():
        raise ConfigurationError(f"batch {run.batch} has no run {number}; its last run is {runs[0].number}")
    return run


def missing_batch(root: Path, batch: str) -> str:
    """Return the message about a batch that was not run in a workspace, with a similar name if there is one."""
    known = [folder.name for folder in list_folder(root / "batches")]
    titles = [name.rpartition("-")[0] for name in known]
    near = names.close_match(batch, [*known, *titles])
    hint = f"did you mean {near!r}? " if near else ""
    name = f"no batch {batch!r}" if batch else "no batch"
    return f"{name} was run in {root}; {hint}list batches with dpp status, or choose another folder with --workspace"


def latest_run(batch: Path) -> RunFolder | None:
    """Return the latest run of a batch; None if it has none."""
    numbers = [int(folder.name) for folder in list_folder(batch / "runs") if folder.name.isdigit()]
    return RunFolder(batch / "runs" / str(max(numbers))) if numbers else None
