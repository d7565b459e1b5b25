"""The content of a local file: its parts, their digests, and windows on them that boto3 can send."""

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
PARTS = 1000  # Amazon's limit is 10,000, that of others such as Swift 1,000
LARGEST_PART = 5 * 1024 * MIB
_BLOCK = MIB


class Content:
    """An open file, cut into parts. It is read once for the digests, and again for what is sent.

    Args:
        stream: The file.
        part_bytes: Up to which size it stays in one piece, and how large its parts are, unless that made too many of them.
    """

    def __init__(self, stream: BinaryIO, part_bytes: int) -> None:
        self._descriptor = stream.fileno()
        self.name = Path(stream.name).name
        self.size = os.fstat(self._descriptor).st_size
        needed = -(-self.size // PARTS)
        self._part_bytes = part_bytes if part_bytes >= needed else min(-(-needed // MIB) * MIB, LARGEST_PART)

    @property
    def is_large(self) -> bool:
        """Whether it goes in several parts."""
        return self.size > self._part_bytes

    @property
    def part_count(self) -> int:
        """How many parts it has; one where it is empty."""
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
        """Return the SHA-256 of the whole."""
        digest = hashlib.sha256()
        for part in self._windows():
            part.feed(digest)
        return digest.hexdigest()

    @property
    def digest(self) -> str:
        """What the entity tag of an object with this content is, as :func:`dpp_s3.etags.digest_of` gives it."""
        return digest_of_parts(self.digests) if self.is_large else self.digests[0].hex()

    def part(self, number: int) -> dict[str, Any]:
        """Return the arguments that send a part, counted from 0; anew for each attempt."""
        window = self._window(number)
        return {"Body": window, "ContentLength": window.size, "ContentMD5": b64encode(self.digests[number]).decode()}

    def _windows(self) -> Iterator[Window]:
        return map(self._window, range(self.part_count))

    def _window(self, number: int) -> Window:
        start = number * self._part_bytes
        return Window(self._descriptor, start, min(self.size - start, self._part_bytes), self.name)


class Window(io.RawIOBase):
    """Some of a file's bytes, as a stream that can be read again; several may be read at once.

    Args:
        descriptor: The file.
        start: Where they begin.
        size: How many they are.
        name: What messages call the file.
    """

    def __init__(self, descriptor: int, start: int, size: int, name: str) -> None:
        self._descriptor = descriptor
        self._start = start
        self.size = size
        self._name = name
        self._position = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; see :meth:`io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, as far as there are bytes.

        Raises:
            StageError: The file has become shorter.
        """
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._position)]
        count = os.preadv(self._descriptor, [view], self._start + self._position) if view else 0
        if view and not count:
            raise StageError(f"{self._name} became shorter while it was uploaded", "changed")
        self._position += count
        return count

    def feed(self, digest: hashlib._Hash) -> None:
        """Give all bytes, from the position on, to a digest."""
        while block := self.read(_BLOCK):
            digest.update(block)
