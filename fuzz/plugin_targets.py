"""Fuzz targets for the parsers of the plugins: archives, messages of an SFTP server, OpenPGP packets.

Each function raises AssertionError if a property does not hold. The property tests of the plugins call the same functions.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncssh
from dpp import FetchError, FileData, Settings, StageError, http

from dpp_archive import Decompress
from dpp_gpg.packets import ARMOR, is_cut, is_message
from dpp_sftp import listing, transfer
from dpp_sftp.address import Server
from dpp_sftp.connection import Connection
from dpp_sftp.query import FolderQuery
from dpp_sftp.session import Session
from dpp_sftp.source import choose

MAX_BYTES, MAX_MEMBERS = 100_000, 20
MAX_MESSAGE = 6_000  # characters; two names of 255 characters with escape sequences
ARCHIVE_CLASSES = Decompress.blames_input | {"archive-encrypted", "archive-names", "archive-unsupported"}
_FILE, _FOLDER = 0o10, 0o04  # upper bits of a mode
_BLOCK = 512
_ZIP_END = struct.Struct("<4s4H2LH")  # the end record: PKWARE's APPNOTE, section 4.3.16
_CHECKSUM = re.compile(rb"[0-7 ]{6}[\0 ]{2}")


def tar_archive(data: bytes) -> None:
    """Unpack a tar, unchanged and with corrected checksums."""
    # Without correct checksums, almost no mutation of a header would reach the code after the check
    _unpack_both(data, b"".join(_with_checksum(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK)), "x.tar")


def _with_checksum(block: bytes) -> bytes:
    if len(block) < _BLOCK or not _CHECKSUM.fullmatch(block[148:156]):
        return block
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return block[:148] + b"%06o\0 " % total + block[156:]


def zip_archive(data: bytes) -> None:
    """Unpack a zip, unchanged and with corrected offsets and a corrected end record."""
    # Without them, almost no mutation would reach the code that reads members
    _unpack_both(data, _with_offsets(data), "x.zip")


def _with_offsets(data: bytes) -> bytes:
    start, end = data.find(b"PK\1\2"), data.rfind(b"PK\5\6")
    comment = len(data) - end - _ZIP_END.size
    if not 0 <= start < end or comment < 0:
        return data
    fitting = bytearray(data)
    entries = [found.start() for found in re.finditer(b"PK\1\2", data[:end])]
    for entry, member in zip(entries, re.finditer(b"PK\3\4", data[:start]), strict=False):
        fitting[entry + 42 : entry + 46] = member.start().to_bytes(4, "little")
    _ZIP_END.pack_into(fitting, end, b"PK\5\6", 0, 0, len(entries), len(entries), end - start, start, comment)
    return bytes(fitting)


def _unpack_both(data: bytes, fitting: bytes, name: str) -> None:
    unpack(data, name)
    if fitting != data:
        unpack(fitting, name)


def unpack(data: bytes, name: str) -> None:
    """Check that unpacking writes only files and folders in its own folder, or raises StageError and writes nothing."""
    with TemporaryDirectory() as root:
        around = Path(root)
        into = around / "up/out"
        into.mkdir(parents=True)
        (around / "up/a").write_bytes(b"keep")
        (around / name).write_bytes(data)
        before = snapshot(around)
        made = _unpacked(FileData(url="file:///a", local_path=around / name, output_dir=into))
        after = snapshot(around)
        inside = {path: facts for path, facts in after.items() if path.startswith("up/out/")}
        assert {path: facts for path, facts in after.items() if path not in inside} == before
        if made is None:
            assert not inside
            return
        assert made == around / name or made.parent == into
        assert all(mode & 0o7000 == 0 and mode >> 12 in (_FILE, _FOLDER) for mode, _ in inside.values())
        assert sum(len(content) for _, content in inside.values()) <= MAX_BYTES
        assert len(inside) <= MAX_MEMBERS + 1  # 1 for their folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode of everything below a folder, and the content of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, path.read_bytes() if status.st_mode >> 12 == _FILE else b"")
    return found


def _unpacked(file: FileData) -> Path | None:
    """Return the unpacked file or folder, or None if the file is rejected."""
    try:
        return Decompress(max_bytes=MAX_BYTES, max_members=MAX_MEMBERS).pre_process(file).local_path
    except StageError as error:
        assert error.error_class in ARCHIVE_CLASSES
        _can_be_shown(error)
        return None


def _can_be_shown(error: StageError) -> None:
    assert 0 < len(str(error)) <= MAX_MESSAGE
    assert str(error).isprintable()


SIZE = 100  # bytes of the file in the seeds of the corpus, whose last change was at second 1
KNOWN_ETAG = f'"1-{SIZE}"'
_TURNS = 8  # iterations of the event loop until the client has processed a response
_TURNS_TO_END = 1000
_INIT, _EXTENDED = 1, 200  # types of requests: the first, whose response has no number, and asyncssh's for the server's limits
_LIMITS = b"\xc9%b" + bytes(32)  # the response to the latter: no limits


class Received:
    """A part of a download that counts bytes; see :class:`dpp.Part`."""

    waited = 0.0
    total: int | None = None

    def __init__(self, offset: int = 0, etag: str | None = None) -> None:
        self.offset = self.size = offset
        self.etag = etag

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        assert offset in (0, self.offset)
        self.size, self.total = offset, total

    def write(self, data: bytes) -> None:
        assert data
        self.size += len(data)


class Incoming(asyncio.StreamReader):
    """The stream from a server, with the interface of asyncssh's SSHReader."""

    logger = asyncssh.logger

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the default; nothing is known of the connection."""
        return default


class Wire:
    """A replacement for asyncssh's connection, and a server that responds to requests with given messages.

    Args:
        data: The messages.
        piece: Maximum size of the pieces in which they are sent, in bytes.
    """

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece
        self._open: deque[bytes] = deque()
        self.requests = 0
        self.channel = self

    def write(self, data: bytes) -> None:
        """Receive requests."""
        for request in _messages(data):
            self.requests += 1
            if request[4] == _EXTENDED:
                self._incoming.feed_data((37).to_bytes(4) + _LIMITS % request[5:9])
            elif request[4] != _INIT:
                self._open.append(request[5:9])

    def is_closing(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """End the session."""

    abort = close

    async def wait_closed(self) -> None:
        """Return immediately."""

    def create_task(self, work: Coroutine[Any, Any, None], logger: object) -> asyncio.Task[None]:
        """Run a coroutine of asyncssh in the background."""
        return asyncio.ensure_future(work)

    async def opened(self) -> tuple[Any, Session]:
        """Return the connection and an SFTP session."""
        self._incoming = Incoming()
        return self, Session(self._incoming, self)

    async def run(self, session: Session, work: Callable[[Session], Any]) -> None:
        """Respond to the requests of a client until all messages are sent, and check that the client ends."""
        task = asyncio.ensure_future(self._started(session, work))
        for message in _messages(self._data):
            await _until_done(task, _TURNS)
            if task.done():
                break
            sent = self._numbered(message)
            for start in range(0, len(sent), self._piece):
                self._incoming.feed_data(sent[start : start + self._piece])
        self._incoming.feed_eof()
        await _until_done(task, _TURNS_TO_END)
        assert task.done(), "the client still waits for a response after the end of the stream"
        await task

    async def _started(self, session: Session, work: Callable[[Session], Any]) -> None:
        await session.start(self)
        await work(session)

    def _numbered(self, message: bytes) -> bytes:
        # A message with the number 0 gets that of the oldest request, so that mutations that add or remove messages stay valid
        if message[5:9] != bytes(4):
            return message
        return message[:5] + (self._open.popleft() if self._open else bytes(4)) + message[9:]


def _messages(data: bytes) -> Iterator[bytes]:
    while data:
        end = 4 + int.from_bytes(data[:4])
        yield data[:end]
        data = data[end:]


async def _until_done(task: asyncio.Future[Any], turns: int) -> None:
    for _ in range(turns):
        if task.done():
            return
        await asyncio.sleep(0)


async def _fetch(session: Session, part: Received, expected: int | None) -> None:
    await transfer.fetch(session, b"/a", part, expected)
    assert part.size == part.total


async def _list(session: Session) -> None:
    found = await listing.find(session, b"/in", recursive=True)
    for path in (file.path for file in found):
        assert not {b"", b".", b".."} & set(path.split(b"/")) or path == b""
        assert b"\0" not in path
    chosen = choose(found, FolderQuery(signatures=True), now=2.0)
    await listing.contents(session, b"/in", [file.signature for file in chosen if file.signature and file.signature.size < MAX_BYTES])


WORK: tuple[Callable[[Session], Any], ...] = (
    lambda session: _fetch(session, Received(), None),
    lambda session: _fetch(session, Received(), SIZE),
    lambda session: _fetch(session, Received(40, KNOWN_ETAG), None),
    _list,
)


def sftp_server(data: bytes) -> None:
    """Download from a server or list its folder; the first byte selects the task, the others are sent by the server.

    It must return or raise FetchError.
    """
    first = data[0] if data else 0
    wire = Wire(data[1:], piece=7 if first & 0x80 else 2**20)
    connection = Connection(Server("h", 22), 60, wire.opened)
    try:
        connection.run(lambda session: wire.run(session, WORK[first % len(WORK)]), http.TransferTimer(Settings()))
    except FetchError as error:
        assert error.error_class
        _can_be_shown(error)
    finally:
        connection.close()
    assert wire.requests <= transfer.READS + len(data) + 10


def openpgp_packets(data: bytes) -> None:
    """Check that any bytes can be tested for a complete encrypted message, and that bytes after such a message change nothing."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(data)
        assert is_message(path) in (True, False)
        cut = is_cut(path)
        assert cut in (True, False)
        if not cut and not ARMOR.match(data):
            path.write_bytes(data + b"\0")  # not the first byte of a packet
            assert not is_cut(path)
