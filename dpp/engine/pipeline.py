"""Run one file through the stages, and turn its errors into values."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from dpp import media
from dpp.base import BaseFetcher
from dpp.download.complete import Download, FileState, check_unmodified, load_download, state_of
from dpp.download.downloader import Downloader
from dpp.download.limits import Limits
from dpp.engine.preprocess import INPUT, is_exploded, load_prepared, members, naming, prepare
from dpp.engine.wear import check_root, says_used_up
from dpp.errors import DppError, EnvironmentStop, FetchError, StageError
from dpp.logs import FILES
from dpp.models import Failure, FileData, Outcome, Stage, digests_of, expected_digest, key_of, own_copy
from dpp.names import basename, file_key, is_versioned
from dpp.plugins.registry import Registry, close_fetcher
from dpp.plugins.results import check_writable, to_json
from dpp.plugins.steps import ConfiguredStep, Steps
from dpp.redact import hide_secrets_of, redact_text, redact_url
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.workspace.atomic import discard, is_cut, json_line, read_json, write_atomic
from dpp.workspace.layout import Workspace
from dpp.workspace.ledger import Record, read_outcome
from dpp.workspace.space import stop_run_if_full

log = logging.getLogger(__name__)
log_of_files = logging.getLogger(FILES)


@dataclass
class Job:
    """A file in flight.

    Attributes:
        file: The file as listed in the manifest.
        failure: Why it failed; later stages skip a file that failed.
        seconds: Seconds spent, by stage.
        attempts: Number of download attempts.
        download: Its download; None before the first stage.
        before: State of the download before the first step.
        prepared: The file as the last pre-processor returned it.
        result: The processor's result, as read back from JSON.
        number: Number of the file in its engine, from 0 in the order in which files start.
        used_up: Whether the failure says that its process has no more descriptors, threads or memory.
    """

    file: FileData
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    attempts: int = 0
    download: Download | None = None
    before: FileState | None = None
    prepared: FileData | None = None
    result: Any = None
    number: int = 0
    used_up: bool = False

    def count_attempt(self) -> None:
        """Count a download attempt."""
        self.attempts += 1


class Pipeline:
    """The stages of a run; several threads can use one object.

    Args:
        settings: The run's settings.
        registry: The plugins, with their fetchers and steps.
        run: Label of the run in the outcomes.
        steps: The steps; None for those that the settings name.
        shared: Folder that the processes of the run share, for its limits.
        selection: Which failures of earlier runs are tried again; None for all.
        on_stop: Called with a URL and the bytes received when the environment stops its download or pre-processing.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        run: str = "",
        steps: Steps | None = None,
        shared: Path | None = None,
        selection: Selection | None = None,
        on_stop: Callable[[str, int], None] = lambda _url, _size: None,
    ) -> None:
        self.settings = settings
        self.run = run
        self.steps = steps or registry.steps(settings)
        self.workspace = Workspace(workspace_root(settings))
        self.fingerprints = self.steps.fingerprints()
        self._blaming = {"modified"} | {error_class for step in self.steps for error_class in getattr(step.cls, "blames_input", ())}
        self._labels = [step.label() for step in self.steps]
        self._registry = registry
        self._on_stop = on_stop
        self._selection = selection
        classes = registry.fetchers()
        self._fetchers: dict[type[BaseFetcher], BaseFetcher] = {cls: cls(settings) for cls in set(classes.values())}
        by_scheme = {scheme: self._fetchers[cls] for scheme, cls in classes.items()}
        self._downloader = Downloader(settings, self.workspace, by_scheme, limits=Limits(settings, shared), on_stop=on_stop)

    def stop(self) -> None:
        """Abort all waits of downloads; can be called from any thread."""
        self._downloader.stop()

    def close(self) -> None:
        """Close the fetchers' connections."""
        for fetcher in self._fetchers.values():
            close_fetcher(fetcher)

    def report_path(self, file: FileData) -> Path:
        """Return the path of a file's report."""
        return Path(self._report_path(file))

    def _report_path(self, file: FileData) -> str:
        return self.workspace.report(self.fingerprints[2], file)

    def recall(self, job: Job) -> Outcome | None:
        """Return the outcome of an earlier run, if the file is complete or its failure is not tried again; else None."""
        outcome = read_outcome(self._report_path(job.file)) or self._with_old_key(job.file)
        if outcome is None or not (self._still_holds(outcome, job.file) if outcome.ok else self._is_not_retried(outcome)):
            return None
        outcome.cached = outcome.run != self.run
        return outcome

    def _with_old_key(self, file: FileData) -> Outcome | None:
        """Return the outcome of a file whose key was made from less before, with its new key; else None.

        The key of a file with a query was made from the query, or from fewer digests than the manifest gives now.
        """
        if not is_versioned(file.url, expected_digest(file)):
            return None
        for expected in (*digests_of(file), None):
            key = file_key(file.id, file.url, expected, file.expect_version)
            if outcome := read_outcome(self.workspace.keyed("reports", self.fingerprints[2], key) + ".json"):
                outcome.key = key_of(file)
                return outcome
        return None

    def _is_not_retried(self, failed: Outcome) -> bool:
        return self._selection is not None and not self._selection.picks(failed)

    def recalled(self, job: Job) -> Record | None:
        """Return the record of a file that needs no work (see :meth:`recall`), and remove its unneeded files; else None."""
        outcome = self.recall(job)
        if outcome is None:
            return None
        self._leave(job, outcome)
        record = Record.of(outcome)
        if is_versioned(job.file.url, expected_digest(job.file)) and not os.path.exists(path := self._report_path(job.file)):
            write_atomic(path, record.line)
        return record

    def _still_holds(self, outcome: Outcome, file: FileData) -> bool:
        """Whether an outcome still matches the manifest, the source, and the sizes of the result and of the download (if it exists)."""
        return self._is_whole(outcome, file) and not self._downloader.has_changed(file, outcome.source_version)

    def source_has_changed(self, file: FileData, last: Outcome | None) -> bool:
        """Whether the source of a file has changed since its download or, if that was removed, since its last outcome."""
        known = load_download(self.workspace.download(file), file) or last
        return known is not None and self._downloader.has_changed(file, known.source_version)

    def _is_whole(self, outcome: Outcome, file: FileData) -> bool:
        if file.size not in (None, outcome.bytes) or file.sha256 not in (None, outcome.sha256) or is_cut(self._result_path(file)):
            return False
        expected = self._downloader.expecting(file).expect_type
        if expected and not media.fits(outcome.media_type, expected):
            return False
        # A digest that is new in the manifest has not been verified yet.
        if file.digests and not file.digests.items() <= (outcome.digests or {}).items():
            return False
        try:
            return os.stat(self.workspace.download(file).body).st_size == outcome.bytes
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def has_download(self, file: FileData) -> bool:
        """Whether a file's download is complete."""
        return self._loaded(file) is not None

    def _loaded(self, file: FileData) -> Download | None:
        return self._downloader.load(self.workspace.download(file), file)

    def has_prepared(self, file: FileData) -> bool:
        """Whether a file's pre-processed output is complete and was made from its download."""
        download = self._loaded(file)
        if download is None or not self.steps.pre_processors:
            return download is not None
        return load_prepared(file, self._prepared_path(file), download) is not None

    def has_result(self, file: FileData) -> bool:
        """Whether a file's result exists and was made from its download."""
        stored = read_json(self._result_path(file))
        if not isinstance(stored, dict) or "result" not in stored:
            return False
        download = self._loaded(file)
        return stored.get(INPUT) == download.sha256 if download else not os.path.exists(self.workspace.download(file).body)

    def result_path(self, file: FileData) -> Path:
        """Return the path of the processor's result for a file."""
        return Path(self._result_path(file))

    def _result_path(self, file: FileData) -> str:
        return self.workspace.processed(self.fingerprints[1], file)

    def prepared_path(self, file: FileData) -> Path:
        """Return the path of a file's pre-processed output: the download if there are no pre-processors."""
        return self._prepared_path(file) if self.steps.pre_processors else Path(self.workspace.download(file).body)

    def _prepared_path(self, file: FileData) -> Path:
        return Path(self.workspace.pre_processed(self.fingerprints[0], file))

    def download(self, job: Job) -> None:
        """Download the file, unless its download exists already."""
        if job.failure:
            return
        with _Stage(job, "download", self.workspace.root):
            job.download = self._downloader.get(job.file, job.count_attempt)
            job.before = state_of(job.download.path)

    def pre_process(self, job: Job) -> None:
        """Run the pre-processors on the download; without any, the processor gets the download."""
        if job.download is None or job.failure:
            return
        file = own_copy(job.file, local_path=job.download.path, size=job.download.size, sha256=job.download.sha256)
        if not self.steps.pre_processors:
            job.prepared = file
            return
        with _Stage(job, "pre-process", self.workspace.root):
            final = self._prepared_path(job.file)
            chain = self.steps.pre_processors
            try:
                job.prepared = load_prepared(file, final, job.download) or prepare(chain, file, final, job.download)
            except EnvironmentStop:
                self._on_stop(job.file.url, job.download.size)
                raise
            check_unmodified(job.download, job.before, _step_names(chain))

    def process(self, job: Job) -> None:
        """Run the processor, or read the result if it was made from the same download before."""
        if job.prepared is None or job.download is None or job.failure:
            return
        with _Stage(job, "process", self.workspace.root):
            path = self._result_path(job.file)
            stored = read_json(path)
            if isinstance(stored, dict) and stored.get(INPUT) == job.download.sha256 and "result" in stored and not is_cut(path):
                job.result = stored["result"]
                return
            handed = own_copy(job.prepared) if self.steps.post_processors else job.prepared
            record = {"id": job.file.id, "processor": self.steps.processor.label(), INPUT: job.download.sha256}
            line, job.result = _json_result(self.steps.processor, handed, record)
            check_unmodified(job.download, job.before, self.steps.processor.name)
            write_atomic(path, line)

    def report(self, job: Job) -> Record:
        """Run the post-processors and write the file's report; this is a file's last stage, ok or failed."""
        for step in self.steps.post_processors:
            with _Stage(job, "post-process", self.workspace.root):
                for name, arguments in _post_processor_arguments(job):
                    with naming(name):
                        step(*arguments)
                if job.download is not None:
                    check_unmodified(job.download, job.before, step.name)
        record = self.record(job)
        self._registry.notify("dpp_file_finished", outcome=record.outcome)
        return record

    def record(self, job: Job) -> Record:
        """Write the file's report without calling post-processors or hooks."""
        record = Record.of(self._outcome(job))
        write_atomic(self._report_path(job.file), record.line)
        self._leave(job, record.outcome)
        return record

    def _leave(self, job: Job, outcome: Outcome) -> None:
        """Remove a download that caused the failure and, with ``cleanup``, the download and pre-processed output of a file that is ok."""
        if outcome.error_class in self._blaming or (self.settings.cleanup and outcome.ok):
            self.forget(job.file, job.download)
        elif job.download is not None:
            job.download.release()

    def forget(self, file: FileData, download: Download | None = None) -> None:
        """Remove a file's download, unless another file of the same URL uses it, and its pre-processed output."""
        self._downloader.forget(file, download)
        if self.steps.pre_processors:
            discard(self._prepared_path(file))

    def _warning(self, file: FileData, download: Download) -> str | None:
        """Return why a file is probably not the expected one; None if it may be, or if its type was expected."""
        expected = self._downloader.expecting(file).expect_type
        return None if expected else media.contradiction((file.name, basename(file.url)), download.media_type)

    def _outcome(self, job: Job) -> Outcome:
        failure, download = job.failure, job.download
        return Outcome(
            id=job.file.id,
            name=job.file.name,
            url=redact_url(job.file.url),
            key=key_of(job.file),
            status="failed" if failure else "ok",
            stage=failure.stage if failure else None,
            error_class=failure.error_class if failure else None,
            message=failure.message if failure else None,
            http_status=failure.http_status if failure else None,
            traceback=failure.traceback if failure else None,
            attempts=job.attempts,
            bytes=download.size if download else None,
            sha256=download.sha256 if download else None,
            digests=(download.digests or None) if download else None,
            content_type=download.content_type if download else None,
            media_type=download.media_type if download else None,
            warning=None if failure or download is None else self._warning(job.file, download),
            source_version=download.source_version if download else None,
            seconds={stage: round(spent, 6) for stage, spent in job.seconds.items()},
            plugins=self._labels,
            result=None if failure else job.result,
            run=self.run,
            at=round(time.time(), 3),
        )


