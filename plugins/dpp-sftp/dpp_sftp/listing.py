"""Listing a folder on a server, and those below it."""

from __future__ import annotations

import asyncio
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dpp import FetchError

from dpp_sftp import wire
from dpp_sftp.transfer import refused
from dpp_sftp.wire import Attributes, Code, Cursor, Kind, StatusError, WireError

if TYPE_CHECKING:
    from dpp_sftp.channel import Channel

Named = tuple[bytes, Attributes]
T = TypeVar("T")
Answer = TypeVar("Answer")

MOST_NAMES = 5_000_000
LONGEST_PATH = 4096  # Linux's own limit; a server that makes up folders without end meets it
TOGETHER = 32
_AHEAD = 4


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


async def find(channel: Channel, root: bytes, *, recursive: bool) -> list[Found]:
    """Return the regular files of a folder.

    Links to files are followed; links to folders are not, so that there are no loops. What is neither is left out.

    Args:
        channel: The session.
        root: The folder, or a file, which is all there is then.
        recursive: Whether to go into the folders below.

    Raises:
        FetchError: The folder, or one below it, can't be listed.
    """
    try:
        attributes = await channel.stat(root)
    except StatusError as error:
        raise _failed(root, error) from error
    if attributes.is_kind(stat.S_IFREG):
        return _files([(b"", attributes)])
    folders, found, seen = [b""], list[Found](), 0
    while folders:
        names = await _names(channel, root, folders.pop())
        seen += len(names)
        if seen > MOST_NAMES:
            raise FetchError(f"there are more than {MOST_NAMES} names; list folders below it one by one", "listing")
        if recursive:
            folders += [path for path, attributes in names if attributes.is_kind(stat.S_IFDIR)]
        found += _files(names)
        found += _files(await _targets(channel, root, names))
    return found


def _files(names: Iterable[Named]) -> list[Found]:
    return [
        Found(path, attributes.size, attributes.mtime or 0)
        for path, attributes in names
        if attributes.is_kind(stat.S_IFREG) and attributes.size is not None
    ]


async def _names(channel: Channel, root: bytes, folder: bytes) -> list[Named]:
    """Return what a folder holds, by relative path; nothing where it was removed meanwhile."""
    try:
        handle = Cursor(await channel.request(Kind.OPENDIR, wire.string(join(root, folder)), Kind.HANDLE)).string()
        try:
            return await _read(channel, handle, folder)
        finally:
            channel.close(handle)
    except StatusError as error:
        if folder and error.code == Code.NO_SUCH_FILE:
            return []
        raise _failed(join(root, folder), error) from error


async def _read(channel: Channel, handle: bytes, folder: bytes) -> list[Named]:
    """Return the names of an open folder, which come by the hundred; some requests are always on their way."""
    names: list[Named] = []
    answers = deque(channel.request(Kind.READDIR, wire.string(handle), Kind.NAME) for _ in range(_AHEAD))
    while len(names) <= MOST_NAMES:
        try:
            some = list(wire.names(await answers.popleft()))
        except StatusError as error:
            if error.code == Code.END:
                break
            raise
        if not some:
            raise WireError("it lists nothing and does not say that this is the end")
        names += [(_below(folder, name), attributes) for name, attributes in some if name not in (b".", b"..")]
        answers.append(channel.request(Kind.READDIR, wire.string(handle), Kind.NAME))
    return names


def _below(folder: bytes, name: bytes) -> bytes:
    path = join(folder, name) if folder else name
    if not name or b"/" in name or b"\0" in name or len(path) > LONGEST_PATH:
        raise WireError("it lists something that is no name of a file")
    return path


async def _targets(channel: Channel, root: bytes, names: Iterable[Named]) -> list[Named]:
    """Return what links lead to, and what the server did not say the kind of; links that lead nowhere are left out."""
    unknown = [path for path, attributes in names if attributes.mode is None or attributes.is_kind(stat.S_IFLNK)]
    targets: list[Named] = []
    for some in _batches(unknown):
        answers = await asyncio.gather(*(channel.stat(join(root, path)) for path in some), return_exceptions=True)
        targets += [(path, answer) for path, answer in _good(some, answers)]
    return targets


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + TOGETHER] for start in range(0, len(things), TOGETHER))


def _good(asked: Sequence[T], answers: Sequence[Answer | BaseException]) -> Iterator[tuple[T, Answer]]:
    """Yield what was answered; what the server refused is left out, and anything worse is raised."""
    for thing, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, BaseException):
            yield thing, answer
        elif not isinstance(answer, StatusError):
            raise answer


async def contents(channel: Channel, root: bytes, files: Sequence[Found]) -> dict[bytes, bytes]:
    """Return the contents of small files, by relative path; those that are gone meanwhile are left out."""
    read: dict[bytes, bytes] = {}
    for some in _batches(files):
        answers = await asyncio.gather(*(_content(channel, join(root, file.path), file.size) for file in some), return_exceptions=True)
        read |= {file.path: content for file, content in _good(some, answers)}
    return read


async def _content(channel: Channel, path: bytes, size: int) -> bytes:
    handle = await channel.open(path)
    try:
        data = b""
        while len(data) < size:
            more = Cursor(await channel.read(handle, len(data), size - len(data))).string()
            if not 0 < len(more) <= size - len(data):
                raise WireError(f"a read of {size - len(data)} bytes was answered with {len(more)}")
            data += more
        return data
    finally:
        channel.close(handle)


def join(folder: bytes, name: bytes) -> bytes:
    """Return the path of something in a folder."""
    return folder.rstrip(b"/") + b"/" + name if name else folder


def _failed(path: bytes, error: StatusError) -> FetchError:
    shown = wire.readable(path.decode("utf-8", "backslashreplace"))  # the server named it, unless it is the root
    what = refused(error)
    if error.code == Code.NO_SUCH_FILE:
        return FetchError(f"there is no folder {shown}", what.error_class)
    return FetchError(f"cannot list {shown}: {what}", what.error_class, retryable=what.retryable)
