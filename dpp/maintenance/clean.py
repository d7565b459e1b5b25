"""The cleaner: find and remove data of a workspace that is no longer needed."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dpp import names
from dpp.batch.folder import RunFolder, latest_runs
from dpp.models import Outcome
from dpp.workspace.atomic import discard, is_abandoned, is_temporary, list_folder, read_json, remove, stops_run
from dpp.workspace.layout import PART_SUFFIX, SIDECAR_SUFFIX, DownloadPaths
from dpp.workspace.locks import BatchLock

CLEANABLE = {
    "downloads": "downloads of files that are ok",
    "pre_processed": "pre-processed files of files that are ok",
    "parts": "partial downloads, which a run would continue",
    "temporary": "temporary files of processes that no longer exist or older than a day, and file lists of killed runs",
    "results": "batches replaced by a newer version of a step, and targets that no batch uses",
    "runs": "older runs of each batch",
}
OLD_SECONDS = 86_400.0


class Item(NamedTuple):
    """A file or folder that can be removed.

    Attributes:
        kind: One of ``CLEANABLE``.
        path: The file or folder.
        files: Number of files.
        bytes: Their size.
    """

    kind: str
    path: Path
    files: int
    bytes: int


class Cleaner:
    """Find and remove data that is no longer needed.

    Args:
        root: The workspace.
        keep_runs: Number of newest runs to keep of each batch.
    """

    def __init__(self, root: Path, keep_runs: int = 1) -> None:
        self._root = root
        self._keep_runs = keep_runs
        self._last = latest_runs(root)
        self._workfiles = [run.workfile.folder for run in self._last if not run.is_held()]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock all batches of the workspace.

        Raises:
            LockedError: Another process runs one of them.
        """
        with ExitStack() as stack:
            for run in self._last:
                lock = BatchLock(run.folder.parent.parent / "lock")
                stack.callback(lock.release)
                lock.exclusive()
            yield

    def items(self, kinds: Collection[str]) -> Iterator[Item]:
        """Yield the items of these kinds that can be removed."""
        found = {
            "downloads": self._downloads,
            "pre_processed": self._prepared,
            "parts": lambda: self._root.glob(f"downloads/*/*/*{PART_SUFFIX}"),
            "temporary": self._temporary,
            "results": self._results,
            "runs": self._runs,
        }
        for kind in kinds:
            yield from (Item(kind, path, *_measure_item(path)) for path in found[kind]())

    def free(self, item: Item) -> bool:
        """Remove an item; return False if another process is using it.

        Raises:
            EnvironmentStop: It cannot be removed.
        """
        if item.kind in ("downloads", "parts"):
            return _free_download(item)
        with stops_run(item.path):
            if item.kind == "pre_processed":
                discard(item.path)
            elif item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                remove(item.path)
        return True

    @cached_property
    def _known(self) -> _Known:
        known = _Known()
        for run in self._last:
            chain = next(iter(run.info.fingerprints), "")
            for outcome in run.results():
                known.add(outcome, chain)
        return known

    def _downloads(self) -> Iterator[Path]:
        for path in self._root.glob(f"downloads/*/*/*{SIDECAR_SUFFIX}"):
            sidecar = read_json(path)
            if not path.name.endswith(PART_SUFFIX + SIDECAR_SUFFIX) and isinstance(sidecar, dict) and self._known.is_done(sidecar):
                yield path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))

    def _prepared(self) -> Iterator[Path]:
        for path in self._root.glob("pre_processed/*/*/*.json"):
            if self._known.is_prepared(path.parts[-3], path.stem):
                yield path.with_suffix("")

    def _temporary(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self._root):
            left = {name for name in (*folders, *files) if is_abandoned(name) or _is_old_temporary(folder, name)}
            yield from (Path(folder, name) for name in sorted(left))
            folders[:] = [name for name in folders if name not in left]
        yield from filter(Path.exists, self._workfiles)

    def _results(self) -> Iterator[Path]:
        """Yield batches replaced by a newer version of a step, and folders of targets that no other batch uses."""
        kept, replaced = _by_age(self._last)
        used = [run.info.fingerprints for run in kept]
        # If one run does not record its fingerprints, any folder may be in use.
        if not all(used) or not used:
            return
        yield from (run.folder.parent.parent for run in replaced)
        for kind, names_used in zip(("pre_processed", "processed", "reports"), zip(*used, strict=True), strict=True):
            yield from (path for path in list_folder(self._root / kind) if path.name not in names_used)

    def _runs(self) -> Iterator[Path]:
        for last in _by_age(self._last)[0]:
            folders = [path for path in last.folder.parent.iterdir() if path.name.isdigit()]
            yield from sorted(folders, key=lambda path: int(path.name))[: -self._keep_runs]