def _step_names(steps: Sequence[ConfiguredStep]) -> str:
    return " or ".join(step.name for step in steps)


class _Stage:
    """Time a stage, and turn an exception into the job's failure; the first failure stays.

    Args:
        job: The file in flight.
        stage: Name of the stage in the failure.
        root: The workspace.

    Raises:
        EnvironmentStop: The workspace cannot be written.
        UsedUp: A step has changed the root folder.
    """

    __slots__ = ("_began", "_job", "_root", "_stage")

    def __init__(self, job: Job, stage: Stage, root: Path) -> None:
        self._job = job
        self._stage = stage
        self._root = root

    def __enter__(self) -> None:
        hide_secrets_of(self._job.file)
        self._began = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        try:
            check_root()
            seconds = self._job.seconds
            seconds[self._stage] = seconds.get(self._stage, 0.0) + time.perf_counter() - self._began
            return error is not None and self._is_the_files_own(error)
        finally:
            hide_secrets_of(None)

    def _is_the_files_own(self, error: BaseException) -> bool:
        """Record an error as the file's failure; return false if it is not about this file alone."""
        job, stage = self._job, self._stage
        if not isinstance(error, (Exception, SystemExit)) or (isinstance(error, DppError) and not isinstance(error, StageError)):
            error.args = tuple(redact_text(part) if isinstance(part, str) else part for part in error.args)
            return False
        stop_run_if_full(self._root, error)
        failure = _failure_of_error(stage, error)
        log_of_files.info("%s failed in %s: %s: %s", job.file.id, stage, failure.error_class, failure.message)
        job.failure = job.failure or failure
        job.used_up = job.used_up or says_used_up(error)
        return True


