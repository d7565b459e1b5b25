"""List a folder on a server and its subfolders, and read small files."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar, cast

import asyncssh
from dpp import FetchError

from dpp_sftp.session import INVALID, LOST, Session, readable, send
from dpp_sftp.transfer import is_kind, refused

Named = tuple[bytes, asyncssh.SFTPAttrs]
T = TypeVar("T")
Response = TypeVar("Response")

MOST_NAMES = 5_000_000
MOST_BYTES = 1024 * 1024 * 1024  # of paths, which are kept in memory
LONGEST_PATH = 4096  # bytes; PATH_MAX of Linux, which also ends the listing of a server that invents ever deeper folders
TOGETHER = 32  # requests in flight


class Found(NamedTuple):
    """A regular file, or a link to one.

    Attributes:
        path: Its path below the listed folder, in bytes; empty if the listed path is the file itself.
        size: Size in bytes.
        mtime: Time of its last change, in seconds since 1970-01-01 UTC.
    """

    path: bytes
    size: int
    mtime: int


async def find(session: Session, root: bytes, *, recursive: bool) -> list[Found]:
    """Return the regular files of a folder, and links to regular files.

    Args:
        session: The session.
        root: Path of the folder, or of a single file.
        recursive: Whether to include subfolders; links to folders are never followed.

    Raises:
        FetchError: The folder or a subfolder cannot be listed.
    """
    try:
        attributes = await session.client.stat(root)
    except (*LOST, *INVALID):
        raise
    except asyncssh.SFTPError as error:
        raise _failed(root, error) from error
    if is_kind(attributes, stat.S_IFREG):
        return _files([(b"", attributes)])
    folders, found, seen, size = [b""], list[Found](), 0, 0
    while folders:
        names = await _names(session, root, folders.pop())
        seen, size = seen + len(names), size + sum(len(path) for path, _ in names)
        if seen > MOST_NAMES or size > MOST_BYTES:
            limits = f"{MOST_NAMES} names, or {MOST_BYTES} bytes of paths"
            raise FetchError(f"the folder has more than {limits}; list its subfolders one by one", "listing")
        # Links to folders are not followed, because they can form loops
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
    """Return the entries of a folder, with paths relative to the root; none if a subfolder was removed during the listing."""
    names: list[Named] = []
    size = 0
    try:
        scan = cast("AsyncGenerator[asyncssh.SFTPName, None]", session.client.scandir(join(root, folder)))
        async with aclosing(scan) as entries:
            async for entry in entries:
                name = cast("bytes", entry.filename)
                if name not in (b".", b".."):
                    names.append((_below(folder, name), entry.attrs))
                    size += len(names[-1][0])
                # A faulty server may send entries without end
                if len(names) > MOST_NAMES or size > MOST_BYTES:
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
        raise asyncssh.SFTPBadMessage("the server listed an invalid file name")
    return path


async def _targets(session: Session, root: bytes, names: Iterable[Named]) -> list[Named]:
    """Return the targets of links, and the attributes of entries that were listed without their type; skip broken links."""
    unknown = [path for path, attributes in names if attributes.permissions is None or is_kind(attributes, stat.S_IFLNK)]
    targets: list[Named] = []
    for some in _batches(unknown):
        responses = await asyncio.gather(*(session.client.stat(join(root, path)) for path in some), return_exceptions=True)
        targets += [(path, response) for path, response in _good(some, responses)]
    return targets


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + TOGETHER] for start in range(0, len(things), TOGETHER))


def _good(requested: Sequence[T], responses: Sequence[Response | BaseException]) -> Iterator[tuple[T, Response]]:
    """Yield the successful responses; skip the items that the server refused, and raise any other error."""
    for thing, response in zip(requested, responses, strict=True):
        if not isinstance(response, BaseException):
            yield thing, response
        elif not isinstance(response, asyncssh.SFTPError) or isinstance(response, (*LOST, *INVALID)):
            raise response


async def contents(session: Session, root: bytes, files: Sequence[Found]) -> dict[bytes, bytes]:
    """Return the contents of small files by their path; files that cannot be read any more are skipped."""
    read: dict[bytes, bytes] = {}
    for some in _batches(files):
        responses = await asyncio.gather(*(_content(session, join(root, file.path), file.size) for file in some), return_exceptions=True)
        read |= {file.path: content for file, content in _good(some, responses)}
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
                raise asyncssh.SFTPBadMessage(f"the server sent {len(more)} bytes for a read of {size - len(data)} bytes")
            data += more
        return data
    finally:
        send(file.close())


def join(folder: bytes, name: bytes) -> bytes:
    """Return the path of a name in a folder."""
    return folder.rstrip(b"/") + b"/" + name if name else folder


def _failed(path: bytes, error: asyncssh.SFTPError) -> FetchError:
    # The name comes from the server, so it may have control characters
    shown = readable(path.decode("utf-8", "backslashreplace"))
    what = refused(error)
    if isinstance(error, asyncssh.SFTPNoSuchFile):
        return FetchError(f"there is no folder {shown}", what.error_class)
    return FetchError(f"cannot list {shown}: {what}", what.error_class, retryable=what.retryable)
