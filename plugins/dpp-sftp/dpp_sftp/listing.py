"""Listing a folder on a server, and those below it."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar, cast

import asyncssh
from dpp import FetchError

from dpp_sftp.session import INVALID, LOST, Session, ask, readable
from dpp_sftp.transfer import is_kind, refused

Named = tuple[bytes, asyncssh.SFTPAttrs]
T = TypeVar("T")
Answer = TypeVar("Answer")

MOST_NAMES = 5_000_000
LONGEST_PATH = 4096  # Linux's own limit; a server that makes up folders without end meets it
TOGETHER = 32


class Found(NamedTuple):
    """A regular file, or a link to one.

    Attributes:
        path: Its path below the folder that is listed, as the server's bytes; empty where that is no folder but the file.
        size: Bytes.
        mtime: When it was changed, in seconds since 1970-01-01 UTC.
    """

    path: bytes
    size: int
    mtime: int


async def find(session: Session, root: bytes, *, recursive: bool) -> list[Found]:
    """Return the regular files of a folder.

    Links to files are followed; links to folders are not, so that there are no loops. What is neither is left out.

    Args:
        session: The session.
        root: The folder, or a file, which is all there is then.
        recursive: Whether to go into the folders below.

    Raises:
        FetchError: The folder, or one below it, can't be listed.
    """
    try:
        attributes = await session.client.stat(root)
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPError as error:
        raise _failed(root, error) from error
    if is_kind(attributes, stat.S_IFREG):
        return _files([(b"", attributes)])
    folders, found, seen = [b""], list[Found](), 0
    while folders:
        names = await _names(session, root, folders.pop())
        seen += len(names)
        if seen > MOST_NAMES:
            raise FetchError(f"there are more than {MOST_NAMES} names; list folders below it one by one", "listing")
        if recursive:
            folders += [path for path, attributes in names if is_kind(attributes, stat.S_IFDIR)]
        found += _files(names)
        found += _files(await _targets(session, root, names))
    return found


def _files(names: Iterable[Named]) -> list[Found]:
    return [
        Found(path, attributes.size, attributes.mtime or 0)
        for path, attributes in names
        if is_kind(attributes, stat.S_IFREG) and attributes.size is not None
    ]


async def _names(session: Session, root: bytes, folder: bytes) -> list[Named]:
    """Return what a folder holds, by relative path, and little more than may be; nothing where it was removed meanwhile."""
    names: list[Named] = []
    try:
        scan = cast("AsyncGenerator[asyncssh.SFTPName, None]", session.client.scandir(join(root, folder)))
        async with aclosing(scan) as entries:
            async for entry in entries:
                name = cast("bytes", entry.filename)
                if name not in (b".", b".."):
                    names.append((_below(folder, name), entry.attrs))
                if len(names) > MOST_NAMES:
                    break
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPError as error:
        if folder and isinstance(error, asyncssh.SFTPNoSuchFile):
            return []
        raise _failed(join(root, folder), error) from error
    return names


def _below(folder: bytes, name: bytes) -> bytes:
    path = join(folder, name) if folder else name
    if not name or b"/" in name or b"\0" in name or len(path) > LONGEST_PATH:
        raise asyncssh.SFTPBadMessage("it lists something that is no name of a file")
    return path


async def _targets(session: Session, root: bytes, names: Iterable[Named]) -> list[Named]:
    """Return what links lead to, and what the server did not say the kind of; links that lead nowhere are left out."""
    unknown = [path for path, attributes in names if attributes.permissions is None or is_kind(attributes, stat.S_IFLNK)]
    targets: list[Named] = []
    for some in _batches(unknown):
        answers = await asyncio.gather(*(session.client.stat(join(root, path)) for path in some), return_exceptions=True)
        targets += [(path, answer) for path, answer in _good(some, answers)]
    return targets


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + TOGETHER] for start in range(0, len(things), TOGETHER))


def _good(asked: Sequence[T], answers: Sequence[Answer | BaseException]) -> Iterator[tuple[T, Answer]]:
    """Yield what was answered; what the server refused is left out, and anything worse is raised."""
    for thing, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, BaseException):
            yield thing, answer
        elif not isinstance(answer, asyncssh.SFTPError) or isinstance(answer, (*LOST, *INVALID)):
            raise answer


async def contents(session: Session, root: bytes, files: Sequence[Found]) -> dict[bytes, bytes]:
    """Return the contents of small files, by relative path; those that are gone meanwhile are left out."""
    read: dict[bytes, bytes] = {}
    for some in _batches(files):
        answers = await asyncio.gather(*(_content(session, join(root, file.path), file.size) for file in some), return_exceptions=True)
        read |= {file.path: content for file, content in _good(some, answers)}
    return read


async def _content(session: Session, path: bytes, size: int) -> bytes:
    file = await session.open(path)
    try:
        data = b""
        while len(data) < size:
            more: bytes = await file.read(size - len(data), len(data))
            if not more:
                raise asyncssh.SFTPEOFError
            if len(more) > size - len(data):
                raise asyncssh.SFTPBadMessage(f"a read of {size - len(data)} bytes was answered with {len(more)}")
            data += more
        return data
    finally:
        ask(file.close())


def join(folder: bytes, name: bytes) -> bytes:
    """Return the path of something in a folder."""
    return folder.rstrip(b"/") + b"/" + name if name else folder


def _failed(path: bytes, error: asyncssh.SFTPError) -> FetchError:
    shown = readable(path.decode("utf-8", "backslashreplace"))  # the server named it, unless it is the root
    what = refused(error)
    if isinstance(error, asyncssh.SFTPNoSuchFile):
        return FetchError(f"there is no folder {shown}", what.error_class)
    return FetchError(f"cannot list {shown}: {what}", what.error_class, retryable=what.retryable)
