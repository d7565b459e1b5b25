"""Paths of the targets in a workspace."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from dpp import names
from dpp.models import FileData, expected_digest, key_of
from dpp.workspace.atomic import is_abandoned, remove, stops_run
from dpp.workspace.locks import FolderLock, Hold, share_folder

SIDECAR_SUFFIX = ".dpp.json"
PART_SUFFIX = ".part"
FOLDERS = ("batches", "downloads", "pre_processed", "processed", "reports", "simulated")


def _is_orphaned_fact(name: str, beside: Sequence[str]) -> bool:
    """Whether this is the name of the facts of a part that does not exist."""
    # This happens if a process dies right after it has renamed the part to the download.
    return name.endswith(PART_SUFFIX + SIDECAR_SUFFIX) and name.removesuffix(SIDECAR_SUFFIX) not in beside


class DownloadPaths:
    """The paths of a download: its body, its sidecar, its part and the facts of the part.

    Args:
        folder: The folder of the download.
        name: Its file name.
    """

    # Plain strings, as a Path takes several microseconds to make, and each file uses about ten of them.
    __slots__ = ("body", "folder", "part", "part_facts", "sidecar")

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.body = f"{folder}/{name}"
        self.sidecar = self.body + SIDECAR_SUFFIX
        self.part = self.body + PART_SUFFIX
        self.part_facts = self.part + SIDECAR_SUFFIX

    def lock(self, sleep: Callable[[float], None] = time.sleep) -> FolderLock:
        """Return an exclusive lock on this download, which calls ``sleep`` while it waits for another holder."""
        return FolderLock(self.folder, sleep)

    def hold(self) -> Hold | None:
        """Take a shared lock on this download; return None if its folder does not exist, or another process holds it exclusively."""
        return share_folder(self.folder)

    def received(self) -> int:
        """Return the number of bytes in the part; 0 if there is none."""
        try:
            return os.stat(self.part).st_size
        except OSError:
            return 0

    def discard(self) -> None:
        """Remove the download and its folder, unless the folder has other files."""
        # The sidecar goes first, as it is what makes a download complete.
        self._discard(self.sidecar, self.part_facts, self.part, self.body)

    def discard_part(self) -> None:
        """Remove the part of a download and its folder, unless the folder has other files."""
        self._discard(self.part_facts, self.part)

    def _discard(self, *paths: str) -> None:
        with stops_run(self.folder):
            for path in paths:
                remove(path)
            with suppress(OSError):
                Path(self.folder).rmdir()


class Workspace:
    """The folder that holds all targets.

    Args:
        root: The folder; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = str(root)

    def download(self, file: FileData) -> DownloadPaths:
        """Return the paths of a file's download; files of the same identity share a folder."""
        key = names.download_key(file.url, expected_digest(file), file.expect_version)
        name = names.safe_name(names.basename(file.url) if file.name == names.stem(file.url) else file.name)
        return DownloadPaths(f"{self._root}/downloads/{names.subfolder(key)}/{key}", name)

    def pre_processed(self, fingerprint: str, file: FileData) -> str:
        """Return the folder of a file's pre-processed output; its record is beside it."""
        return self._keyed_by_file("pre_processed", fingerprint, file, "")

    def processed(self, fingerprint: str, file: FileData) -> str:
        """Return the path of a processor's result."""
        return self._keyed_by_file("processed", fingerprint, file, ".json")

    def report(self, fingerprint: str, file: FileData) -> str:
        """Return the path of a file's report; a file is complete once its report exists."""
        return self._keyed_by_file("reports", fingerprint, file, ".json")

    def has_others(self, kind: str, file: FileData) -> bool:
        """Whether a file has a target of this kind, made by any steps.

        Args:
            kind: ``pre_processed`` or ``processed`` or ``reports``.
            file: The file.
        """
        with suppress(FileNotFoundError):
            paths = (self._keyed_by_file(kind, fingerprint, file, ".json") for fingerprint in os.listdir(f"{self._root}/{kind}"))
            return any(map(os.path.exists, paths))
        return False

    def batch(self, name: str) -> Path:
        """Return the folder of a batch."""
        return self.root / "batches" / name

    def _keyed_by_file(self, kind: str, fingerprint: str, file: FileData, suffix: str) -> str:
        return self.keyed(kind, fingerprint, key_of(file)) + suffix

    def keyed(self, kind: str, fingerprint: str, key: str) -> str:
        """Return the path of a file's target without its suffix, given the file's key.

        Args:
            kind: ``pre_processed``, ``processed`` or ``reports``.
            fingerprint: Fingerprint of the steps that make it.
            key: Key of the file.
        """
        return f"{self._root}/{kind}/{fingerprint}/{names.subfolder(key)}/{key}"

    def sweep(self) -> None:
        """Remove what dead processes left among the targets: temporary files and folders, and facts of parts that do not exist."""
        for folder, folders, files in os.walk(self._root):
            of_downloads = folder.startswith(f"{self._root}/downloads/")
            for name in files:
                if is_abandoned(name) or (of_downloads and _is_orphaned_fact(name, files)):
                    remove(f"{folder}/{name}")
            for name in filter(is_abandoned, folders):
                shutil.rmtree(Path(folder, name), ignore_errors=True)
