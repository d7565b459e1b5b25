"""Complete downloads: what their sidecars record, and whether they still are what was verified."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from dpp import media
from dpp.errors import StageError
from dpp.models import FileData
from dpp.workspace.atomic import StrPath, read_json, write_json
from dpp.workspace.layout import DownloadPaths
from dpp.workspace.locks import Hold


class FileState(NamedTuple):
    """What a write to a file changes, unless it is undone; hard links and modes change ``changed_ns`` as well."""

    size: int
    mtime_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class Download:
    """A complete download.

    Attributes:
        path: Path of the file.
        size: Size in bytes.
        sha256: SHA-256 digest.
        digests: Other digests that were computed, by algorithm.
        content_type: Content-Type that the source stated, or None.
        media_type: Media type, or None; see :func:`dpp.media.media_type`.
        source_version: Version of the source, or None; see :meth:`dpp.base.BaseFetcher.source_version`.
        is_recorded: Whether the sidecar has all of this; false after a digest or a time of modification was looked up.
        hold: Shared lock that keeps other processes from removing the file; None if nothing removes files.
    """

    path: Path
    size: int
    sha256: str
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    content_type: str | None = None
    media_type: str | None = None
    source_version: str | None = None
    is_recorded: bool = True
    hold: Hold | None = None

    def release(self) -> None:
        """Release the lock, so that other processes can remove the file."""
        if self.hold is not None:
            self.hold.release()


def load_download(paths: DownloadPaths, file: FileData) -> Download | None:
    """Return the download if it exists, has the size in its sidecar, and matches the manifest; else None.

    A digest in the manifest that the sidecar does not have is computed from the file.
    """
    sidecar = read_json(paths.sidecar)
    if not isinstance(sidecar, dict):
        return None
    size, sha256 = sidecar.get("size"), sidecar.get("sha256")
    if not isinstance(size, int) or not isinstance(sha256, str):
        return None
    try:
        state = os.stat(paths.body)
        if state.st_size != size or not _is_expected(sidecar, file):
            return None
        found = recorded(paths.body, sidecar)
        if (mtime := sidecar.get("mtime_ns")) != state.st_mtime_ns:
            # That of a copied workspace, or of a program that has written to the download.
            if mtime is not None and _digest(found.path, "sha256") != sha256:
                return None
            found = replace(found, is_recorded=False)
        return _with_digests(found, file.digests) if file.digests else found
    except OSError:
        return None


def _is_expected(sidecar: Mapping[str, Any], file: FileData) -> bool:
    """Whether a sidecar matches the manifest, except for the digests that have to be computed."""
    if file.expect_type and not media.fits(sidecar.get("media_type"), file.expect_type):
        return False
    return file.size in (None, sidecar["size"]) and file.sha256 in (None, sidecar["sha256"])


def recorded(body: StrPath, sidecar: Mapping[str, Any]) -> Download:
    """Return the download that a sidecar describes."""
    digests = sidecar.get("digests")
    facts: dict[str, Any] = {name: sidecar.get(name) for name in ("content_type", "media_type", "source_version")}
    return Download(Path(body), sidecar["size"], sidecar["sha256"], digests if isinstance(digests, dict) else {}, **facts)


def _with_digests(download: Download, expected: Mapping[str, str]) -> Download | None:
    """Return a download with these digests; None if it has others."""
    found = {algorithm: _digest(download.path, algorithm) for algorithm in expected.keys() - download.digests.keys()}
    known = {**download.digests, **found}
    if not expected.items() <= known.items():
        return None
    return replace(download, digests=known, is_recorded=False) if found else download


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, functools.partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()


def record_verified(paths: DownloadPaths, download: Download) -> None:
    """Add what was found out about a download to its sidecar, so that the next run need not read the file."""
    if download.is_recorded or not isinstance(sidecar := read_json(paths.sidecar), dict):
        return
    digests = {"digests": dict(download.digests)} if download.digests else {}
    write_json(paths.sidecar, {**sidecar, **digests, "mtime_ns": os.stat(paths.body).st_mtime_ns})


def state_of(path: Path) -> FileState | None:
    """Return the state of a file; None if it cannot be found."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return FileState(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def check_unmodified(download: Download, before: FileState | None, who: str) -> None:
    """Raise StageError if a download has other content than before some steps ran.

    Args:
        download: The download.
        before: Its state before the steps.
        who: The steps, for the message.
    """
    # Its modes do not stop a process of root. Looking at it takes 3 microseconds; it is read only if something changed, such as the
    # number of its hard links, which another file of the same URL may have changed.
    if (now := state_of(download.path)) == before:
        return
    if now is None or now.size != download.size or _digest(download.path, "sha256") != download.sha256:
        raise StageError(f"{who} changed the download in place; a step must leave its input as it is and write into output_dir", "modified")
