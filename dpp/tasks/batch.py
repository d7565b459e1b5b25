"""The Luigi tasks of a batch.

RunBatch -> Report -> Processed -> PreProcessed -> DownloadTarget      no more files than workers: four tasks per file
RunBatch -> FileChunk                                                  a larger batch: one task per chunk, with the same targets
"""

from __future__ import annotations

import configparser
import logging
import os
import threading
from typing import Any

import luigi
from luigi.freezing import recursively_unfreeze
from luigi.interface import core

from dpp.base import BaseExecutor
from dpp.batch.batch import open_run
from dpp.batch.request import Request
from dpp.batch.run import Run
from dpp.errors import INTERRUPTED_TEXT, BatchFailed, ConfigurationError, EnvironmentStop
from dpp.logs import close_run_log, keep_log, set_up_logging
from dpp.manifest.readers import Files
from dpp.monitor.viewer import Viewer
from dpp.names import counted
from dpp.plugins.registry import registry
from dpp.redact import redact_text
from dpp.report.summary import Summary
from dpp.selection import Selection
from dpp.settings import WORKSPACE_VARIABLE, Settings, workspace_variable
from dpp.tasks.chunks import ChunkTask, ExecutedChunks, FileChunk
from dpp.tasks.command import check_semaphores, prepare_luigi
from dpp.tasks.file import RUNS, Report, SettingsTask
from dpp.tasks.loading import explain_parsing
from dpp.tasks.luigi_settings import check_luigi_settings
from dpp.tasks.parameters import (
    FilesParameter,
    exit_when_wrong,
    luigi_works,
    running_from_command_line,
    with_settings,
)
from dpp.tasks.sections import named_batch
from dpp.tasks.shutdown import Ending, stop_run
from dpp.tasks.unknown import unknown_settings

log = logging.getLogger(__name__)

SHARERS = 4


