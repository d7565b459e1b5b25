"""List the files of a source as entries of a manifest: local folders and patterns, and the parts that plugins' sources share.

Shared parts are the query of a source's URL, and the check which files a destination has already.
"""

from __future__ import annotations

import fnmatch
import functools
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
from dpp.workspace.atomic import StrPath
from dpp.workspace.layout import FOLDERS

T = TypeVar("T")
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst", ".gpg", ".pgp", ".asc"})
_OF_THE_SYSTEM = ("/dev", "/proc", "/sys")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder like /tmp, whose files are ordinary ones
ARCHIVES = frozenset({".tar", ".zip", ".tgz", ".tbz2", ".txz", ".tzst"})


class SourceQuery(BaseModel):
    """The parameters in the query of a source's URL, such as ``?pattern=*.csv&limit=4``.

    A source with further parameters derives from this class and adds a field for each; a parameter whose field is a tuple can be
    given several times.

    Attributes:
        pattern: Shell patterns, case-sensitive; a file must match one of them. Without patterns, all files match.
        recursive: Whether sub-folders are listed as well.
        offset: Number of files to skip at the start.
        limit: Maximum number of files, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: tuple[str, ...] = ()
    recursive: bool = False
    offset: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=0)

    @classmethod
    def read(cls, url: str) -> Self:
        """Return the parameters of a source's URL.

        Args:
            url: The URL. Special characters in its query are percent-encoded (RFC 3986); a plus sign stands for itself.

        Raises:
            ConfigurationError: A parameter is unknown, is given twice, or has an invalid value. The message shows no value
                that may be secret.
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
        """Return the value of a parameter: a text, or a list of texts if its field is a tuple."""
        if name in cls.model_fields and get_origin(cls.model_fields[name].annotation) is tuple:
            return texts
        if len(texts) > 1:
            raise ValueError(f"{name} is given twice")
        return texts[0]

    def matches(self, path: str) -> bool:
        """Whether a file, given its path in the folder, matches: patterns with a slash apply to the path, others to the name."""
        name = path.rpartition("/")[2]
        return not self.pattern or any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.pattern)

    def page(self, files: Iterable[T]) -> Iterator[T]:
        """Yield the files from the offset up to the limit."""
        return itertools.islice(files, self.offset, None if self.limit is None else self.offset + self.limit)


def _parameters(url: str) -> dict[str, list[str]]:
    """Return the values of each parameter, or raise ValueError."""
    found: dict[str, list[str]] = {}
    for name, _, value in (pair.partition("=") for pair in url.partition("?")[2].split("&") if pair):
        # An invalid name may be the end of a password with a question mark, so the message does not show it.
        if not name.isidentifier():
            raise ValueError("the query is not of the form name=value&name=value; percent-encode special characters")
        if not value:
            raise ValueError(f"{name} has no value")
        try:
            found.setdefault(name, []).append(unquote(value, errors="strict"))
        # The text of UnicodeDecodeError shows the value.
        except UnicodeDecodeError:
            raise ValueError(f"{name} is not percent-encoded UTF-8") from None
    return found


