"""Predict what a run would do with each file of a batch, and why."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel

from dpp.batch.batch import batch_name, write_listing
from dpp.download.partial import PartFile
from dpp.engine.pipeline import Job, Pipeline, workspace_root
from dpp.errors import EnvironmentStop
from dpp.manifest.catalog import Chunk, read_catalog
from dpp.manifest.readers import Files
from dpp.models import FileData, Outcome
from dpp.plugins.registry import Registry
from dpp.redact import redact_url
from dpp.settings import Settings
from dpp.workspace.atomic import list_folder
from dpp.workspace.ledger import read_outcome
from dpp.workspace.space import free_bytes

Action = Literal["nothing", "download", "pre-process", "process", "report"]


class Prediction(BaseModel):
    """What a run would do with one file.

    Attributes:
        id: The file's id.
        url: Its URL without secrets.
        action: The first stage that would run; ``nothing`` if the file is done.
        reason: Why; the same text for all files with the same reason.
        bytes: Bytes to download; None if unknown.
        have: Bytes of a partial download that would be continued.
    """

    id: str
    url: str
    action: Action
    reason: str
    bytes: int | None = None
    have: int = 0


class Group(BaseModel):
    """Files with the same action and reason.

    Attributes:
        action: The first stage that would run.
        reason: Why.
        files: Number of files.
        bytes: Bytes to download, for files of known size.
        unknown: Number of downloads of unknown size.
    """

    action: Action
    reason: str
    files: int = 0
    bytes: int = 0
    unknown: int = 0

    def add(self, prediction: Prediction) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += prediction.bytes or 0
        self.unknown += prediction.action == "download" and prediction.bytes is None


class PlanSummary(BaseModel):
    """What a run would do with all files.

    Attributes:
        batch: The batch's name.
        total: Files in the batch.
        skipped: Files skipped because the destination has them (``skip_existing``).
        groups: Files by action and reason, the largest group first.
        bytes: Bytes to download, for files of known size.
        unknown: Number of downloads of unknown size.
        free: Free bytes in the file system of the workspace.
    """

    batch: str
    total: int
    skipped: int
    groups: list[Group]
    bytes: int
    unknown: int
    free: int


class DryRun:
    """What a run of a batch would do, as a context manager.

    Args:
        files: The manifest, as for a run.
        settings: The settings.
        registry: The plugins.
        name: The name of the batch; the manifest's name if empty.

    Raises:
        InputError: The manifest, a setting or a plugin is invalid.
        OSError: A folder of the workspace cannot be read.
    """

    def __init__(self, files: Files, settings: Settings, registry: Registry, name: str = "") -> None:
        steps = registry.steps(settings)
        registry.check_fetchers(settings)
        registry.executor(settings, workers=1)
        _check_readable(workspace_root(settings))
        self.batch = batch_name(files, steps, name, settings.shard)
        self._pipeline = Pipeline(settings, registry, steps=steps)
        # Nothing is written to the workspace, and the manifest may be too large for memory.
        self._folder = tempfile.TemporaryDirectory(prefix="dpp-plan-")
        try:
            listed = write_listing(Path(self._folder.name, "files.jsonl"), files, settings, registry)
        except BaseException:
            self._folder.cleanup()
            raise
        self.total, self.skipped = listed.total, listed.skipped
        self._groups: dict[tuple[str, str], Group] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipeline.close()
        self._folder.cleanup()

    def predictions(self) -> Iterator[Prediction]:
        """Yield the prediction for each file in the order of the manifest, and count it for the summary."""
        for file in read_catalog(Path(self._folder.name, "files.jsonl"), Chunk(0, self.total)):
            found = predict(file, self._pipeline)
            group = self._groups.setdefault((found.action, found.reason), Group(action=found.action, reason=found.reason))
            group.add(found)
            yield found

    def summary(self) -> PlanSummary:
        """Return the summary of the files that :meth:`predictions` has yielded."""
        groups = sorted(self._groups.values(), key=lambda group: -group.files)
        return PlanSummary(
            batch=self.batch,
            total=self.total,
            skipped=self.skipped,
            groups=groups,
            bytes=sum(group.bytes for group in groups),
            unknown=sum(group.unknown for group in groups),
            free=_free_bytes(workspace_root(self._pipeline.settings)),
        )


def _check_readable(workspace: Path) -> None:
    """Raise OSError if a folder of the workspace cannot be read: its files would count as missing."""
    for folder in filter(Path.is_dir, list_folder(workspace)):
        list_folder(folder)


def _free_bytes(folder: Path) -> int:
    """Return the free bytes in the file system of a folder."""
    try:
        return free_bytes(folder)
    except OSError as error:
        raise EnvironmentStop(f"cannot determine the free space of {folder}: {error.strerror}") from error


def predict(file: FileData, pipeline: Pipeline) -> Prediction:
    """Return what a run would do with a file."""
    entry = {"id": file.id, "url": redact_url(file.url)}
    if pipeline.recall(Job(file)):
        return Prediction(**entry, action="nothing", reason="already done")
    last = read_outcome(pipeline.report_path(file))
    failed = None if last is None or last.ok else last
    if not pipeline.has_download(file):
        return _download(file, pipeline, last, entry)
    if not pipeline.has_prepared(file):
        action, reason = "pre-process", _missing(pipeline, "pre_processed", file, "other pre-processors")
    elif not pipeline.has_result(file):
        action, reason = "process", _missing(pipeline, "processed", file, "another step, version or options")
    else:
        action, reason = "report", _missing(pipeline, "reports", file, "other post-processors")
    return Prediction(**entry, action=action, reason=_failed_in(failed) if failed else reason)


def _download(file: FileData, pipeline: Pipeline, last: Outcome | None, entry: dict[str, str]) -> Prediction:
    paths = pipeline.workspace.download(file)
    part = PartFile(paths)
    part.open_for((file.urls or [file.url])[-1])
    have, total = part.offset, file.size if file.size is not None else part.total
    reason = _why_downloaded(file, pipeline, last)
    return Prediction(
        **entry,
        action="download",
        reason=f"{reason}, partial download continues" if have else reason,
        bytes=None if total is None else max(0, total - have),
        have=have,
    )


def _why_downloaded(file: FileData, pipeline: Pipeline, last: Outcome | None) -> str:
    """Return the reason why there is no download to use, given the file's last outcome."""
    if last is not None and not last.ok:
        return _failed_in(last)
    if pipeline.source_has_changed(file, last):
        return "its source has changed"
    return "differs from the manifest or its sidecar" if os.path.exists(pipeline.workspace.download(file).body) else "new"


def _failed_in(outcome: Outcome) -> str:
    return f"failed before: {outcome.error_class}"


def _missing(pipeline: Pipeline, kind: str, file: FileData, other: str) -> str:
    """Return the reason why there is no target: other steps made it, or none did."""
    return f"done with {other}" if pipeline.workspace.has_others(kind, file) else "not done yet"
