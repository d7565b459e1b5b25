"""The built-in steps, fetchers and sources, offered through the same hooks as those of plugins."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import field_validator

from dpp.base import BaseExecutor, BaseFetcher, BaseProcessor
from dpp.download.http_fetcher import RequestsFetcher
from dpp.download.local import BadEntryFetcher, LocalFetcher
from dpp.hookspecs import hookimpl
from dpp.manifest.readers import BAD_ENTRY
from dpp.manifest.sources import local_entries
from dpp.models import FileData
from dpp.settings import Settings

OCTET_STREAM = "application/octet-stream"
COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class Checksum(BaseProcessor):
    """Compute a file's size in bytes, its digest and its media type.

    The media type (RFC 6838) is guessed from the name with Python's ``mimetypes``; for a compressed file it is that of the
    compression. For a folder, such as an unpacked archive, the result has the number of files, their total size in bytes, and
    the digest of the list of their digests.
    """

    name = "checksum"
    version = "1"

    algorithm: str = "sha256"
    """Digest to compute: any algorithm of Python's ``hashlib`` with a fixed length."""

    @field_validator("algorithm")
    @classmethod
    def _algorithm_is_known(cls, algorithm: str) -> str:
        if algorithm not in hashlib.algorithms_available or not hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise ValueError(f"unknown hash algorithm {algorithm!r}; try sha256, md5 or blake2b")
        return algorithm

    def process(self, file: FileData) -> dict[str, Any]:
        """Return ``size``, the digest under its algorithm's name, and ``media_type``."""
        assert file.local_path is not None
        known = self._known(file)
        if known is None and file.local_path.is_dir():
            return self._folder(file.local_path)
        size, digest = known or (file.local_path.stat().st_size, content_digest(file.local_path, self.algorithm))
        return {"size": size, self.algorithm: digest, "media_type": guess_media_type(file.local_path.name)}

    def _known(self, file: FileData) -> tuple[int, str] | None:
        """Return the size and digest that the download computed, if no pre-processor changed the file; else None."""
        if self.algorithm == "sha256" and file.sha256 and file.size is not None and not file.processing_history:
            return file.size, file.sha256
        return None

    def _folder(self, folder: Path) -> dict[str, Any]:
        """Return the number of files, their total size, and the digest of their paths and digests as ``sha256sum`` lists them."""
        paths = _files_in(folder)
        digest = content_digest(folder, self.algorithm)
        return {"files": len(paths), "size": sum(path.stat().st_size for path in paths), self.algorithm: digest}


class Processes(BaseExecutor):
    """Run chunks in processes of this machine that are started anew, instead of forks of Luigi's process."""

    name = "processes"

    def open(self) -> ThreadPoolExecutor:
        """Return one thread per slot: the function that dpp submits starts the processes."""
        return ThreadPoolExecutor(self.slots(), thread_name_prefix="executor")


def content_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file; for a folder, that of the list of its files' digests as ``sha256sum`` prints it."""
    if path.is_dir():
        lines = "".join(f"{content_digest(child, algorithm)}  {child.relative_to(path)}\n" for child in _files_in(path))
        return hashlib.new(algorithm, lines.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def guess_media_type(name: str) -> str:
    """Return the media type that a file's name suggests."""
    guessed, compression = mimetypes.guess_type(name)
    return COMPRESSED.get(compression, OCTET_STREAM) if compression else guessed or OCTET_STREAM


@hookimpl(trylast=True)
def dpp_processors() -> list[type[BaseProcessor]]:
    """Offer the default processor."""
    return [Checksum]


@hookimpl(trylast=True)
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """List a local folder, or the files that match a pattern."""
    return local_entries(files, settings.workspace)


@hookimpl(trylast=True)
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Offer fetchers for http and https (with requests), and for local files."""
    return {"http": RequestsFetcher, "https": RequestsFetcher, "file": LocalFetcher, BAD_ENTRY: BadEntryFetcher}


@hookimpl
def dpp_executors() -> list[type[BaseExecutor]]:
    """Offer an executor for this machine."""
    return [Processes]