def why_refused(path: StrPath, workspace: Path | None) -> str:
    """Return why dpp reads no files there, for a file or folder with its links resolved; "" if it may read them.

    The files of the system may never end (``/dev``) or show the secrets of processes (``/proc``), and dpp's own ones are
    results of dpp, or the private list of a run.

    Args:
        path: The path.
        workspace: The workspace, whose folders are refused as well; None for no workspace.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(_SHARED_MEMORY) and any(map(real.is_relative_to, _OF_THE_SYSTEM)):
        return f"{path} belongs to the system ({', '.join(_OF_THE_SYSTEM)}), so it is no source; copy what you need to another folder"
    if workspace is not None and any(map(real.is_relative_to, _own_folders(workspace))):
        return f"{path} is in the workspace, so it is no source; copy it to another folder, or use another workspace"
    return ""


@functools.lru_cache
def _own_folders(workspace: Path) -> list[Path]:
    return [Path(os.path.realpath(workspace), name) for name in FOLDERS]


class LocalFiles:
    """List the files of a local folder, sorted by name; those of the workspace are skipped.

    Args:
        folder: The folder.
        query: Which files to list; None for all, in sub-folders as well.
        workspace: The workspace; None for no workspace.

    Example:
        >>> [file.name for file in LocalFiles("/data").list_files(offset=0, limit=4)]  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, query: SourceQuery | None = None, workspace: Path | None = None) -> None:
        self._workspace = workspace
        self._folder = Path(os.path.abspath(folder))
        self._query = query or SourceQuery(recursive=True)

    def list_files(self, offset: int = 0, limit: int | None = None) -> Iterator[FileData]:
        """Yield the files, each with ``id`` (its path in the folder), ``name``, ``size`` in bytes and its ``url``.

        Args:
            offset: Number of files to skip at the start.
            limit: Maximum number of files; None for all.

        Raises:
            ConfigurationError: The folder does not exist, cannot be read, or belongs to the system or the workspace.
        """
        page = itertools.islice(self.entries(), offset, None if limit is None else offset + limit)
        return (FileData.model_validate(entry) for entry in page)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the files as entries of a manifest."""
        if reason := why_refused(self._folder, self._workspace):
            raise ConfigurationError(reason)
        return self._query.page(_file_entry(path, self._folder) for path in self._walk(self._folder))

    def _walk(self, folder: Path) -> Iterator[Path]:
        """Yield the regular files in a folder, sorted; skip hidden files and links to folders."""
        try:
            found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise ConfigurationError(f"cannot list {folder}: {error.strerror}") from error
        for entry in found:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_file() and self._query.matches(path.relative_to(self._folder).as_posix()):
                yield path
            elif self._query.recursive and entry.is_dir(follow_symlinks=False) and not why_refused(path, self._workspace):
                yield from self._walk(path)


def _file_entry(path: Path, folder: Path) -> dict[str, Any]:
    return {"url": path.as_uri(), "id": str(path.relative_to(folder)), "name": path.name, "size": path.stat().st_size}


def local_entries(files: str, workspace: Path | None = None) -> Iterable[Mapping[str, Any]] | None:
    """Return the entries of a local folder, of a folder's ``file:`` URL, or of a pattern; None for anything else.

    Raises:
        ConfigurationError: The folder, or each file of the pattern, belongs to the system or the workspace.
    """
    if "://" in files:
        return _folder_of_url(files, workspace)
    if Path(files).is_dir():
        return LocalFiles(files, workspace=workspace).entries()
    if glob.has_magic(files) and not os.path.lexists(files):
        found = map(Path, glob.glob(files, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        paths = sorted(path.absolute() for path in found if path.is_file())
        reasons = {folder: why_refused(folder, workspace) for folder in {path.parent for path in paths}}
        if paths and all(reasons.values()):
            raise ConfigurationError(reasons[paths[0].parent])
        paths = [path for path in paths if not reasons[path.parent]]
        top = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
        return (_file_entry(path, top) for path in paths)
    return None


def local_path(url: str) -> Path:
    """Return the path of a ``file:`` URL (RFC 8089).

    Raises:
        FetchError: The URL names another machine, or its path is not absolute.
    """
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise FetchError(f"file: URLs are for files on this machine, not on {parts.hostname}", "protocol")
    path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    if not path.is_absolute() or "\0" in str(path):
        raise FetchError("a file: URL needs an absolute path without NUL: file:///folder/file", "protocol")
    return path


def _folder_of_url(url: str, workspace: Path | None) -> Iterable[Mapping[str, Any]] | None:
    if urlsplit(url).scheme.lower() != "file":
        return None
    folder = local_path(url)
    return LocalFiles(folder, SourceQuery.read(url), workspace).entries() if folder.is_dir() else None


class Existing:
    """Find out which files a destination has already, by their names.

    A file exists if the destination has a file of its name, with or without the suffixes of encryption and compression:
    ``a.csv.gz.gpg`` exists as ``a.csv``. An archive also exists as a folder with its name without suffixes, or as a file with
    that name and any suffix: ``b.tar.gz`` as ``b/...`` or as ``b.csv``.

    Args:
        entries: The entries that a source lists for the destination.
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
        """Whether a file of a manifest exists; count it in ``skipped`` if it does."""
        given, url = fields.get("name"), fields.get("url")
        name = given if isinstance(given, str) and PurePosixPath(given).suffix else names.basename(url) if isinstance(url, str) else ""
        there = any(self._has(plain, archive=archive) for plain, archive in _plain_names(name))
        self.skipped += there
        return there

    def _has(self, name: str, *, archive: bool) -> bool:
        return name in self._names or (archive and name in self._unpacked)


def _plain_names(name: str) -> Iterator[tuple[str, bool]]:
    """Yield a name, and the name without each further suffix; with each, whether a suffix of an archive was removed."""
    archive = False
    yield name, archive
    while (suffix := PurePosixPath(name).suffix.lower()) in COMPRESSIONS | ARCHIVES:
        archive = archive or suffix in ARCHIVES
        name = PurePosixPath(name).stem
        yield name, archive
