"""Listing files as sources do: in order, page by page, as entries of a manifest.

``--files`` takes a local folder or a pattern as well as a manifest, and plugins list other places; what they have in
common stands here: the query of a source's URL, and which of the files a place has already.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar, get_origin
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpp import names
from dpp.errors import ConfigurationError, FetchError
from dpp.models import FileData
from dpp.redact import redact_url
from dpp.settings import describe

T = TypeVar("T")
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst", ".gpg", ".pgp", ".asc"})
ARCHIVES = frozenset({".tar", ".zip", ".tgz", ".tbz2", ".txz", ".tzst"})


class SourceQuery(BaseModel):
    """What the query of a source's URL asks for, such as ``?pattern=*.csv&limit=4``.

    A source with parameters of its own derives from this, with a field for each; one that is a tuple can be given several times.

    Attributes:
        pattern: A file has to match one of these shell patterns, case counts; all do where there is none.
        recursive: Whether folders in the folder are listed too.
        offset: Files to leave out at the beginning.
        limit: How many files at most, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: tuple[str, ...] = ()
    recursive: bool = False
    offset: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=0)

    @classmethod
    def read(cls, url: str) -> Self:
        """Return what a source's URL asks for.

        Args:
            url: The URL. What is special in its query is percent-encoded (RFC 3986); a plus is a plus, as patterns hold them.

        Raises:
            ConfigurationError: A parameter is unknown, is given twice, or its value makes no sense; no value is shown that may
                be secret.
        """
        try:
            return cls.model_validate({name: cls._value(name, texts) for name, texts in _parameters(url).items()})
        except ValidationError as error:
            problem = "; ".join([*describe(error), f"the parameters are {', '.join(cls.model_fields)}"])
        except ValueError as error:
            problem = str(error)
        raise ConfigurationError(f"--files {redact_url(url)}: {problem}")

    @classmethod
    def _value(cls, name: str, texts: list[str]) -> list[str] | str:
        """Return what a parameter is given: one text, or several where its field is a tuple."""
        if name in cls.model_fields and get_origin(cls.model_fields[name].annotation) is tuple:
            return texts
        if len(texts) > 1:
            raise ValueError(f"{name} is given twice")
        return texts[0]

    def matches(self, path: str) -> bool:
        """Whether a file is asked for, by its path in the folder: a pattern with a slash is for the path, any other for the name."""
        name = path.rpartition("/")[2]
        return not self.pattern or any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.pattern)

    def page(self, files: Iterable[T]) -> Iterator[T]:
        """Yield the files from the offset up to the limit."""
        return itertools.islice(files, self.offset, None if self.limit is None else self.offset + self.limit)


def _parameters(url: str) -> dict[str, list[str]]:
    """Return the values of each parameter, or raise ValueError; what is no name is not shown, it may be the end of a password."""
    found: dict[str, list[str]] = {}
    for name, _, value in (pair.partition("=") for pair in url.partition("?")[2].split("&") if pair):
        if not name.isidentifier():
            raise ValueError("its query is not of the form name=value&name=value; percent-encode what is special")
        if not value:
            raise ValueError(f"{name} has no value")
        try:
            found.setdefault(name, []).append(unquote(value, errors="strict"))
        except UnicodeDecodeError:  # its text shows the value
            raise ValueError(f"{name} is not percent-encoded UTF-8") from None
    return found


