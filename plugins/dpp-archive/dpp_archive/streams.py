"""Compressed streams: their content block by block, and whether they are whole.

Memory does not grow with a stream: at most 64 KiB go into a decompressor at once and 1 MiB comes out.
"""

from __future__ import annotations

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from dpp import StageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ_BLOCK = 64 * 1024
WRITE_BLOCK = 1024 * 1024
XZ_MEMORY = 256 * 1024 * 1024  # xz -9 needs 65 MiB; a header may ask for 4 GiB
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib reads header and trailer, and checks both CRC and size (RFC 1952)
RAW_WINDOW = -zlib.MAX_WBITS
LONGEST_MAGIC = 10

MAGIC = {
    "gz": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or a skippable one (RFC 8878, section 3.1)
}


class Source(Protocol):
    """Where packed bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, and none at the end."""


class Codec(Protocol):
    """A decompressor of one stream, as those of bz2, lzma and zstd are."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended, with its checksum verified."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something goes in."""

    @property
    def unused_data(self) -> bytes:
        """What went in after the end of the stream."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most so many bytes; to be given nothing while ``needs_input`` is false."""


class _Inflater:
    """zlib's decompressor with the manners of the others.

    Args:
        window: What zlib calls wbits: which header and trailer to expect.
    """

    def __init__(self, window: int) -> None:
        self._inflater = zlib.decompressobj(window)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        made = self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)
        self.needs_input = len(made) < max_length
        return made


def _xz() -> Codec:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


CODECS: dict[str, Callable[[], Codec]] = {
    "gz": lambda: _Inflater(GZIP_WINDOW),
    "deflate": lambda: _Inflater(RAW_WINDOW),
    "bz2": bz2.BZ2Decompressor,
    "xz": _xz,
    "zst": zstd.ZstdDecompressor,
}


def decompressed(source: Source, kind: str) -> Iterator[bytes]:
    """Yield the content of a compressed file: of all its members, streams or frames.

    Zeros may follow, as gzip(1) allows it; anything else may not.

    Args:
        source: The file, at its beginning.
        kind: ``gz``, ``bz2``, ``xz`` or ``zst``.

    Raises:
        StageError: It is cut short, damaged, or followed by something else.
    """
    data = source.read(READ_BLOCK)
    while data:
        rest = yield from one_stream(source, kind, data)
        data = _next_stream(source, kind, rest)


def one_stream(source: Source, kind: str, data: bytes = b"") -> Generator[bytes, None, bytes]:
    """Yield the content of one stream, and return what was read beyond its end.

    Args:
        source: Where the stream goes on.
        kind: Which of ``CODECS`` it is.
        data: Its first bytes, where they were read already.

    Raises:
        StageError: It is cut short or damaged.
    """
    codec = CODECS[kind]()
    while not codec.eof:
        if codec.needs_input and not data:
            data = source.read(READ_BLOCK)
            if not data:
                raise StageError(f"it is cut short: the {kind} data has no end; fetch it again", "archive-truncated")
        made = _step(codec, kind, data)
        data = b""
        if made:
            yield made
    return codec.unused_data


def _step(codec: Codec, kind: str, data: bytes) -> bytes:
    try:
        return codec.decompress(data, WRITE_BLOCK)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError, EOFError) as error:  # bz2 raises OSError
        if "memory" in str(error).lower():
            raise StageError(f"its {kind} data needs more memory to unpack than is granted: {error}", "archive-limit") from error
        raise StageError(f"its {kind} data is damaged: {error}", "archive-corrupt") from error


def _next_stream(source: Source, kind: str, data: bytes) -> bytes:
    """Return the beginning of the next stream of the file, or nothing where only zeros are left."""
    data = data.lstrip(b"\0")
    while len(data) < LONGEST_MAGIC and (more := source.read(READ_BLOCK)):
        data = (data + more).lstrip(b"\0")
    if len(data) >= LONGEST_MAGIC and not MAGIC[kind].match(data):  # less is the beginning of a stream that is cut, or no stream
        raise StageError(f"something that is no {kind} follows the end of the {kind} data", "archive-corrupt")
    return data