class _Known:
    """The outcomes in the last runs of all batches."""

    # Only hashes of URLs and keys, as there may be millions.
    def __init__(self) -> None:
        self._ok: set[int] = set()
        self._wanted: set[int] = set()
        self._prepared: dict[str, set[int]] = defaultdict(set)
        self._to_do: dict[str, set[int]] = defaultdict(set)

    def add(self, outcome: Outcome, chain: str) -> None:
        if outcome.ok:
            self._ok.add(names.mark(f"{outcome.sha256} {outcome.url}"))
        else:
            self._wanted.add(names.mark(outcome.url))
        (self._prepared if outcome.ok else self._to_do)[chain].add(names.mark(outcome.key))

    def is_done(self, sidecar: dict[str, object]) -> bool:
        """Return whether a download belongs to a file that is ok, and to no file that failed."""
        url = str(sidecar.get("url"))
        return names.mark(f"{sidecar.get('sha256')} {url}") in self._ok and names.mark(url) not in self._wanted

    def is_prepared(self, chain: str, key: str) -> bool:
        return names.mark(key) in self._prepared[chain] and names.mark(key) not in self._to_do[chain]


def _by_age(newest_first: Iterable[RunFolder]) -> tuple[list[RunFolder], list[RunFolder]]:
    """Return the last runs of current batches, and those of batches replaced by one with the same files and newer steps."""
    kept: dict[str, RunFolder] = {}
    replaced = []
    for run in newest_first:
        info = run.info
        steps = [(step["kind"], step["name"], step["options"]) for step in info.plugins]
        identity = repr((info.source, info.name, steps)) if info.source else run.batch
        if kept.setdefault(identity, run) is not run:
            replaced.append(run)
    return list(kept.values()), replaced


def _is_old_temporary(folder: str, name: str) -> bool:
    """Whether a temporary file was last changed so long ago that its process must have ended."""
    # No run of the workspace can be the owner, as all batches are locked. Files of other machines and containers, and those from
    # before a reboot, are found in this way only.
    try:
        return is_temporary(name) and time.time() - os.lstat(Path(folder, name)).st_mtime > OLD_SECONDS
    except FileNotFoundError:
        return False


def _free_download(item: Item) -> bool:
    """Remove a download or its part; return False if another process is using it."""
    name = item.path.name.removesuffix(PART_SUFFIX) if item.kind == "parts" else item.path.name
    paths = DownloadPaths(str(item.path.parent), name)
    hold = paths.hold()
    if hold is None:
        return False
    try:
        if is_free := hold.try_exclusive():
            (paths.discard_part if item.kind == "parts" else paths.discard)()
        return is_free
    finally:
        hold.release()


def _measure_item(path: Path) -> tuple[int, int]:
    """Return the number of files that would be removed, and their size in bytes."""
    # A link counts as a file: it is removed, its target is not.
    if path.is_dir() and not path.is_symlink():
        sizes = [os.lstat(Path(folder, name)).st_size for folder, _, files in os.walk(path) for name in files]
        return len(sizes), sum(sizes)
    return (1, os.lstat(path).st_size) if os.path.lexists(path) else (0, 0)
