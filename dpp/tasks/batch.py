"""The Luigi tasks of a batch, which runs the tasks of its files as they are, or its files in chunks.

RunBatch -> Report -> Processed -> PreProcessed -> DownloadTarget      a small batch
RunBatch -> FileChunk                                                  a larger one, over the same targets
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import nullcontext
from typing import Any, ClassVar

import luigi
from luigi.freezing import recursively_unfreeze
from luigi.interface import core

from dpp.batch.batch import open_run
from dpp.batch.request import Request
from dpp.batch.run import Run
from dpp.batch.workfile import is_graph
from dpp.errors import INTERRUPTED_TEXT, BatchFailed, ConfigurationError
from dpp.logs import close_run_log, keep_log, set_up_logging
from dpp.manifest.readers import Files
from dpp.monitor.viewer import Viewer
from dpp.plugins.registry import registry
from dpp.redact import redact_text
from dpp.report.summary import Summary
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.tasks.file import RUNS, PatientTask, Report, SettingsTask, fork_guard, run_in
from dpp.tasks.parameters import (
    FilesParameter,
    exit_when_wrong,
    luigi_works,
    named_batch,
    running_from_command_line,
    with_settings,
)
from dpp.tasks.progress import Progress
from dpp.tasks.shutdown import Ending
from dpp.tasks.targets import FileTarget

log = logging.getLogger(__name__)

SHARERS = 4


class FileChunk(PatientTask):
    """Run a slice of a batch's files through all stages, in one process, over the same targets as the four tasks.

    That process is a child, so that what a plugin does to it costs one file (:class:`dpp.engine.supervisor.Supervisor`).
    Its parameters say where the run lies and nothing of the files, so that any process can take it up.
    """

    run_folder = luigi.Parameter(description="the run of a batch that this belongs to")
    index = luigi.IntParameter(description="which of the run's chunks")

    ending: ClassVar[Ending | None] = None

    def output(self) -> FileTarget:
        """Return the chunk's ledger, which gets its name when every file has its outcome."""
        return FileTarget(run_in(self.run_folder).ledger(self._ledger_name()))

    def run(self) -> None:
        """Run the files that have no outcome in this run yet."""
        run = run_in(self.run_folder)
        chunk = run.workfile.chunks()[self.index]
        set_up_logging(run.workfile.settings)
        with self.ending.chunk() if self.ending else nullcontext():
            run.supervise(chunk, self._ledger_name(), Progress(chunk.size, self).tell, fork_guard())

    def _ledger_name(self) -> str:
        return f"{self.index:05d}"