def workspace_root(settings: Settings) -> Path:
    """Return the folder of the targets."""
    # Simulated targets have their own folder, so that no run can reuse them as real ones.
    return settings.workspace / "simulated" if settings.simulate_downloads else settings.workspace


def _failure_of_error(stage: Stage, error: BaseException) -> Failure:
    message = redact_text(" ".join([str(error) or type(error).__name__, *_first_cause(error), *getattr(error, "__notes__", ())]))
    if isinstance(error, StageError):
        status = error.http_status if isinstance(error, FetchError) else None
        return Failure(stage=stage, error_class=error.error_class, message=message, http_status=status)
    lines = "".join(traceback.format_exception(error))
    return Failure(
        stage=stage,
        error_class=type(error).__name__,
        message=message,
        traceback=redact_text(lines),
    )


def _first_cause(error: BaseException) -> Iterator[str]:
    """Yield the first exception of a group, whose own message has only their number."""
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if first is not error:
        yield f"- {type(first).__name__}: {first}"


def _post_processor_arguments(job: Job) -> Iterator[tuple[str, tuple[Any, FileData]]]:
    """Yield the arguments for a post-processor: for each member its name, result and file; for a failed file None and its error."""
    if job.failure is not None or job.prepared is None:
        yield "", (None, own_copy(job.file, error=job.failure))
    elif is_exploded(job.prepared):
        for name, member in members(job.prepared).items():
            yield name, (job.result[name], member)
    else:
        yield "", (job.result, own_copy(job.prepared))


def _processed(processor: ConfiguredStep, file: FileData) -> Any:
    """Return the result of a file; for an exploded folder, the results of its members by name."""
    if not is_exploded(file):
        return processor(file)
    results = {}
    for name, member in members(file).items():
        with naming(name):
            results[name] = processor(member)
    return results


def _json_result(processor: ConfiguredStep, file: FileData, record: dict[str, Any]) -> tuple[bytes, Any]:
    """Return the record with the processor's result as a line of JSON, and the result as read back from that line."""
    returned = _processed(processor, file)
    try:
        result = to_json(returned)
        try:
            line = json_line({**record, "result": result})
        except ValueError:
            check_writable(result)
            raise
        # Later readers use the same parser. It rejects some values that the encoder accepts, such as deeply nested lists.
        return line, from_json(line)["result"]
    except RecursionError as error:
        raise StageError(f"invalid result of {processor.name}: it is nested too deeply, or contains itself", "result") from error
    except ValueError as error:
        raise StageError(f"invalid result of {processor.name}: {error}", "result") from error
