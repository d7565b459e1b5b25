"""A batch and its runs: what identifies it, who holds it, which chunks it has, and how it ends.

batches/<batch>/lock                     held by whoever runs it, and gone with them
batches/<batch>/manifest/                private, and only while a run lasts: files.jsonl, plan.json
batches/<batch>/runs/<n>/run.json        what was asked
batches/<batch>/runs/<n>/chunks/         ledgers, one a chunk (or one a file, in a small batch)
batches/<batch>/runs/<n>/jobs/           a small batch's notes of its files between their tasks
batches/<batch>/runs/<n>/results.jsonl   one line a file
batches/<batch>/runs/<n>/summary.json    the end
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpp import names
from dpp._version import __version__
from dpp.catalog import Chunk, read_catalog, write_catalog
from dpp.engine import Engine
from dpp.errors import ConfigurationError
from dpp.ledger import Ledger, read_ledger, read_ledgers
from dpp.lock import Lock
from dpp.manifest import Files, Row, describe_source, listed, read
from dpp.models import FileData, Outcome
from dpp.names import file_key
from dpp.pipeline import Job, Pipeline, workspace_root
from dpp.plugins import Registry, Steps
from dpp.redact import redact_url
from dpp.report import Summary, fold, write_results
from dpp.settings import Settings, make_settings
from dpp.workspace import Workspace, read_json, stops_run, write_atomic, write_json

SHARING_SECONDS = 600.0
SHARING_PAUSE = 0.05


class Run:
    """One try at a batch.

    Args:
        folder: ``batches/<batch>/runs/<n>``.
        lock: What keeps others from running the same batch, for as long as this object lives.
    """

    def __init__(self, folder: Path, lock: Lock | None = None) -> None:
        self.folder = folder
        self.number = int(folder.name)
        self.batch = folder.parent.parent.name
        self.label = f"{self.batch}/{self.number}"
        self.ledgers = folder / "chunks"
        self._lock = lock
        self._private = folder.parent.parent / "manifest"

    def plan(self) -> dict[str, Any]:
        """Return what the workers need to know; only there while the run lasts.

        Raises:
            ConfigurationError: The run has ended.
        """
        plan = read_json(self._private / "plan.json")
        if not isinstance(plan, dict) or plan["run"] != self.number:
            raise ConfigurationError(f"run {self.label} has ended or was replaced; start RunBatch again")
        return plan

    def is_open(self) -> bool:
        """Whether there is still work that one can join."""
        return bool((read_json(self._private / "plan.json") or {}).get("run") == self.number)

    def settings(self) -> Settings:
        """Return the settings of the run."""
        return make_settings(self.plan()["settings"])

    def chunks(self) -> list[Chunk]:
        """Return the chunks, in the order of the manifest."""
        return [Chunk(*chunk) for chunk in self.plan()["chunks"]]

    def files(self, chunk: Chunk) -> Iterator[FileData]:
        """Yield the files of a chunk."""
        return read_catalog(self._private / "files.jsonl", chunk)

    def ledger(self, name: str) -> Path:
        """Return the path of a ledger: that of a chunk's number or of a file's key."""
        return self.ledgers / f"{name}.jsonl"

    def notes(self, key: str) -> Path:
        """Return where the tasks of one file leave notes for one another."""
        return self.folder / "jobs" / f"{key}.json"

    def work(self, pipeline: Pipeline, files: Iterable[FileData], name: str, on_outcome: Callable[[Outcome], None] | None = None) -> None:
        """Run files through a pipeline, recording their outcomes in a ledger of the run.

        Args:
            pipeline: The stages; closed at the end.
            files: The files; those that the ledger has already are passed over.
            name: The ledger's name.
            on_outcome: Called after each outcome, from any thread.
        """
        ledger = Ledger(self.ledger(name))
        recorded = ledger.recorded()
        try:
            Engine(pipeline, ledger, on_outcome).run(file for file in files if file_key(file.id, file.url) not in recorded)
            ledger.finish()
        finally:
            ledger.close()
            pipeline.close()

    def record_known(self, pipeline: Pipeline) -> None:
        """Record the outcomes of files that were complete before a small batch's tasks were scheduled."""
        ledger = Ledger(self.ledger("known"))
        for chunk in self.chunks():
            for file in self.files(chunk):
                known = None if self.ledger(file_key(file.id, file.url)).exists() else pipeline.recall(Job(file))
                if known is not None:
                    ledger.append(known)
        ledger.finish()

    def is_held(self) -> bool:
        """Whether somebody is running this batch at this moment."""
        lock = Lock(self.folder.parent.parent / "lock")
        try:
            return not lock.is_free()
        finally:
            lock.release()

    def results(self) -> Iterator[Outcome]:
        """Yield the outcomes: the results where the run has ended, or what is recorded so far."""
        path = self.folder / "results.jsonl"
        return read_ledger(path) if path.exists() else self.outcomes()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what is recorded so far."""
        return read_ledgers(self.ledgers)

    def asked(self) -> dict[str, Any]:
        """Return ``run.json``: what was asked, without secrets."""
        asked = read_json(self.folder / "run.json")
        return asked if isinstance(asked, dict) else {}

    def summary(self) -> Summary | None:
        """Return the summary, where the run has ended."""
        stored = read_json(self.folder / "summary.json")
        return Summary.model_validate(stored) if stored else None

    def progress(self) -> Summary:
        """Return a summary of what is recorded so far."""
        summary = self._empty_summary()
        for _ in fold(summary, self.outcomes()):
            pass
        return summary

    def _empty_summary(self) -> Summary:
        asked = self.asked()
        spent = time.time() - float(asked.get("started_at", time.time()))
        total = int(asked.get("total", 0))
        return Summary(batch=self.batch, run=self.number, total=total, seconds=round(spent, 3), folder=str(self.folder))

    def finish(self) -> Summary:
        """Fold the ledgers into results and a summary, and forget what is private."""
        summary = self._empty_summary()
        write_results(self.folder / "results.jsonl", fold(summary, self.outcomes()))
        write_atomic(self.folder / "summary.json", summary.model_dump_json(indent=2).encode() + b"\n")
        shutil.rmtree(self._private, ignore_errors=True)
        return summary

    def release(self) -> None:
        """Let others run the batch."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def batch_name(files: Files, steps: Steps) -> str:
    """Return the name of a batch: the same manifest through the same steps is the same batch."""
    if isinstance(files, (str, Path)):
        where = str(files) if "://" in str(files) else str(Path(files).resolve())
        title = names.slug(names.stem(where) if "://" in where else Path(where).stem)
    else:
        title, where = "list", json.dumps([dict(entry) for entry in files], default=str, sort_keys=True)
    return f"{title}-{names.digest(where, steps.fingerprints()[2], digits=10)}"