@with_settings(list(Settings.model_fields))
class RunBatch(SettingsTask):
    """Run a batch of files: download, pre-process, process, report.

    A rerun does only what is missing. The run fails where a file failed, after all files had their turn.

    Attributes:
        workers: How many processes are to work on it, for a program that calls ``luigi.build``, which does not say so to tasks.
        selection: Which failures of earlier runs are tried again; all if None.
        is_shown: Whether progress is shown and the log kept, as Luigi's command line does, also where a program calls ``luigi.build``.
    """

    files = FilesParameter(default="", description="the files: a JSON list, JSON Lines, CSV or text file, a folder, or what a plugin knows")

    batch_name = luigi.Parameter(
        default="", significant=False, description="name of a section [batch:NAME] of luigi.cfg, whose settings count"
    )

    process = luigi.Parameter(default="", description="tells apart the processes that share a batch through one scheduler")

    workers: int = 0
    selection: Selection | None = None
    is_shown: bool = False
    viewer: Viewer | None = None
    _opened: Run | None = None
    _required: list[luigi.Task] | None = None
    ending: Ending | None = None

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the parameters' values; what is not given comes from the section of a named batch, if it says so."""
        with exit_when_wrong():
            named = named_batch(kwargs["batch_name"], dict(params)) if kwargs.get("batch_name") else {}
            _workers()
            try:
                return super().get_param_values(params, args, {**named, **kwargs})
            except ValueError as error:  # Luigi's, around what a value of luigi.cfg raised
                raise ConfigurationError(redact_text(f"luigi.cfg: {error.__cause__ or error}")) from error

    def open(self) -> Run:
        """Return this process's run of the batch; begun, or joined, at the first call.

        Raises:
            InputError: The manifest, a setting or a plugin is wrong; nothing was fetched.
            EnvironmentStop: Somebody else runs the batch, or the workspace can't be written.
        """
        if self._opened is None:
            shared = not core().local_scheduler
            workers = self.workers or _workers() * (SHARERS if shared else 1)
            request = Request(self.batch_name, recursively_unfreeze(self.param_kwargs["options"]), self.selection)
            self._opened = open_run(self.wanted_files(), self.settings(), registry(), request=request, workers=workers, shared=shared)
            RUNS[str(self._opened.folder)] = self._opened
            self._watch(self._opened)
        return self._opened

    def note_crash(self) -> None:
        """Let the run know that a process of it died."""
        if self._opened is not None:
            self._opened.workfile.note_crash()

    def wanted_files(self) -> Files:
        """Return the manifest.

        Raises:
            ConfigurationError: None is given.
        """
        if not self.files:
            raise ConfigurationError(
                "no files: give a JSON list, JSON Lines, CSV or text file with URLs, a folder, or a source such as s3://"
            )
        files: Files = recursively_unfreeze(self.files)
        return files

    def _watch(self, run: Run) -> None:
        """Show the run, and watch over its end where signals can be caught."""
        at_work = running_from_command_line() and luigi_works()
        if at_work or self.is_shown:
            keep_log(run.folder / "log.txt")
        log.info("run %d of batch %s: %d files", run.number, run.batch, run.info.total)
        if at_work or self.is_shown:
            self.viewer = Viewer(run, self.settings())
        if threading.current_thread() is threading.main_thread():
            self.ending = FileChunk.ending = Ending(run, self.viewer)
        if self.ending and at_work:
            self.ending.at_exit()

    def close(self) -> None:
        """Let others run the batch; the next use of this task begins a new run."""
        if self._opened is not None:
            self._opened.release()
            RUNS.pop(str(self._opened.folder), None)
        if self.ending is not None:
            self.ending.restore()
        if self.viewer is not None:
            self.viewer.stop()
        close_run_log()
        self._opened = self._required = self.ending = self.viewer = FileChunk.ending = None
        self.__dict__.pop("_settings", None)

    def requires(self) -> list[luigi.Task]:
        """Return the tasks of the batch's files, or its chunks."""
        if self._required is None:
            with exit_when_wrong():
                set_up_logging(self.settings())
                self._required = self._tasks(self.open())
                if running_from_command_line() and not luigi_works():
                    self._discard()
        return self._required

    def _discard(self) -> None:
        """Leave no trace of a run that somebody only looks at, as ``luigi-deps-tree`` does."""
        if self._opened is not None:
            self._opened.discard()
            self._opened = None

    def _tasks(self, run: Run) -> list[luigi.Task]:
        chunks = run.workfile.chunks()
        if is_graph(chunks):
            return [self._report(run, index) for index in range(len(chunks))]
        return [FileChunk(run_folder=str(run.folder), index=index) for index in range(len(chunks))]

    @staticmethod
    def _report(run: Run, index: int) -> Report:
        """Return the last task of a file; its id is for those who read Luigi's log."""
        parameters: dict[str, Any] = {"run_folder": str(run.folder), "index": index, "id": run.workfile.file(index).id}
        return Report(**parameters)

    def complete(self) -> bool:
        """Return whether the run that this process began or joined has ended with every file ok.

        A run that ended otherwise is left: being asked again means that there is to be another try.
        """
        summary = self._opened.summary() if self._opened else None
        if summary is not None and not summary.complete:
            self.close()
        return summary is not None and summary.complete

    def run(self) -> None:
        """Sum up the run; fail where a file failed."""
        run = self.open()
        run.record_known()
        summary = run.finish()
        if self.viewer is not None and running_from_command_line():
            self.viewer.end(summary)
        if self.ending is not None and self.ending.is_owner:
            self.ending.restore()
            run.release()
        else:
            run.unlock()
        if not summary.complete:
            raise BatchFailed(f"{summary.failed + summary.missing} of {summary.total} files failed")


def _workers() -> int:
    """Return how many workers Luigi's command line asks for; a program's are not known here, so one for each processor."""
    return _configured_workers() if running_from_command_line() else os.cpu_count() or 1


def _configured_workers() -> int:
    """Return how many workers Luigi's command line or luigi.cfg asks for.

    Raises:
        ConfigurationError: That is no number, or none at all.
    """
    try:
        workers = int(core().workers)
    except ValueError as error:
        raise ConfigurationError("workers: expected a whole number") from error
    if workers < 1:
        raise ConfigurationError(f"workers: should be greater than or equal to 1, got {workers}")
    return workers


def start_batch(files: Any = "", workers: int = 0, selection: Selection | None = None, **settings: Any) -> tuple[Summary, int]:
    """Run a batch with Luigi in this process; return its summary and the exit code that says how it ended.

    Args:
        files: The manifest: a path, a source, or a list of dicts; may be left to a named batch.
        workers: How many processes work on it; 0 for what luigi.cfg says, or one.
        selection: Which failures of earlier runs are tried again; all if None.
        settings: Settings that differ from their defaults and from luigi.cfg; ``batch_name`` for a named batch.

    Raises:
        InputError: The manifest, a setting or a plugin is wrong; nothing was fetched.
        EnvironmentStop: Somebody else runs the batch, or the workspace can't be written.
    """
    task = RunBatch(**({"files": files} if files else {}), **settings)
    task.close()  # Luigi gives one object for the same parameters, and an earlier use in this process may have left its run
    task.workers = workers = workers or _configured_workers()
    task.selection = selection
    task.is_shown = True
    set_up_logging(task.settings())
    run = task.open()
    try:
        luigi.build([task], workers=workers, local_scheduler=True, log_level="INFO")
    except KeyboardInterrupt:
        log.warning(INTERRUPTED_TEXT)
    try:
        summary, code = task.ending.conclude() if task.ending else run.conclude()
        if task.viewer is not None:
            task.viewer.stop()
            task.viewer.tell("run-finished", summary.model_dump(mode="json"))
        return summary, code
    finally:
        task.close()