@with_settings(list(Settings.model_fields))
class RunBatch(SettingsTask):
    """Run a batch of files: download, pre-process, process, report.

    A rerun does only what is missing. The task fails if a file failed, after all files were run.

    Attributes:
        workers: Number of processes; 0 for Luigi's setting.
        selection: Which failures of earlier runs are retried; all if None.
        is_shown: Whether to show progress and keep the log also when a program calls ``luigi.build``.
    """

    files = FilesParameter(
        default="", description="files to run: JSON, JSON Lines, a table (CSV, Parquet), a text of URLs, a folder, or a plugin's source"
    )

    batch_name = luigi.Parameter(default="", significant=False, description="use the settings of section [batch:NAME] of luigi.cfg")

    process = luigi.Parameter(default="", description="name that distinguishes the processes sharing a batch through one scheduler")

    # An attribute, as luigi.build does not pass its number of workers on to tasks.
    workers: int = 0
    selection: Selection | None = None
    is_shown: bool = False
    viewer: Viewer | None = None
    _opened: Run | None = None
    _required: list[luigi.Task] | None = None
    _executor: BaseExecutor | None = None
    ending: Ending | None = None

    @classmethod
    def get_param_values(cls, params: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the values of the parameters; defaults come from the section of a named batch, then from Luigi.

        Raises:
            ConfigurationError: A value in luigi.cfg is invalid.
        """
        with exit_when_wrong():
            prepare_luigi()
            named = named_batch(kwargs["batch_name"], dict(params)) if kwargs.get("batch_name") else {}
            if workspace_variable(WORKSPACE_VARIABLE):
                named.pop("workspace", None)
            _workers()
            try:
                return super().get_param_values(params, args, {**named, **kwargs})
            except configparser.Error as error:
                raise explain_parsing(error) from error
            except ValueError as error:
                # Luigi wraps the error of an invalid value in a ValueError of its own.
                if isinstance(error.__cause__, configparser.Error):
                    raise explain_parsing(error.__cause__) from error
                raise ConfigurationError(redact_text(f"luigi.cfg: {error.__cause__ or error}")) from error

    def open(self) -> Run:
        """Return this process's run of the batch; the first call starts or joins it.

        Raises:
            InputError: The manifest, a setting or a plugin is invalid; nothing was fetched.
            EnvironmentStop: Another process runs the batch, or the workspace cannot be written.
        """
        if self._opened is None:
            check_semaphores()
            for problem in unknown_settings():
                log.warning("%s", problem)
            shared = not core().local_scheduler
            executor = self.make_executor()
            workers = executor.slots() if executor else self._sharing_workers()
            # The number of slots is asked for once: it may take a request to a cluster, and change.
            self._executor = executor.model_copy(update={"workers": workers}) if executor else None
            request = Request(self.batch_name, self._given_options(), self.selection)
            self._opened = open_run(self.wanted_files(), self.settings(), registry(), request=request, workers=workers, shared=shared)
            RUNS[str(self._opened.folder)] = self._opened
            self._watch(self._opened)
        return self._opened

    def make_executor(self) -> BaseExecutor | None:
        """Return the executor that the settings name; None for Luigi's workers.

        Raises:
            InputError: Its name is unknown, or one of its options is invalid.
        """
        return registry().executor(self.settings(), self.workers or _workers(), self._given_options())

    def _given_options(self) -> Any:
        """Return the options of plugins that do not come from luigi.cfg."""
        return recursively_unfreeze(self.param_kwargs["options"])

    def _sharing_workers(self) -> int:
        """Return the number of processes that may work on the run."""
        # With a central scheduler, more processes may join: the chunks must suffice for them too.
        return self.workers or _workers() * (1 if core().local_scheduler else SHARERS)

    def note_crash(self) -> None:
        """Record in the run that one of its processes died."""
        if self._opened is not None:
            self._opened.workfile.note_crash()

    def wanted_files(self) -> Files:
        """Return the manifest.

        Raises:
            ConfigurationError: No manifest was given.
        """
        if self.files is None or self.files == "":
            raise ConfigurationError(
                "no files: give a list of them in JSON, JSON Lines, CSV or Parquet, a text of URLs, a folder, or a source such as s3://"
            )
        files: Files = recursively_unfreeze(self.files)
        return files

    def _watch(self, run: Run) -> None:
        """Show the run's progress, and handle the signals that end it."""
        at_work = running_from_command_line() and luigi_works()
        if at_work or self.is_shown:
            keep_log(run.folder / "log.txt")
        log.info("run %d of batch %s: %s", run.number, run.batch, counted(run.info.total, "file"))
        if at_work or self.is_shown:
            self.viewer = Viewer(run, self.settings())
        # Python accepts signal handlers only in the main thread.
        if threading.current_thread() is threading.main_thread():
            self.ending = ChunkTask.ending = Ending(run, self.viewer)
        if self.ending and at_work:
            self.ending.at_exit()

    def close(self) -> None:
        """Close the run, so that other processes can run the batch; the next use of this task starts a new run."""
        if self._opened is not None:
            self._opened.release()
            RUNS.pop(str(self._opened.folder), None)
        if self.ending is not None:
            self.ending.restore()
        if self.viewer is not None:
            self.viewer.stop()
        close_run_log()
        self._opened = self._required = self._executor = self.ending = self.viewer = ChunkTask.ending = None
        self.__dict__.pop("_settings", None)

    def requires(self) -> list[luigi.Task]:
        """Return the tasks of the batch's files, or its chunks."""
        if self._required is None:
            with exit_when_wrong():
                set_up_logging(self.settings())
                self._required = self._tasks(self.open())
                # Commands such as luigi-deps-tree only show tasks: they must leave no run behind.
                if running_from_command_line() and not luigi_works() and self._opened is not None:
                    self._opened.discard()
                    self._opened = None
        return self._required

    def deps(self) -> list[luigi.Task]:
        """Return the required tasks, which Luigi checks before it runs this one.

        Raises:
            EnvironmentStop: The folder of the run was removed, and with it what these tasks have made.
        """
        tasks: list[luigi.Task] = super().deps()
        if self._opened is not None:
            self._opened.check_there()
        return tasks

    def _tasks(self, run: Run) -> list[luigi.Task]:
        chunks = run.workfile.chunks()
        if (executor := self._executor) is not None:
            return [ExecutedChunks(run_folder=str(run.folder), workers=executor.workers)]
        if run.workfile.is_graph():
            folder = str(run.folder)
            # The id changes nothing: it makes a task recognizable in Luigi's log.
            return [self.clone(Report, run_folder=folder, index=index, id=run.workfile.file(index).id) for index in range(len(chunks))]
        # luigi.build does not pass its number of workers on to tasks, and a task that finds no chunk costs little.
        count = min(len(chunks), self._sharing_workers()) if self.workers or running_from_command_line() else len(chunks)
        return [FileChunk(run_folder=str(run.folder), index=index) for index in range(count)]

    def complete(self) -> bool:
        """Return whether the run that this process started or joined has ended with every file ok."""
        summary = self._opened.summary() if self._opened else None
        # Luigi checks a failed task again only to run it once more: close its run, so that the next one is new.
        if summary is not None and not summary.complete:
            self.close()
        return summary is not None and summary.complete

    def run(self) -> None:
        """Write the summary of the run.

        Raises:
            BatchFailed: A file failed.
        """
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
            raise BatchFailed(f"{summary.failed + summary.missing} of {counted(summary.total, 'file')} failed")


def _workers() -> int:
    """Return the number of workers that Luigi was given."""
    # luigi.build does not pass its number of workers on to tasks; assume one per processor.
    return _configured_workers() if running_from_command_line() else os.cpu_count() or 1


def _configured_workers() -> int:
    """Return the number of workers from Luigi's command line or luigi.cfg.

    Raises:
        ConfigurationError: It is not a whole number of at least 1.
    """
    try:
        workers = int(core().workers)
    except ValueError as error:
        raise ConfigurationError("workers: expected a whole number") from error
    if workers < 1:
        raise ConfigurationError(f"workers: expected at least 1, got {workers}")
    return workers


def start_batch(files: Any = "", workers: int = 0, selection: Selection | None = None, **settings: Any) -> tuple[Summary, int]:
    """Run a batch with Luigi in this process; return its summary and the exit code.

    Args:
        files: The manifest: a path, a source, or a list of dicts; empty if a named batch sets it.
        workers: Number of processes; 0 for the number in luigi.cfg, or 1.
        selection: Which failures of earlier runs are retried; all if None.
        settings: Settings that differ from their defaults and from luigi.cfg; ``batch_name`` for a named batch.

    Raises:
        InputError: The manifest, a setting or a plugin is invalid; nothing was fetched.
        EnvironmentStop: Another process runs the batch, or the workspace cannot be written.
    """
    check_luigi_settings()
    task = RunBatch(**({} if files == "" else {"files": files}), **settings)
    # Luigi returns the same object for the same parameters: an earlier use in this process may have left its run open.
    task.close()
    task.workers = workers = workers or _configured_workers()
    task.selection = selection
    task.is_shown = True
    set_up_logging(task.settings())
    run = task.open()
    try:
        luigi.build([task], workers=workers, local_scheduler=True, log_level="INFO")
    except KeyboardInterrupt:
        log.warning(INTERRUPTED_TEXT)
    except (EnvironmentStop, OSError, RuntimeError) as error:
        if (stop := stop_run(run, error)) is None:
            raise
        log.error("%s", stop)
    try:
        summary, code = task.ending.conclude() if task.ending else run.conclude()
        if task.viewer is not None:
            task.viewer.stop()
            task.viewer.tell("run-finished", summary.model_dump(mode="json"))
        return summary, code
    finally:
        task.close()