def latest_runs(root: Path) -> list[Run]:
    """Return the latest run of each batch in a workspace, the newest first."""
    found = [run for batch in (root / "batches").glob("*") if (run := latest_run(batch))]
    return sorted(found, key=lambda run: -float(run.asked().get("started_at", 0)))


def find_run(root: Path, batch: str = "", number: int | None = None) -> Run:
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
        raise ConfigurationError(
            f"no batch {batch or 'at all'} was run in {root}; dpp status lists batches, --workspace names another folder"
        )
    run = Run(runs[0].folder.with_name(str(number))) if number else runs[0]
    if not run.folder.exists():
        raise ConfigurationError(f"batch {run.batch} has no run {number}, its last one is {runs[0].number}")
    return run


def latest_run(batch: Path) -> Run | None:
    """Return the latest run of a batch, if it ever ran."""
    numbers = [int(folder.name) for folder in (batch / "runs").glob("*") if folder.name.isdigit()]
    return Run(batch / "runs" / str(max(numbers))) if numbers else None


def open_run(files: Files, settings: Settings, registry: Registry, *, shared: bool = False, steps: Steps | None = None) -> Run:
    """Begin a run of a batch, or join the one that others are at.

    Everything that the user can get wrong is found here, before anything is fetched.

    Args:
        files: The manifest: a path, a source that a plugin knows, or a list.
        settings: The settings.
        registry: The plugins.
        shared: Whether several processes may work on the batch through one scheduler.
        steps: The steps, where they are not the ones that the settings name.

    Raises:
        InputError: The manifest, a setting or a plugin is wrong.
        LockedError: Somebody else runs this batch.
        EnvironmentStop: The workspace can't be written.
    """
    steps = steps or registry.steps(settings)
    schemes = set(registry.fetchers())
    workspace = Workspace(workspace_root(settings))
    workspace.check()
    folder = workspace.batch(batch_name(files, steps))
    lock = Lock(folder / "lock")

    def begin() -> Run:
        run = _begun(folder, files, _rows(files, registry), settings, steps, schemes, lock)
        registry.notify("dpp_batch_started", run=run.asked())
        return run

    try:
        return _shared_run(folder, lock, begin) if shared else _own_run(lock, begin)
    except BaseException:
        lock.release()
        raise


def _own_run(lock: Lock, begin: Callable[[], Run]) -> Run:
    lock.exclusive()
    return begin()


def _shared_run(folder: Path, lock: Lock, begin: Callable[[], Run]) -> Run:
    """Join the run that others are at; where there is none, begin one and let others join."""
    deadline = time.monotonic() + SHARING_SECONDS
    while time.monotonic() < deadline:
        if lock.try_exclusive():
            begin()
        if lock.try_shared():
            run = latest_run(folder)
            if run is not None and run.is_open():
                return Run(run.folder, lock)
        time.sleep(SHARING_PAUSE)
    raise lock.held()


def _rows(files: Files, registry: Registry) -> Iterator[Row]:
    found = registry.rows(str(files)) if isinstance(files, (str, Path)) else None
    return read(files) if found is None else listed(found)


def _begun(folder: Path, files: Files, rows: Iterator[Row], settings: Settings, steps: Steps, schemes: set[str], lock: Lock) -> Run:
    last = latest_run(folder)
    number = last.number + 1 if last else 1
    private = folder / "manifest"
    with stops_run(private):
        shutil.rmtree(private, ignore_errors=True)
        private.mkdir(mode=0o700, parents=True)
    source = redact_url(describe_source(files)) if isinstance(files, str) and "://" in files else describe_source(files)
    try:
        chunks = write_catalog(private / "files.jsonl", source, rows, schemes, settings.chunk_size_for)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    run = Run(folder / "runs" / str(number), lock)
    total = sum(chunk.size for chunk in chunks)
    plan = {"run": number, "settings": settings.model_dump(mode="json"), "chunks": chunks}
    asked = {
        "batch": run.batch,
        "run": number,
        "files": source,
        "total": total,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "started_at": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "dpp": __version__,
        "plugins": [step.identity() for step in steps],
        "settings": settings.model_dump(mode="json", exclude={"options"}),
    }
    write_json(run.folder / "run.json", asked)
    write_json(private / "plan.json", plan)
    return run
