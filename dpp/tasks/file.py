"""The Luigi tasks of one file: the four that are the model of a batch.

Report -> Processed -> PreProcessed -> DownloadTarget
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import luigi
from luigi.freezing import recursively_unfreeze
from luigi.interface import core
from luigi.parameter import ParameterVisibility
from luigi.worker import fork_lock

from dpp.batch.run import Run
from dpp.engine.child import end_with_parent
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import POST_PROCESS
from dpp.engine.supervisor import supervised
from dpp.errors import ManifestError, StageError
from dpp.logs import FILES, set_up_logging
from dpp.manifest.readers import Entry, Listed, check
from dpp.models import Failure, FileData
from dpp.names import file_key
from dpp.plugins.registry import STEP_SETTINGS, option_names, registry
from dpp.redact import redact_text
from dpp.settings import Settings, make_settings, merged_options
from dpp.tasks.parameters import FieldsParameter, UrlParameter, configured_options, exit_when_wrong, with_settings
from dpp.tasks.targets import FileTarget
from dpp.workspace.atomic import read_json, write_json
from dpp.workspace.ledger import Ledger, Record

log = logging.getLogger(__name__)

_OF_BATCHES = {*STEP_SETTINGS, "skip_bad", "chunk_size", "log_file", "quiet", "json_lines"}
WORKERS_A_TASK = 3
RUNS: dict[str, Run] = {}
_FILE_SETTINGS = [name for name in Settings.model_fields if name not in _OF_BATCHES]


def fork_guard() -> AbstractContextManager[object]:
    """Return what is to be held while this process forks: the lock that keeps Luigi's thread out of the network meanwhile.

    In a worker's process there is no such thread, and the lock is held since that process was forked.
    """
    return nullcontext() if is_worker() else fork_lock


def is_worker() -> bool:
    """Whether this is a process that Luigi started for a task."""
    return multiprocessing.parent_process() is not None


def run_in(folder: str) -> Run:
    """Return the run of a folder: one object for all tasks of a process, and of those forked from it, so that its files are read once."""
    if folder not in RUNS:
        RUNS[folder] = Run(Path(folder), registry())
    return RUNS[folder]


class PatientTask(luigi.Task):
    """A task that Luigi tries again where its worker process vanished, a few times; errors of files are no failures of tasks.

    Not with a central scheduler: it would wait for a quarter of an hour. Nor outside a batch, where a task fails with its file.
    """

    @property
    def retry_count(self) -> int:
        """Return how often Luigi may see it fail."""
        return WORKERS_A_TASK if getattr(self, "run_folder", "") and core().local_scheduler else 1

    def on_failure(self, exception: BaseException) -> str:
        """Return what Luigi tells its scheduler of a failure, without secrets."""
        return redact_text(str(super().on_failure(exception)))

    def note_crash(self) -> None:
        """Let the run know that a process of it died."""
        if folder := getattr(self, "run_folder", ""):
            run_in(folder).workfile.note_crash()


@PatientTask.event_handler(luigi.Event.PROCESS_FAILURE)  # type: ignore[untyped-decorator]
def _note_death(task: PatientTask, message: str) -> None:
    """Note that a worker process vanished, and log it: Luigi says it below the level that is shown."""
    task.note_crash()
    log.error("%s; the rest of the batch goes on", message)


class SettingsTask(PatientTask):
    """A task whose parameters are settings."""

    def settings(self) -> Settings:
        """Return the settings that the parameters give; options in luigi.cfg come before those that were not given.

        Raises:
            ConfigurationError: A value makes no sense.
        """
        return self._settings

    @cached_property
    def _settings(self) -> Settings:
        own = {name: recursively_unfreeze(value) for name, value in self.param_kwargs.items() if name in Settings.model_fields}
        settings = make_settings(own)
        configured = configured_options(option_names(settings))
        return make_settings({**own, "options": merged_options(configured, settings.options)}) if configured else settings


@with_settings(_FILE_SETTINGS)
class DownloadTarget(SettingsTask):
    """Download one file.

    This task and its three followers go through the stages up to their own; what is done is only read. In a
    batch (``run_folder`` and ``index``, whose file and settings count then) a failure is a value: it is noted, later tasks
    pass it on, and the report says it. Alone, it fails the task.
    """

    url = UrlParameter(default="", description="where the file comes from")
    id = luigi.Parameter(default="", description="what reports call the file; default: the URL's stem")
    name = luigi.Parameter(default="", description="the file's name; default: the URL's stem")
    fields = FieldsParameter(
        default={}, significant=False, visibility=ParameterVisibility.PRIVATE, description="other fields of the manifest, as JSON"
    )
    run_folder = luigi.Parameter(default="", description="the run of a batch that this belongs to")
    index = luigi.IntParameter(default=0, description="which of the run's files, from 0")

    stages: ClassVar[tuple[str, ...]] = ("download",)
    place: ClassVar[tuple[str, str]] = ("download", "pre-process")

    @cached_property
    def file(self) -> FileData:
        """The file."""
        if self.batch_run:
            return self.batch_run.workfile.file(self.index)
        labels = {name: value for name, value in (("id", self.id), ("name", self.name), ("url", self.url)) if value}
        found = check(Entry("file", {**recursively_unfreeze(self.fields), **labels}), registry().fetchers())
        if isinstance(found, Listed):
            return found.file
        raise ManifestError(self.task_family, found)

    @cached_property
    def batch_run(self) -> Run | None:
        """The run of a batch that this belongs to."""
        return run_in(self.run_folder) if self.run_folder else None

    @cached_property
    def pipeline(self) -> Pipeline:
        """The stages, with this task's settings."""
        return self.batch_run.pipeline() if self.batch_run else Pipeline(self.settings(), registry())

    def settings(self) -> Settings:
        """Return the settings of the run of a batch that this belongs to, or those that the parameters give."""
        return self.batch_run.workfile.settings if self.batch_run else super().settings()

    def output(self) -> FileTarget:
        """Return the download."""
        return FileTarget(Path(self.pipeline.workspace.download(self.file).body), lambda: self.pipeline.has_download(self.file))

    def complete(self) -> bool:
        """Return whether the target is whole, or this run has noted that it was, or that it can't be had.

        It may have gone since, with ``cleanup`` of another file of the same URL: the next task makes it again, where it needs it.
        """
        with exit_when_wrong():
            notes = self._notes()
            return bool(notes.get("failure")) or self.stages[-1] in notes.get("stages", ()) or self.output().exists()

    def run(self) -> None:
        """Go through the stages up to this task's own, in a child process where plugins are asked."""
        if (parent := multiprocessing.parent_process()) and parent.pid:
            end_with_parent(signal.SIGTERM, parent.pid)  # else it would hold the batch's lock for long when the run's process is killed
        settings = self.settings()
        set_up_logging(settings)
        with self.batch_run.at_task(self.file, *self.place) if self.batch_run else nullcontext():
            if not self.asks_plugins():
                self._work()
                return
            if failure := supervised(self.place[0], self.file, self._work, settings.stage_timeout, self.note_crash, fork_guard()):
                self.give_up(replace(self._resumed(), failure=failure))

    def asks_plugins(self) -> bool:
        """Whether this task runs what plugins supply."""
        return True

    def _work(self) -> None:
        with closing(self.pipeline):
            job = self._resumed()
            for stage in self.stages:
                getattr(self.pipeline, stage)(job)
            self.finish(job)
            if job.download is not None:
                job.download.release()

    def give_up(self, job: Job) -> None:
        """End a stage whose process died."""
        self.finish(job)

    def finish(self, job: Job) -> None:
        """Leave notes for the next task of this file, or raise its failure where there is no batch."""
        if self.batch_run is not None:
            failure = job.failure.model_dump() if job.failure else None
            notes = {"stages": self.stages, "failure": failure, "seconds": job.seconds, "attempts": job.attempts}
            write_json(self._notes_path(), notes)
        elif job.failure:
            raise StageError(f"{job.failure.stage} of {self.file.id}: {job.failure.message}", job.failure.error_class)

    def _resumed(self) -> Job:
        """Return the job as the task before left it."""
        notes = self._notes()
        failure = Failure.model_validate(notes["failure"]) if notes.get("failure") else None
        return Job(self.file, failure, notes.get("seconds", {}), notes.get("attempts", 0))

    def _notes(self) -> dict[str, Any]:
        return (read_json(self._notes_path()) or {}) if self.batch_run else {}

    def _notes_path(self) -> Path:
        assert self.batch_run is not None
        return self.batch_run.notes(file_key(self.file.id, self.file.url))


