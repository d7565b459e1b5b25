"""The four Luigi tasks of one file.

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

from dpp.batch.run import Run
from dpp.engine.child import end_with_parent
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import POST_PROCESS
from dpp.engine.supervisor import supervised
from dpp.errors import ManifestError, StageError
from dpp.logs import FILES, set_up_logging
from dpp.manifest.entries import Entry
from dpp.manifest.readers import Listed, check
from dpp.models import Failure, FileData, key_of
from dpp.plugins.registry import STEP_SETTINGS, option_names, registry
from dpp.redact import redact_text
from dpp.settings import Settings, make_settings, merged_options
from dpp.tasks.parameters import FieldsParameter, UrlParameter, exit_when_wrong, with_settings
from dpp.tasks.progress import Progress
from dpp.tasks.sections import configured_options
from dpp.tasks.shutdown import LUIGIS_LOCK
from dpp.tasks.targets import FileTarget
from dpp.workspace.atomic import read_json, write_json
from dpp.workspace.ledger import Ledger, Record

log = logging.getLogger(__name__)

_OF_BATCHES = {
    *STEP_SETTINGS,
    "shard",
    "skip_bad",
    "allow_empty",
    "encoding",
    "executor",
    "lost_after",
    "chunk_size",
    "log_file",
    "quiet",
    "json_lines",
}
WORKERS_A_TASK = 3
RUNS: dict[str, Run] = {}
_FILE_SETTINGS = [name for name in Settings.model_fields if name not in _OF_BATCHES]


def fork_guard() -> AbstractContextManager[object]:
    """Return the lock to hold while this process forks."""
    # Luigi's keep-alive thread uses the network under this lock: a fork in between would copy it in use. A worker process
    # has no such thread, and its copy of the lock has been held since the fork.
    return nullcontext() if is_worker() else LUIGIS_LOCK


def is_worker() -> bool:
    """Return whether this process was started by Luigi for a task."""
    return multiprocessing.parent_process() is not None


def run_in(folder: str) -> Run:
    """Return the run in a folder."""
    # One object for all tasks of this process and its children, so that the files of the run are read once.
    if folder not in RUNS:
        RUNS[folder] = Run(Path(folder), registry())
    return RUNS[folder]


def _same_task(kind: type[luigi.Task], values: dict[str, Any]) -> luigi.Task:
    return kind(**values)


class PatientTask(luigi.Task):
    """A task that Luigi runs again, up to three times in all, if its worker process dies."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling: Luigi's parallel scheduling sends tasks to processes and back, and there and here each task is one object."""
        return _same_task, (type(self), self.param_kwargs)

    @property
    def retry_count(self) -> int:
        """Return how many failures Luigi accepts before it gives the task up."""
        # In a batch, a file that fails is not a failure of its task; a task alone fails with its file. A central scheduler
        # would wait 15 minutes before the next try.
        return WORKERS_A_TASK if getattr(self, "run_folder", "") and core().local_scheduler else 1

    def on_failure(self, exception: BaseException) -> str:
        """Return Luigi's message to the scheduler about a failure, without secrets."""
        return redact_text(str(super().on_failure(exception)))

    def note_crash(self) -> None:
        """Record in the run that one of its processes died."""
        if folder := getattr(self, "run_folder", ""):
            run_in(folder).workfile.note_crash()


@PatientTask.event_handler(luigi.Event.PROCESS_FAILURE)  # type: ignore[untyped-decorator]
def _note_death(task: PatientTask, message: str) -> None:
    """Record and log that a worker process died."""
    task.note_crash()
    # Luigi logs the message below the level that is shown.
    log.error("%s; the batch continues", message)


class _Everything:
    """A collection that contains everything."""

    def __contains__(self, item: object) -> bool:
        return True


