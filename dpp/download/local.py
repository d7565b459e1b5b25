"""Fetch ``file:`` URLs (RFC 8089), and fail the invalid entries of a manifest."""

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
            raise FetchError(f"file not found: {path}", "not-found") from error
        except PermissionError as error:
            raise FetchError(f"no permission to read {path}", "permission") from error
        except OSError as error:
            raise FetchError(f"cannot read {path}: {error.strerror}", "read", retryable=True) from error


class BadEntryFetcher(BaseFetcher):
    """Fail the placeholder of an invalid manifest entry with the entry's problems; see ``skip_bad``."""

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Raise FetchError."""
        raise FetchError(getattr(file, "problem", "invalid manifest entry"), "manifest")


def _copy(path: Path, part: Part) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise FetchError(f"not a regular file: {path}", "not-a-file")
    with path.open("rb", buffering=0) as source:
        part.begin(0, total=path.stat().st_size)
        while data := source.read(_BLOCK):
            part.write(data)