@with_settings(["pre_processors"])
class PreProcessed(DownloadTarget):
    """Send one file through the chain of pre-processors; without any, this is the download."""

    stages: ClassVar[tuple[str, ...]] = ("download", "pre_process")
    place = ("pre-process", "process")

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(DownloadTarget)

    def asks_plugins(self) -> bool:
        """Whether there is a pre-processor."""
        return bool(self.pipeline.steps.pre_processors)

    def output(self) -> FileTarget:
        """Return what the chain made."""
        return FileTarget(self.pipeline.prepared_path(self.file), lambda: self.pipeline.has_prepared(self.file))


@with_settings(["processor"])
class Processed(PreProcessed):
    """Work out the result of one file."""

    stages = ("download", "pre_process", "process")
    place = ("process", POST_PROCESS)

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(PreProcessed)

    def asks_plugins(self) -> bool:
        """Return true: there is always a processor."""
        return True

    def output(self) -> FileTarget:
        """Return the result."""
        return FileTarget(self.pipeline.result_path(self.file), lambda: self.pipeline.has_result(self.file))


@with_settings(["post_processors"])
class Report(Processed):
    """Run the post-processors of one file and write its report, which alone makes the file complete."""

    place = (POST_PROCESS, "")

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(Processed)

    def output(self) -> FileTarget:
        """Return the report."""
        return FileTarget(self.pipeline.report_path(self.file), lambda: self.pipeline.recall(Job(self.file)) is not None)

    def complete(self) -> bool:
        """Return whether the report says ok, or this run has recorded that it does not."""
        with exit_when_wrong():
            return self.output().exists() or (self.batch_run is not None and self._ledger_path().exists())

    def asks_plugins(self) -> bool:
        """Whether there is a post-processor."""
        return bool(self.pipeline.steps.post_processors)

    def _work(self) -> None:
        if self.batch_run is None or not self._is_taken_up():
            super()._work()

    def _is_taken_up(self) -> bool:
        """Whether this task had written the report when its process died: what is left of it is done, and nothing twice."""
        if self._ledger_path().exists():
            return True
        ledger = Ledger(self._ledger_path())
        if not ledger.recorded():
            record = self.pipeline.recalled(Job(self.file))
            if record is None or record.outcome.cached:
                ledger.close()
                return False
            ledger.append(record)
        ledger.finish()
        return True

    def finish(self, job: Job) -> None:
        """Write the report, and the outcome into the run's ledger."""
        self._record(job, self.pipeline.report(job))

    def give_up(self, job: Job) -> None:
        """Write the report of a file whose post-processors killed their process."""
        self._record(job, self.pipeline.record(job))

    def _record(self, job: Job, record: Record) -> None:
        if record.outcome.ok:
            logging.getLogger(FILES).info("%s: ok", record.outcome.id)
        if self.batch_run is None:
            super().finish(job)
            return
        ledger = Ledger(self._ledger_path())
        ledger.append(record)
        ledger.finish()

    def _ledger_path(self) -> Path:
        assert self.batch_run is not None
        return self.batch_run.ledger(file_key(self.file.id, self.file.url))
