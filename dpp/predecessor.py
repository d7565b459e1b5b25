"""The interface of dpp's predecessor: one class that runs a batch with threads of this process, without Luigi.

Differences from ``download-pipeline-processor``: the exit code is 1 if a file failed, a pre-processor that returns None fails
its file, and a constructor that raises loses no files.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpp.batch.batch import open_run
from dpp.batch.run import Run
from dpp.engine.pipeline import Pipeline
from dpp.logs import set_up_logging
from dpp.models import FileData
from dpp.plugins.builtin import Checksum
from dpp.plugins.registry import registry
from dpp.plugins.steps import ConfiguredStep, Steps, with_debug
from dpp.report.summary import Summary
from dpp.settings import CACHE_VARIABLE, Settings, make_settings

log = logging.getLogger(__name__)


class ProcessingPipeline:
    """Download files, pre-process, process and post-process them with threads of this process.

    Args:
        pre_processor_class: A class with ``pre_process(file)``, or None for none.
        processor_class: A class with ``process(file)``, or None for the built-in ``checksum``.
        post_processor_class: A class with ``post_process(result, file)``, or None for none.
        processing_limit: Maximum files processed at once.
        download_queue_size: Maximum downloaded files waiting.
        pre_processing_queue_size: Maximum pre-processed files waiting.
        download_cache: Folder that keeps downloads and results, so that a second run does only what is missing; by default
            ``$CACHE_DIR``, or a temporary folder that is removed at the end.
        simulate_downloads: Download nothing; sleep 1 to 3 seconds per file unless ``PIPELINE_NO_SLEEP`` is set.
        debug: Write detailed logs with thread names; passed to classes that accept ``debug``.
        log_file: File to append the log to as well.
        attempts: Maximum attempts per URL.

    Attributes:
        summary: The summary of the last run; None before the first.
    """

    def __init__(
        self,
        pre_processor_class: type[Any] | None = None,
        processor_class: type[Any] | None = None,
        post_processor_class: type[Any] | None = None,
        processing_limit: int = 3,
        download_queue_size: int = 10,
        pre_processing_queue_size: int = 10,
        download_cache: str | Path | None = None,
        simulate_downloads: bool = False,
        debug: bool = False,
        log_file: str | Path | None = None,
        attempts: int = 3,
    ) -> None:
        self.summary: Summary | None = None
        self._classes = (pre_processor_class, processor_class or Checksum, post_processor_class)
        self._cache = download_cache or os.environ.get(CACHE_VARIABLE)
        self._values = {
            "processing_limit": processing_limit,
            "download_queue_size": download_queue_size,
            "pre_processing_queue_size": pre_processing_queue_size,
            "simulate_downloads": simulate_downloads,
            "debug": debug,
            "log_file": str(log_file or ""),
            "attempts": attempts,
        }

    def run(self, files: str | Path | Sequence[Mapping[str, Any]]) -> int:
        """Run a batch.

        Args:
            files: A manifest, or a list of dicts, each with at least a ``url``.

        Returns:
            0 if every file is ok, 1 if a file failed, 130 if the user interrupted the run.

        Raises:
            InputError: The manifest or a class is invalid; nothing was fetched.
            EnvironmentStop: The environment stopped the run, such as a full disk.
        """
        with self._workspace() as folder:
            # The predecessor accepts an empty list. One chunk: all files are run in this process.
            settings = make_settings({**self._values, "workspace": folder, "chunk_size": 1_000_000_000, "allow_empty": True})
            set_up_logging(settings)
            steps = self._steps(settings)
            run = open_run(files, settings, registry(), steps=steps)
            try:
                return self._worked(run, run.pipeline(steps))
            finally:
                run.release()

    def _worked(self, run: Run, pipeline: Pipeline) -> int:
        interrupted = False
        try:
            run.work(pipeline, self._files(run), "files")
        except KeyboardInterrupt:
            interrupted = True
            log.warning("interrupted; run again to finish the rest")
        summary, code = run.conclude(interrupted=interrupted)
        # The temporary folder is removed with the results in it.
        self.summary = summary if self._cache else summary.model_copy(update={"folder": ""})
        return code

    @staticmethod
    def _files(run: Run) -> Iterator[FileData]:
        for chunk in run.workfile.chunks():
            yield from run.workfile.files(chunk)

    def _steps(self, settings: Settings) -> Steps:
        before, processor, after = (
            [ConfiguredStep(kind, cls, with_debug(cls, {}, settings.debug))] if cls else []
            for kind, cls in zip(("pre-processor", "processor", "post-processor"), self._classes, strict=True)
        )
        return Steps(before, processor[0], after)

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        if self._cache:
            yield Path(self._cache)
            return
        with tempfile.TemporaryDirectory(prefix="dpp-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
