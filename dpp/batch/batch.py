"""A batch: its name and its runs, and functions that start a run or join one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpp import names
from dpp.batch.folder import RunFolder, latest_run
from dpp.batch.request import Request
from dpp.batch.run import Run
from dpp.engine.pipeline import Pipeline, workspace_root
from dpp.errors import InputError
from dpp.manifest.catalog import write_catalog
from dpp.manifest.entries import Entry, listed
from dpp.manifest.readers import Files, Listed, bad_entry, check, describe_source, is_source, read
from dpp.manifest.sources import Existing
from dpp.models import key_of
from dpp.plugins.registry import Registry
from dpp.plugins.steps import Steps
from dpp.redact import redact_url
from dpp.settings import Settings
from dpp.shards import Census, Shard
from dpp.workspace.layout import Workspace
from dpp.workspace.locks import BatchLock

SHARING_SECONDS = 600.0
SHARING_PAUSE = 0.05


def batch_name(files: Files, steps: Steps, title: str = "", shard: str = "") -> str:
    """Return the name of a batch; the same manifest with the same steps is the same batch, and each shard of it is one of its own."""
    if not isinstance(files, (str, Path)):
        kind, where = "list", _list_identity(files)
    elif is_source(files):
        kind, where = names.stem(redact_url(str(files))), str(files)
    else:
        kind, where = Path(files).stem, os.path.realpath(files)
    parts = [where, steps.fingerprints()[2]]
    if shard:
        # So that shards can use one workspace: each has its lock and its runs.
        return f"{names.slug(title or kind)}-{shard.replace('/', 'of')}-{names.digest(*parts, shard, digits=10)}"
    return f"{names.slug(title or kind)}-{names.digest(*parts, digits=10)}"


def _list_identity(entries: Sequence[Any]) -> str:
    """Return a list as text that is the same in every process; "" if JSON cannot represent it."""
    try:
        return json.dumps(entries, default=lambda value: dict(value) if isinstance(value, Mapping) else str(value), sort_keys=True)
    # Reading the list reports the problem later.
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
    """Start a run of a batch, or join one in progress; all input is checked before anything is fetched.

    Args:
        files: The manifest: a path, a source that a plugin knows, or a list.
        settings: The settings.
        registry: The plugins.
        request: The rest of the user's request.
        workers: Number of processes that will work on the run.
        shared: Whether several processes may work on the batch through one scheduler.
        steps: The steps; None for those that the settings name.

    Raises:
        InputError: The manifest, a setting or a plugin is invalid.
        LockedError: Another process runs this batch.
        EnvironmentStop: The workspace cannot be written.
    """
    steps = steps or registry.steps(settings)
    request = request or Request(options=settings.options)
    schemes = set(registry.fetchers())
    registry.check_fetchers(settings)
    workspace = Workspace(workspace_root(settings))
    folder = workspace.batch(batch_name(files, steps, request.name, settings.shard))
    lock = BatchLock(folder / "lock")

    def begin() -> Run:
        last = latest_run(folder)
        if last is not None and last.summary() is None:
            workspace.sweep()
        run = Run(folder / "runs" / str(last.number + 1 if last else 1), registry, lock)
        run.workfile.check_free()
        existing, census = _existing(settings, registry), _census(settings)
        entries = _read_entries(files, settings, registry)
        if existing:
            entries = _without_existing(entries, existing, schemes, census, Pipeline(settings, registry, steps=steps))
        info = request.info(files, settings, steps).model_copy(update={"packages": registry.packages(steps)})
        run.begin(info, entries, settings, schemes, workers, existing, census)
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
    """Number of files in a manifest, and number of files that are skipped, as the destination has them."""

    total: int
    skipped: int


def write_listing(path: Path, files: Files, settings: Settings, registry: Registry) -> Listing:
    """Check a manifest as a run does, and write its files as one chunk of a catalog; do nothing else.

    Raises:
        InputError: The manifest or a setting is invalid.
    """
    existing, census, schemes = _existing(settings, registry), _census(settings), set(registry.fetchers())
    entries = _read_entries(files, settings, registry)
    chunks = write_catalog(
        path,
        describe_source(files),
        _without_existing(entries, existing, schemes, census) if existing else entries,
        schemes,
        lambda total: max(total, 1),
        skip_bad=settings.skip_bad,
        census=census,
    )
    return Listing(sum(chunk.size for chunk in chunks), census.skipped if census else existing.skipped if existing else 0)


def _shared_run(folder: Path, lock: BatchLock, begin: Callable[[], Run]) -> RunFolder:
    """Return the run in progress; if there is none, start one that other processes can join."""
    deadline = time.monotonic() + SHARING_SECONDS
    while time.monotonic() < deadline:
        if lock.try_exclusive():
            begin()
        if lock.try_shared():
            run = latest_run(folder)
            if run is not None and run.workfile.is_open():
                return run
        time.sleep(SHARING_PAUSE)
    raise lock.held_error()


def _existing(settings: Settings, registry: Registry) -> Existing | None:
    """Return the files of the ``skip_existing`` destination, which is listed once; None without such a setting."""
    place = settings.skip_existing
    if not place:
        return None
    return Existing(registry.source(place, settings, "skip_existing"))


def _census(settings: Settings) -> Census | None:
    """Return a counter of the manifest's entries for the run of a shard; None for the run of all files."""
    return Census(Shard.parse(settings.shard)) if settings.shard else None


def _without_existing(
    entries: Iterator[Entry], existing: Existing, schemes: Collection[str], census: Census | None, pipeline: Pipeline | None = None
) -> Iterator[Entry]:
    """Yield the entries of files that the destination does not have; with ``cleanup``, remove the targets of the others."""
    cleans = pipeline is not None and pipeline.settings.cleanup
    for entry in entries:
        if entry.fields is None or not existing.has(entry.fields):
            yield entry
        elif cleans or census:
            found = check(entry, schemes)
            file = (found if isinstance(found, Listed) else bad_entry(entry, found)).file
            if census:
                census.skip(key_of(file))
            # A run that was killed between an upload and its report has left the file's download and pre-processed output.
            if pipeline is not None and cleans:
                pipeline.forget(file)


def _read_entries(files: Files, settings: Settings, registry: Registry) -> Iterator[Entry]:
    found = registry.rows(str(files), settings) if isinstance(files, (str, Path)) else None
    entries = read(files, settings.encoding) if found is None else listed(found)
    return entries if settings.allow_empty else _at_least_one(entries, describe_source(files))


def _at_least_one(entries: Iterator[Entry], source: str) -> Iterator[Entry]:
    """Yield the entries, or raise InputError if there are none."""
    # What makes the list of a nightly job may have failed: "0 of 0 ok" would be taken for success.
    first = next(entries, None)
    if first is None:
        raise InputError(f"{source}: the list names no files; if that is right, use --allow-empty")
    yield first
    yield from entries
