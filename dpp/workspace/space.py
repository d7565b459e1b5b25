"""The file system of the workspace: its free space, whether a plugin's error is about it, and which downloads filled it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic_core import from_json

from dpp import names
from dpp.errors import errors_behind
from dpp.streams import write_all
from dpp.workspace.atomic import StrPath, json_line, remove, stops_run, temporary_name

PROBE_BYTES = 1024 * 1024
_OF_A_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
# Those of a file server that is gone, or of its client in user space (FUSE).
_OF_A_FILE_SERVER = frozenset({errno.ESTALE, errno.EREMOTEIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN})


def free_bytes(folder: Path) -> int:
    """Return the free bytes in the file system of a folder, which may not exist yet.

    Raises:
        OSError: They cannot be determined.
    """
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


@contextmanager
def stops_run_if_full(folder: StrPath) -> Iterator[None]:
    """Turn an exception of a plugin into EnvironmentStop if the file system of a folder is full or cannot be written.

    A plugin may meet the same errors on another disk; that is no reason to stop the run.

    Args:
        folder: An existing folder of the workspace.
    """
    try:
        yield
    except Exception as error:
        stop_run_if_full(folder, error)
        raise


def stop_run_if_full(folder: StrPath, error: BaseException) -> None:
    """Raise EnvironmentStop if an exception is about a disk, and the file system of a folder is full or cannot be written."""
    if any(map(_is_of_a_disk, errors_behind(error))):
        _check_writable(folder)


def _is_of_a_disk(error: BaseException) -> bool:
    # shutil.copytree raises shutil.Error, which has the errors of its files as texts only.
    return isinstance(error, shutil.Error) or (isinstance(error, OSError) and error.errno in _OF_A_DISK | _OF_A_FILE_SERVER)


def _check_writable(folder: StrPath) -> None:
    """Write a file of 1 MiB into a folder, and remove it; raise EnvironmentStop if that fails."""
    # statvfs(2) knows neither quotas nor disks that fail.
    path = temporary_name(f"{os.fspath(folder)}/probe")
    with stops_run(folder):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, bytes(PROBE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            with suppress(OSError):
                os.unlink(path)


def can_write(path: str) -> bool:
    """Whether this process may write a file in its folder, or into a folder; the nearest one that exists if it is missing."""
    # Path.exists raises PermissionError below a folder that this process may not search.
    place = next(place for place in (path, *map(str, Path(path).parents)) if os.path.exists(place))
    folder = place if Path(place).is_dir() else os.path.dirname(place) or "."
    return os.access(place, os.W_OK, effective_ids=True) and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


class StoppedDownloads:
    """The files whose download or pre-processing a full disk stopped, in a file of their batch: the next run tries them last.

    Args:
        path: The file, with one JSON object per line; URLs are stored as digests.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, url: str, size: int) -> None:
        """Add a download, with the bytes that it had received."""
        with suppress(OSError), self._path.open("ab") as stream:
            stream.write(json_line({"url": names.digest(url), "bytes": size}))

    def sizes(self) -> dict[str, int]:
        """Return the bytes received, by digest of the URL."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return {line["url"]: line["bytes"] for line in map(from_json, self._path.read_bytes().splitlines())}
        return {}

    def forget(self) -> None:
        """Remove the file."""
        remove(self._path)
