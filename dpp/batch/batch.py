"""A batch: what identifies it, which runs it has, and beginning a run or joining one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from dpp import names
from dpp.batch.folder import RunFolder, latest_run
from dpp.batch.request import Request
from dpp.batch.run import Run
from dpp.engine.pipeline import Pipeline, workspace_root
from dpp.errors import ConfigurationError
from dpp.manifest.catalog import write_catalog
from dpp.manifest.readers import Entry, Files, describe_source, is_source, listed, read
from dpp.manifest.sources import Existing
from dpp.models import FileData
from dpp.plugins.registry import Registry
from dpp.plugins.steps import Steps
from dpp.redact import redact_url
from dpp.settings import Settings
from dpp.workspace.layout import Workspace
from dpp.workspace.locks import BatchLock

SHARING_SECONDS = 600.0
SHARING_PAUSE = 0.05


def batch_name(files: Files, steps: Steps, title: str = "") -> str:
    """Return the name of a batch: the same manifest through the same steps is the same batch."""
    if not isinstance(files, (str, Path)):
        kind, where = "list", _list_identity(files)
    elif is_source(files):
        kind, where = names.stem(redact_url(str(files))), str(files)
    else:
        kind, where = Path(files).stem, os.path.realpath(files)
    return f"{names.slug(title or kind)}-{names.digest(where, steps.fingerprints()[2], digits=10)}"


def _list_identity(entries: Sequence[Any]) -> str:
    """Return a list as text that is the same in every process; what can't be spelled is refused when it is read."""
    try:
        return json.dumps(entries, default=lambda value: dict(value) if isinstance(value, Mapping) else str(value), sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return ""


def open_run(
    files: Files,
    settings: Settings,
    registry: Registry,
    *,
    request: Request | None = None,
    workers: int = 1,
    shared: bool = False,
    steps: Steps | None = None,
) -> Run:
    """Begin a run of a batch, or join the one that others are at.

    Everything that the user can get wrong is found here, before anything is fetched.

    Args:
        files: The manifest: a path, a source that a plugin knows, or a list.
        settings: The settings.
        registry: The plugins.
        request: What else is asked.
        workers: Processes that are to work on it.
        shared: Whether several processes may work on the batch through one scheduler.
        steps: The steps, where they are not the ones that the settings name.

    Raises:
        InputError: The manifest, a setting or a plugin is wrong.
        LockedError: Somebody else runs this batch.
        EnvironmentStop: The workspace can't be written.
    """
    steps = steps or registry.steps(settings)
    request = request or Request(options=settings.options)
    schemes = set(registry.fetchers())
    registry.check_fetchers(settings)
    workspace = Workspace(workspace_root(settings))
    folder = workspace.batch(batch_name(files, steps, request.name))
    lock = BatchLock(folder / "lock")

    def begin() -> Run:
        last = latest_run(folder)
        if last is not None and last.summary() is None:
            workspace.sweep()
        run = Run(folder / "runs" / str(last.number + 1 if last else 1), registry, lock)
        existing = _existing(settings, registry)
        entries = _read_entries(files, settings, registry)
        if existing:
            entries = _without_existing(entries, existing, Pipeline(settings, registry, steps=steps))
        run.begin(request.info(files, settings, steps), entries, settings, schemes, workers, existing)
        registry.notify("dpp_batch_started", run=run.info.model_dump(mode="json"))
        return run

    try:
        if not shared:
            lock.exclusive()
            return begin()
        return Run(_shared_run(folder, lock, begin).folder, registry, lock)
    except BaseException:
        lock.release()
        raise


class Listing(NamedTuple):
    """How many files a manifest lists, and how many were left out, as they are where they should get to."""

    total: int
    skipped: int


def write_listing(path: Path, files: Files, settings: Settings, registry: Registry) -> Listing:
    """Check a manifest as a run does, and write the files it lists as one chunk of a catalog; nothing else.

    Raises:
        InputError: The manifest or a setting is wrong.
    """
    existing = _existing(settings, registry)
    entries = _read_entries(files, settings, registry)
    chunks = write_catalog(
        path,
        describe_source(files),
        _without_existing(entries, existing) if existing else entries,
        set(registry.fetchers()),
        lambda total: max(total, 1),
        skip_bad=settings.skip_bad,
    )
    return Listing(sum(chunk.size for chunk in chunks), existing.skipped if existing else 0)


def _shared_run(folder: Path, lock: BatchLock, begin: Callable[[], Run]) -> RunFolder:
    """Return the run that others are at; where there is none, begin one and let others join."""
    deadline = time.monotonic() + SHARING_SECONDS
    while time.monotonic() < deadline:
        if lock.try_exclusive():
            begin()
        if lock.try_shared():
            run = latest_run(folder)
            if run is not None and run.workfile.is_open():
                return run
        time.sleep(SHARING_PAUSE)
    raise lock.held()


def _existing(settings: Settings, registry: Registry) -> Existing | None:
    """Return what is at the place whose files are to be left out, listed once."""
    place = settings.skip_existing
    if not place:
        return None
    listed_there = registry.rows(place, settings)
    if listed_there is None:
        raise ConfigurationError(f"skip_existing: {redact_url(place)} is no folder, and no plugin lists it")
    return Existing(listed_there)


def _without_existing(entries: Iterator[Entry], existing: Existing, pipeline: Pipeline | None = None) -> Iterator[Entry]:
    """Yield the entries of files that are not there yet; a pipeline with ``cleanup`` forgets what an earlier run had of the others.

    A run that was killed after it had uploaded a file, and before it could say so, leaves that file's copies behind.
    """
    for entry in entries:
        if entry.fields is None or not existing.has(entry.fields):
            yield entry
        elif pipeline is not None and pipeline.settings.cleanup:
            with suppress(ValidationError):
                pipeline.forget(FileData.model_validate(entry.fields))


def _read_entries(files: Files, settings: Settings, registry: Registry) -> Iterator[Entry]:
    found = registry.rows(str(files), settings) if isinstance(files, (str, Path)) else None
    return read(files) if found is None else listed(found)
