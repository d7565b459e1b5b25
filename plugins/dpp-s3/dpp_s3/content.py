"""The content of a local file: its parts, their digests, and streams of them for boto3."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dpp import StageError

from dpp_s3.etags import digest_of_parts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MIB = 1024 * 1024
PARTS = 1000  # per object; the limit is 10,000 on AWS, but 1,000 on others such as Swift
LARGEST_PART = 5 * 1024 * MIB
_BLOCK = MIB


class Content:
    """An open file, divided into parts; it is read once for the digests and again for the upload.

    Args:
        stream: The file.
        part_bytes: Size of the parts, in bytes; larger if the file would have too many parts.
    """

    def __init__(self, stream: BinaryIO, part_bytes: int) -> None:
        self._descriptor = stream.fileno()
        self.name = Path(stream.name).name
        self.size = os.fstat(self._descriptor).st_size
        needed = -(-self.size // PARTS)
        self._part_bytes = part_bytes if part_bytes >= needed else min(-(-needed // MIB) * MIB, LARGEST_PART)

    @property
    def is_large(self) -> bool:
        """Whether it has several parts."""
        return self.size > self._part_bytes

    @property
    def part_count(self) -> int:
        """Number of parts; 1 for an empty file."""
        return -(-self.size // self._part_bytes) or 1

    @functools.cached_property
    def digests(self) -> list[bytes]:
        """The MD5 of each part."""
        digests = []
        for part in self._windows():
            digest = hashlib.md5(usedforsecurity=False)
            part.feed(digest)
            digests.append(digest.digest())
        return digests

    def sha256(self) -> str:
        """Return the SHA-256 of the file, in hexadecimal digits."""
        digest = hashlib.sha256()
        for part in self._windows():
            part.feed(digest)
        return digest.hexdigest()

    @property
    def digest(self) -> str:
        """The entity tag of an object with this content, in the form of :func:`dpp_s3.etags.digest_of`."""
        return digest_of_parts(self.digests) if self.is_large else self.digests[0].hex()

    def part(self, number: int) -> dict[str, Any]:
        """Return the arguments for boto3 to send a part, counted from 0; call it again for each attempt."""
        window = self._window(number)
        return {"Body": window, "ContentLength": window.size, "ContentMD5": b64encode(self.digests[number]).decode()}

    def _windows(self) -> Iterator[Window]:
        return map(self._window, range(self.part_count))

    def _window(self, number: int) -> Window:
        start = number * self._part_bytes
        return Window(self._descriptor, start, min(self.size - start, self._part_bytes), self.name)


class Window(io.RawIOBase):
    """A part of a file as a seekable stream; several parts can be read at the same time.

    Args:
        descriptor: Descriptor of the file.
        start: Offset of the first byte.
        size: Number of bytes.
        name: Name of the file for messages.
    """

    def __init__(self, descriptor: int, start: int, size: int, name: str) -> None:
        self._descriptor = descriptor
        self._start = start
        self.size = size
        self._name = name
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position; see :meth:`io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read bytes into the buffer, and return their number.

        Raises:
            StageError: The file has become shorter.
        """
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._position)]
        # preadv does not use the file's own position, so that several streams of one file do not disturb each other
        count = os.preadv(self._descriptor, [view], self._start + self._position) if view else 0
        if view and not count:
            raise StageError(f"{self._name} became shorter during the upload; make sure that no other program changes it", "changed")
        self._position += count
        return count

    def feed(self, digest: hashlib._Hash) -> None:
        """Update a digest with all bytes from the position on."""
        while block := self.read(_BLOCK):
            digest.update(block)
