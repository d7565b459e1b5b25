"""Fetch ``file:`` URLs (RFC 8089), and fail the invalid entries of a manifest."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from dpp.base import BaseFetcher, Part
from dpp.errors import FetchError
from dpp.manifest.sources import local_path, why_refused
from dpp.models import FileData
from dpp.settings import Settings

_BLOCK = 1024 * 1024
_PLAIN_URL = re.compile(r"file:///[^%?#]+")


class LocalFetcher(BaseFetcher):
    """Copy a file of this machine, unless it belongs to the system or the workspace."""

    settings: Settings

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Copy the file into the part; see :class:`dpp.base.BaseFetcher`."""
        path = local_path(url)
        try:
            _copy(path, part, self.settings.workspace)
        except FileNotFoundError as error:
            raise FetchError(f"file not found: {path}", "not-found") from error
        except PermissionError as error:
            raise FetchError(f"no permission to read {path}", "permission") from error
        except OSError as error:
            raise FetchError(f"cannot read {path}: {error.strerror}", "read", retryable=True) from error

    def source_version(self, url: str, file: FileData) -> str | None:
        """Return the size and modification time of the file; see :class:`dpp.base.BaseFetcher`."""
        return local_version(url)


class BadEntryFetcher(BaseFetcher):
    """Fail the placeholder of an invalid manifest entry with the entry's problems; see ``skip_bad``."""

    checks_peers = True

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Raise FetchError."""
        raise FetchError(getattr(file, "problem", "invalid manifest entry"), "manifest")


def local_version(url: str) -> str | None:
    """Return the size in bytes and the modification time in nanoseconds of a ``file:`` URL's file, as text; None if it has no such file."""
    # A rerun calls this for every complete file. It takes 7 microseconds on a local disk, most of them for os.stat (and a round trip on
    # a network's), but 25 with local_path(). Reading the file would also find a change that keeps size and time, but takes as long as
    # the first run.
    try:
        return _version(os.stat(url[7:] if _PLAIN_URL.fullmatch(url) else local_path(url)))
    except (OSError, FetchError):
        return None


def _version(state: os.stat_result) -> str:
    return f"{state.st_size}-{state.st_mtime_ns}"


def _copy(path: Path, part: Part, workspace: Path) -> None:
    # Only a regular file is opened: opening a device may change it.
    _check_regular(path, path.stat())
    # If a pipe has taken its place meanwhile, opening it must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        _check_regular(path, status)
        # The link of the open file shows its real path, also if a link on the way has changed meanwhile (proc(5)).
        if why_refused(f"/proc/self/fd/{source.fileno()}", workspace):
            raise FetchError(why_refused(path, workspace) or f"{path} has just been replaced by a link", "refused")
        part.begin(0, total=status.st_size, source_version=_version(status))
        while data := source.read(_BLOCK):
            part.write(data)
        if _version(os.fstat(source.fileno())) != _version(status):
            text = f"{path} was changed while it was copied; run again when nothing writes to it"
            raise FetchError(text, "changed", retryable=True)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FetchError(f"not a regular file: {path}", "not-a-file")
