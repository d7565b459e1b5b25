"""Writing what an archive holds: below one folder, as new files and folders, and never through a link."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpp import StageError

from dpp_archive.limits import Budget
from dpp_archive.streams import WRITE_BLOCK

Block = bytes | memoryview

MAX_COMPONENT = 255  # bytes; NAME_MAX of Linux's file systems
MAX_PATH = 2048  # bytes below the folder; PATH_MAX, 4096, is for the whole
MAX_DEPTH = 100  # shutil.rmtree of Python 3.11 gives up at a thousand
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DRIVE = re.compile(r"[A-Za-z]:")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def unsafe(name: str, reason: str) -> StageError:
    """Return the refusal of a member."""
    return StageError(f"its member {shown(name)} {reason}; nothing of the archive is kept", "archive-unsafe")


def shown(name: str) -> str:
    """Return a member's name as a message can show it."""
    return repr(name if len(name) <= MAX_COMPONENT else name[:MAX_COMPONENT] + "...")


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the components of a member's name; none where it names the folder itself.

    Raises:
        StageError: The name leads out of the folder, or no file should be called so.
    """
    reason = _objection(name)
    if reason:
        raise unsafe(name, reason)
    parts = _split(name)
    if len(parts) > MAX_DEPTH or len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_COMPONENT for part in parts):
        raise unsafe(name, f"has a name over {MAX_COMPONENT} bytes, a path over {MAX_PATH} bytes, or over {MAX_DEPTH} folders deep")
    return parts


def _split(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _objection(name: str) -> str:
    if not name:
        return "has no name"
    if _UNPRINTABLE.search(name):
        return "has a control character in its name, or a name that is not UTF-8"
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute path"
    if "\\" in name:
        return "has a backslash in its name, which separates folders on other systems"
    if ".." in name.split("/"):
        return "leads out of the folder"
    return ""


class Folder:
    """The folder that one archive becomes.

    Whatever is there already is refused, so that of two members with one name neither wins. Names that differ only by case
    are two files, or refused where the file system makes no difference.

    Args:
        root: The folder, not there yet.
        budget: The limits that hold for it.
    """

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root = str(root)
        self._budget = budget
        self._folders: set[tuple[str, ...]] = {()}
        self._files: set[tuple[str, ...]] = set()
        os.mkdir(self._root)

    def add_folder(self, name: str) -> None:
        """Make a folder, and those above it; one that the archive named before may be named again, and counts again."""
        parts = safe_parts(name)
        if parts in self._folders:
            self._budget.count_member()
        self._make(parts, name)

    def add_file(self, name: str, blocks: Iterable[Block], *, executable: bool = False) -> None:
        """Write a file, and make the folders above it.

        Args:
            name: Its path in the archive.
            blocks: Its content, counted against the budget by whoever makes it.
            executable: Whether it may be executed; all else of a mode is left out.
        """
        parts = safe_parts(name)
        if not parts or name.endswith(("/", "/.")):
            raise unsafe(name, "is a file with the name of a folder")
        self._make(parts[:-1], name)
        self._budget.count_member()
        with _mapped(name):
            write_new(self._path(parts), blocks, executable=executable)
        self._files.add(parts)

    def add_copy(self, name: str, original: str) -> None:
        """Write a file with the content of another that the archive held before: what a hard link means.

        Args:
            name: Its path in the archive.
            original: The path of the other one.
        """
        parts = _split(original)
        if _objection(original) or parts not in self._files:
            raise unsafe(name, f"is a hard link to {shown(original)}, which is no earlier file of the archive")
        path = self._path(parts)
        self.add_file(name, self._counted(path), executable=os.access(path, os.X_OK))

    def _counted(self, path: str) -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as source:
            while data := source.read(WRITE_BLOCK):
                self._budget.spend(len(data))
                yield data

    def _make(self, parts: tuple[str, ...], name: str) -> None:
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in self._folders:
                self._budget.count_member()
                with _mapped(name):
                    os.mkdir(self._path(parts[:depth]))
                self._folders.add(parts[:depth])

    def _path(self, parts: tuple[str, ...]) -> str:
        return "/".join((self._root, *parts))


def write_new(path: str, blocks: Iterable[Block], *, executable: bool = False) -> None:
    """Write a file that must not be there yet.

    Raises:
        OSError: It is there, or it can't be written.
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
    """Refuse a member whose name the file system does not take; a full disk stays an OSError, for dpp to stop the run."""
    try:
        yield
    except FileExistsError as error:
        raise unsafe(name, "has the name of an earlier one, or a file where an earlier one has a folder") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise unsafe(name, f"has a name that this file system does not take: {error.strerror}") from error
        raise