class SettingsTask(PatientTask):
    """A task whose parameters are settings."""

    # Luigi's warning about an unknown name in luigi.cfg shows the value, which may be secret; dpp has a warning of its own.
    ignore_unconsumed: ClassVar[Any] = _Everything()

    def settings(self) -> Settings:
        """Return the settings from the parameters, with options that were not given taken from luigi.cfg.

        Raises:
            ConfigurationError: A value is invalid.
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

    In a batch, ``run_folder`` and ``index`` determine the file and the settings. A failure does not fail the task: it is
    recorded, passed on by the later tasks, and written to the report. Without a batch, it fails the task.
    """

    url = UrlParameter(default="", description="URL of the file")
    id = luigi.Parameter(default="", description="id of the file in reports (default: the stem of the URL)")
    name = luigi.Parameter(default="", description="name of the file (default: the stem of the URL)")
    fields = FieldsParameter(
        default={}, significant=False, visibility=ParameterVisibility.PRIVATE, description="other fields of the manifest, as JSON"
    )
    run_folder = luigi.Parameter(default="", description="folder of the run that the file belongs to")
    index = luigi.IntParameter(default=0, description="index of the file in the run, from 0")

    stages: ClassVar[tuple[str, ...]] = ("download",)
    stage_and_next: ClassVar[tuple[str, str]] = ("download", "pre-process")

    # Luigi keeps one object per task for the life of a process. A folder may get another run meanwhile, after its workspace was
    # removed; so nothing of a run is cached here.
    @property
    def batch_run(self) -> Run | None:
        """The run that the file belongs to; None without a batch."""
        return run_in(self.run_folder) if self.run_folder else None

    @property
    def file(self) -> FileData:
        """The file."""
        return self.batch_run.workfile.file(self.index) if self.batch_run else self._own_file

    @cached_property
    def _own_file(self) -> FileData:
        labels = {name: value for name, value in (("id", self.id), ("name", self.name), ("url", self.url)) if value}
        found = check(Entry("file", {**recursively_unfreeze(self.fields), **labels}), registry().fetchers())
        if isinstance(found, Listed):
            return found.file
        raise ManifestError(self.task_family, found)

    @property
    def pipeline(self) -> Pipeline:
        """The stages, with the settings of the run, or without a batch with those of this task."""
        run, made = self.batch_run, self.__dict__.get("_pipeline")
        if made is None or made[0] is not run:
            made = self.__dict__["_pipeline"] = (run, run.pipeline() if run else Pipeline(self.settings(), registry()))
        pipeline: Pipeline = made[1]
        return pipeline

    def settings(self) -> Settings:
        """Return the settings of the run, or without a batch those from the parameters."""
        return self.batch_run.workfile.settings if self.batch_run else super().settings()

    def output(self) -> FileTarget:
        """Return the download."""
        return FileTarget(Path(self.pipeline.workspace.download(self.file).body), lambda: self.pipeline.has_download(self.file))

    def complete(self) -> bool:
        """Return whether the target exists, or this run has recorded that it existed or that the file failed."""
        with exit_when_wrong():
            notes = self._notes()
            # The cleanup of another file of the same URL may have removed the target since; a later task that needs it makes it again.
            return bool(notes.get("failure")) or self.stages[-1] in notes.get("stages", ()) or self.output().exists()

    def deps(self) -> list[luigi.Task]:
        """Return the required tasks, which Luigi checks before it runs this one.

        Raises:
            EnvironmentStop: The folder of the run was removed, and with it what these tasks have made.
        """
        if self.batch_run:
            self.batch_run.check_there()
        tasks: list[luigi.Task] = super().deps()
        return tasks

    def run(self) -> None:
        """Run the stages up to the task's own; if they call plugins, in a child process."""
        if (parent := multiprocessing.parent_process()) and parent.pid:
            # Otherwise this process would keep the batch locked after the run's process was killed.
            end_with_parent(signal.SIGTERM, parent.pid)
        settings = self.settings()
        set_up_logging(settings)
        with self.batch_run.at_task(self.file, *self.stage_and_next) if self.batch_run else nullcontext(int) as show:
            if not self.calls_plugins():
                self._work()
                return
            file, stage, progress = self.file, self.stage_and_next[0], Progress(self)
            paths = self.pipeline.workspace.download(file)

            def look() -> None:
                received = paths.received()
                show(received)
                progress.bytes(received)

            if failure := supervised(stage, file, self._work, settings.stage_timeout, self.note_crash, fork_guard(), look):
                self.give_up(replace(self._resumed(), failure=failure))

    def calls_plugins(self) -> bool:
        """Return whether this task calls plugins."""
        return True

    def _work(self) -> None:
        with closing(self.pipeline):
            job = self._resumed()
            # Stages that an earlier task has done only read their targets.
            for stage in self.stages:
                getattr(self.pipeline, stage)(job)
            self.finish(job)
            if job.download is not None:
                job.download.release()

    def give_up(self, job: Job) -> None:
        """Record the failure of a stage whose process died."""
        self.finish(job)

    def finish(self, job: Job) -> None:
        """Record the state of the file for its next task.

        Raises:
            StageError: The file failed, and the task does not belong to a batch.
        """
        if self.batch_run is not None:
            failure = job.failure.model_dump() if job.failure else None
            notes = {"stages": self.stages, "failure": failure, "seconds": job.seconds, "attempts": job.attempts}
            write_json(self._notes_path(), notes)
        elif job.failure:
            raise StageError(f"{job.failure.stage} of {self.file.id}: {job.failure.message}", job.failure.error_class)

    def _resumed(self) -> Job:
        """Return the job in the state that the previous task recorded."""
        notes = self._notes()
        failure = Failure.model_validate(notes["failure"]) if notes.get("failure") else None
        return Job(self.file, failure, notes.get("seconds", {}), notes.get("attempts", 0))

    def _notes(self) -> dict[str, Any]:
        return (read_json(self._notes_path()) or {}) if self.batch_run else {}

    def _notes_path(self) -> Path:
        assert self.batch_run is not None
        return self.batch_run.notes(key_of(self.file))


