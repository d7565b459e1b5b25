"""Write the members of an archive below one folder, only as new files and folders, and never through a link."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dpp import StageError

from dpp_archive.limits import Budget
from dpp_archive.names import is_decoded, undecodable
from dpp_archive.streams import WRITE_BLOCK

Block = bytes | memoryview

MAX_COMPONENT = 255  # bytes; NAME_MAX of Linux's file systems
MAX_PATH = 2048  # bytes below the folder; PATH_MAX, 4096, limits the whole path
MAX_DEPTH = 100  # shutil.rmtree of Python 3.11 recurses once per level, up to the limit of 1,000
# O_EXCL: of two members with one name, neither overwrites the other. O_NOFOLLOW: no member is written through a link
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unsafe(name: str, reason: str) -> StageError:
    """Return the error for a member that is rejected."""
    return StageError(f"the archive is rejected: its member {shown(name)} {reason}; no file of it was kept", "archive-unsafe")


def shown(name: str) -> str:
    """Return a member's name quoted and shortened for a message."""
    return repr(name if len(name) <= MAX_COMPONENT else name[:MAX_COMPONENT] + "...")


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the components of a member's name, or an empty tuple if it names the folder itself.

    Raises:
        StageError: The name points outside the folder, is too long, or has characters that are not allowed.
    """
    if not is_decoded(name):
        raise undecodable(shown(name))
    reason = _objection(name)
    if reason:
        raise unsafe(name, reason)
    parts = _split(name)
    if len(parts) > MAX_DEPTH or len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_COMPONENT for part in parts):
        limits = f"{MAX_COMPONENT} bytes per name, {MAX_PATH} bytes per path, {MAX_DEPTH} levels of folders"
        raise unsafe(name, f"has a path that is too long (maximum: {limits})")
    return parts


def _split(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _objection(name: str) -> str:
    if not name:
        return "has no name"
    if _CONTROL.search(name):
        return "has a name with a control character"
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute path" if name.startswith("/") else "has a drive letter at the beginning"
    if "\\" in name:
        return "has a backslash in its name, which is a path separator on Windows"
    if ".." in name.split("/"):
        return "has a path with '..', which may point outside the folder"
    return ""


class Rules(NamedTuple):
    """How the members of an archive are unpacked.

    Attributes:
        name_encoding: Encoding of names whose encoding the archive does not declare; None guesses it.
        skip_links: Whether links are skipped; otherwise they are rejected.
    """

    name_encoding: str | None = None
    skip_links: bool = False


class Folder:
    """The folder that one archive is unpacked to; it rejects a second member with the name of an earlier one.

    Args:
        root: The folder, which must not exist yet.
        budget: The limits of the archive.
        rules: How members are unpacked.

    Attributes:
        rules: The same.
        warnings: What a user should know about the archive.
        skipped_links: The names of links that were skipped.
    """

    def __init__(self, root: Path, budget: Budget, rules: Rules) -> None:
        self.rules = rules
        self.warnings: list[str] = []
        self.skipped_links: list[str] = []
        self._root = str(root)
        self._budget = budget
        self._folders: set[tuple[str, ...]] = {()}
        self._files: set[tuple[str, ...]] = set()
        self._links: set[tuple[str, ...]] = set()
        os.mkdir(self._root)

    def add_folder(self, name: str) -> None:
        """Create a folder and its parents, unless the archive listed it before."""
        parts = safe_parts(name)
        # Counted again each time, or an archive could list one folder without end
        if parts in self._folders:
            self._budget.count_member()
        self._make(parts, name)

    def add_file(self, name: str, blocks: Iterable[Block], *, executable: bool = False) -> None:
        """Write a file, and create its parent folders.

        Args:
            name: Its path in the archive.
            blocks: Its content; the caller counts it against the budget.
            executable: Whether the file gets execute permission, the only part of its mode that is kept.
        """
        parts = safe_parts(name)
        if not parts or name.endswith(("/", "/.")):
            raise unsafe(name, "is a file, but its name is that of a folder")
        self._make(parts[:-1], name)
        self._check_links(parts, name)
        self._budget.count_member()
        with _mapped(name):
            write_new(self._path(parts), blocks, executable=executable)
        self._files.add(parts)

    def add_copy(self, name: str, original: str) -> None:
        """Write a copy of an earlier file of the archive, in place of a hard link to it.

        Args:
            name: Its path in the archive.
            original: The earlier file's path in the archive.
        """
        parts = _split(original)
        if _objection(original) or parts not in self._files:
            if self.rules.skip_links:
                self.add_link(name)
                return
            raise unsafe(name, f"is a hard link to {shown(original)}, which is not an earlier file of the archive")
        path = self._path(parts)
        self.add_file(name, self._counted(path), executable=os.access(path, os.X_OK))

    def add_link(self, name: str) -> None:
        """Skip a link, or reject it.

        Members with the same path, or one below it, are rejected: they would be in another place than in the packed folder.
        """
        if not self.rules.skip_links:
            raise unsafe(name, "is a symbolic link, and links of decompress is not set to skip")
        parts = safe_parts(name)
        self._check_links(parts, name)
        if parts in self._folders or parts in self._files:
            raise unsafe(name, "is a link with the path of an earlier member")
        self._budget.count_member()
        self._links.add(parts)
        self.skipped_links.append(name)

    def _check_links(self, parts: tuple[str, ...], name: str) -> None:
        if any(parts[:depth] in self._links for depth in range(1, len(parts) + 1)):
            raise unsafe(name, "has the path of an earlier link, or one below it")

    def _counted(self, path: str) -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as source:
            while data := source.read(WRITE_BLOCK):
                self._budget.spend(len(data))
                yield data

    def _make(self, parts: tuple[str, ...], name: str) -> None:
        self._check_links(parts, name)
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in self._folders:
                self._budget.count_member()
                with _mapped(name):
                    os.mkdir(self._path(parts[:depth]))
                self._folders.add(parts[:depth])

    def _path(self, parts: tuple[str, ...]) -> str:
        return "/".join((self._root, *parts))


def write_new(path: str, blocks: Iterable[Block], *, executable: bool = False) -> None:
    """Write a new file.

    Raises:
        OSError: The path exists already, or it cannot be written.
    """
    descriptor = os.open(path, _NEW, 0o777 if executable else 0o666)
    try:
        for block in blocks:
            _write_all(descriptor, block)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, block: Block) -> None:
    written = os.write(descriptor, block)
    while written < len(block):
        written += os.write(descriptor, memoryview(block)[written:])


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    """Reject a member whose name the file system does not accept."""
    try:
        yield
    # Also two names that differ only by case, on a file system that ignores it
    except FileExistsError as error:
        raise unsafe(name, "has the same path as an earlier member, or is a file in place of an earlier folder") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise unsafe(name, f"has a name that this file system does not accept: {error.strerror}") from error
        # Any other error, such as a full disk, has to stop the run and not fail the file
        raise
