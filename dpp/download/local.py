"""Fetching ``file:`` URLs (RFC 8089): a copy, digested on the way. And what cannot be fetched: entries that are none."""

from __future__ import annotations

import stat
from pathlib import Path

from dpp.base import BaseFetcher, Part
from dpp.errors import FetchError
from dpp.manifest.sources import local_path
from dpp.models import FileData

_BLOCK = 1024 * 1024


class LocalFetcher(BaseFetcher):
    """Copy a file of this machine."""

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Copy the file into the part; see :class:`dpp.base.BaseFetcher`."""
        path = local_path(url)
        try:
            _copy(path, part)
        except FileNotFoundError as error:
            raise FetchError(f"there is no file {path}", "not-found") from error
        except PermissionError as error:
            raise FetchError(f"no permission to read {path}", "permission") from error
        except OSError as error:
            raise FetchError(f"cannot read {path}: {error.strerror}", "read", retryable=True) from error


class BadEntryFetcher(BaseFetcher):
    """Fail what stands for an entry of the manifest that has problems, with what they are; see ``skip_bad``."""

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Raise FetchError."""
        raise FetchError(getattr(file, "problem", "is no entry of the manifest"), "manifest")


def _copy(path: Path, part: Part) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise FetchError(f"{path} is no regular file", "not-a-file")
    with path.open("rb", buffering=0) as source:
        part.begin(0, total=path.stat().st_size)
        while data := source.read(_BLOCK):
            part.write(data)