@with_settings(["pre_processors"])
class PreProcessed(DownloadTarget):
    """Pre-process one file; without pre-processors, the target is the download."""

    stages: ClassVar[tuple[str, ...]] = ("download", "pre_process")
    stage_and_next = ("pre-process", "process")

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(DownloadTarget)

    def calls_plugins(self) -> bool:
        """Return whether there is a pre-processor."""
        return bool(self.pipeline.steps.pre_processors)

    def output(self) -> FileTarget:
        """Return the output of the pre-processors."""
        return FileTarget(self.pipeline.prepared_path(self.file), lambda: self.pipeline.has_prepared(self.file))


@with_settings(["processor"])
class Processed(PreProcessed):
    """Process one file."""

    stages = ("download", "pre_process", "process")
    stage_and_next = ("process", POST_PROCESS)

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(PreProcessed)

    def calls_plugins(self) -> bool:
        """Return true: there is always a processor."""
        return True

    def output(self) -> FileTarget:
        """Return the result."""
        return FileTarget(self.pipeline.result_path(self.file), lambda: self.pipeline.has_result(self.file))


@with_settings(["post_processors"])
class Report(Processed):
    """Run the post-processors of one file and write its report."""

    stage_and_next = (POST_PROCESS, "")

    def requires(self) -> luigi.Task:
        """Return the task before this one."""
        return self.clone(Processed)

    def output(self) -> FileTarget:
        """Return the report."""
        return FileTarget(self.pipeline.report_path(self.file), lambda: self.pipeline.recall(Job(self.file)) is not None)

    def complete(self) -> bool:
        """Return whether the report is ok, or this run has recorded the file's outcome."""
        with exit_when_wrong():
            return self.output().exists() or (self.batch_run is not None and self._ledger_path().exists())

    def calls_plugins(self) -> bool:
        """Return whether there is a post-processor, or a plugin wants to know about finished files."""
        return bool(self.pipeline.steps.post_processors) or registry().has("dpp_file_finished")

    def _work(self) -> None:
        if self.batch_run is None or not self._is_taken_up():
            super()._work()

    def _is_taken_up(self) -> bool:
        """Complete the ledger if an earlier process of this task wrote the report before it died; return whether it did."""
        # Post-processors must not run twice for a file whose report is written.
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
        """Write the report, and add the outcome to the run's ledger."""
        self._record(job, self.pipeline.report(job))

    def give_up(self, job: Job) -> None:
        """Record the failure of a file whose post-processors killed their process."""
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
        return self.batch_run.ledger(key_of(self.file))