class LocalFiles:
    """The files of a folder of this machine, in the order of their names.

    Args:
        folder: The folder.
        query: Which of its files.

    Example:
        >>> [file.name for file in LocalFiles("/data").list_files(offset=0, limit=4)]  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, query: SourceQuery | None = None) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._query = query or SourceQuery(recursive=True)

    def list_files(self, offset: int = 0, limit: int | None = None) -> Iterator[FileData]:
        """Yield the files, each with ``id`` (its path in the folder), ``name``, ``size`` in bytes and its ``url``.

        Args:
            offset: Files to leave out at the beginning.
            limit: How many at most.

        Raises:
            ConfigurationError: There is no such folder, or it can't be read.
        """
        page = itertools.islice(self.entries(), offset, None if limit is None else offset + limit)
        return (FileData.model_validate(entry) for entry in page)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the same as entries of a manifest."""
        return self._query.page(_file_entry(path, self._folder) for path in self._walk(self._folder))

    def _walk(self, folder: Path) -> Iterator[Path]:
        """Yield the regular files in a folder, sorted; hidden ones and links to folders are left out."""
        try:
            found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise ConfigurationError(f"{folder}: {error.strerror}; --files can't list it") from error
        for entry in found:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_file() and self._query.matches(path.relative_to(self._folder).as_posix()):
                yield path
            elif self._query.recursive and entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)


def _file_entry(path: Path, folder: Path) -> dict[str, Any]:
    return {"url": path.as_uri(), "id": str(path.relative_to(folder)), "name": path.name, "size": path.stat().st_size}


def local_entries(files: str) -> Iterable[Mapping[str, Any]] | None:
    """Return what ``--files`` names on this machine, where it is a folder, a ``file:`` URL of one, or a pattern; else None."""
    if "://" in files:
        return _folder_of_url(files)
    if Path(files).is_dir():
        return LocalFiles(files).entries()
    if glob.has_magic(files) and not os.path.lexists(files):
        found = map(Path, glob.glob(files, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        paths = sorted(path.absolute() for path in found if path.is_file())
        top = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
        return (_file_entry(path, top) for path in paths)
    return None


def local_path(url: str) -> Path:
    """Return the path that a ``file:`` URL names (RFC 8089).

    Raises:
        FetchError: It names another machine, or no absolute path.
    """
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise FetchError(f"file: URLs name files of this machine, not of {parts.hostname}", "protocol")
    path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    if not path.is_absolute() or "\0" in str(path):
        raise FetchError("a file: URL needs an absolute path without NUL: file:///folder/file", "protocol")
    return path


def _folder_of_url(url: str) -> Iterable[Mapping[str, Any]] | None:
    if urlsplit(url).scheme.lower() != "file":
        return None
    folder = local_path(url)
    return LocalFiles(folder, SourceQuery.read(url)).entries() if folder.is_dir() else None


class Existing:
    """Which files a place has already, by their names.

    A file is there where something in the place has its name, or the name that is left of it without the endings of
    encryption and compression: ``a.csv.gz.gpg`` is there as ``a.csv``. An archive is there as a folder with what is left
    of its name, or as a file of that name with any ending: ``b.tar.gz`` as ``b/...`` or as ``b.csv``.

    Args:
        entries: What a source lists of the place.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._names: set[str] = set()
        self._unpacked: set[str] = set()
        for entry in entries:
            path = PurePosixPath(str(entry.get("id") or names.basename(str(entry["url"]))))
            self._names.add(path.name)
            self._unpacked.update((*path.parts[:-1], path.stem))
        self.skipped = 0

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether a file of a manifest is there; those that are get counted."""
        given, url = fields.get("name"), fields.get("url")
        name = given if isinstance(given, str) and PurePosixPath(given).suffix else names.basename(url) if isinstance(url, str) else ""
        there = any(self._has(plain, archive=archive) for plain, archive in _plain_names(name))
        self.skipped += there
        return there

    def _has(self, name: str, *, archive: bool) -> bool:
        return name in self._names or (archive and name in self._unpacked)


def _plain_names(name: str) -> Iterator[tuple[str, bool]]:
    """Yield a name, and what is left of it ending by ending; say which is left of an archive."""
    archive = False
    yield name, archive
    while (suffix := PurePosixPath(name).suffix.lower()) in COMPRESSIONS | ARCHIVES:
        archive = archive or suffix in ARCHIVES
        name = PurePosixPath(name).stem
        yield name, archive
