"""Decompress streams block by block, and check that they are complete."""

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

# A decompressor gets 64 KiB at a time and returns at most 1 MiB, so that memory does not grow with the stream
READ_BLOCK = 64 * 1024
WRITE_BLOCK = 1024 * 1024
XZ_MEMORY = 256 * 1024 * 1024  # bytes; xz -9 needs 65 MiB, but a header may require 4 GiB
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib reads header and trailer, and checks CRC and size (RFC 1952)
RAW_WINDOW = -zlib.MAX_WBITS
LONGEST_MAGIC = 10

MAGIC = {
    "gz": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    # A Zstandard frame or a skippable frame (RFC 8878, section 3.1)
    "zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}


class Source(Protocol):
    """A source of packed bytes, such as an open file."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` at the end."""


class Codec(Protocol):
    """A decompressor of one stream with the interface of those in bz2, lzma and zstd."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended, with its checksum verified."""

    @property
    def needs_input(self) -> bool:
        """Whether it needs more input before it returns more output."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most ``max_length`` bytes; ``data`` must be empty while ``needs_input`` is false."""


class _Inflater:
    """zlib's decompressor with the interface of ``Codec``.

    Args:
        window: zlib's ``wbits``, which selects the header and trailer to expect.
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
    # Only in a zip, which has a checksum
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY),
    "zst": zstd.ZstdDecompressor,
}


def decompressed(source: Source, kind: str) -> Iterator[bytes]:
    """Yield the content of a compressed file with one or more members, streams or frames.

    Args:
        source: The file, at its start.
        kind: ``gz``, ``bz2``, ``xz`` or ``zst``.

    Raises:
        StageError: It is truncated, damaged, or followed by data other than zeros.
    """
    data = source.read(READ_BLOCK)
    while data:
        rest = yield from one_stream(source, kind, data)
        data = _next_stream(source, kind, rest)


def one_stream(source: Source, kind: str, data: bytes = b"") -> Generator[bytes, None, bytes]:
    """Yield the content of one stream, and return the bytes that were read after its end.

    Args:
        source: The source of the stream.
        kind: A key of ``CODECS``.
        data: The first bytes of the stream, if they were read already.

    Raises:
        StageError: The stream is truncated or damaged.
    """
    codec = CODECS[kind]()
    while not codec.eof:
        if codec.needs_input and not data:
            data = source.read(READ_BLOCK)
            if not data:
                raise StageError(f"the {kind} data is truncated; download the file again", "archive-truncated")
        made = _step(codec, kind, data)
        data = b""
        if made:
            yield made
    return codec.unused_data


def _step(codec: Codec, kind: str, data: bytes) -> bytes:
    try:
        return codec.decompress(data, WRITE_BLOCK)
    # OSError: bz2 has no error class of its own
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError, EOFError) as error:
        # lzma and zstd report a limit by the text of the error only
        if "memory" in str(error).lower():
            raise StageError(f"the {kind} data needs more memory to unpack than allowed: {error}", "archive-limit") from error
        raise StageError(f"the {kind} data is damaged: {error}; ask the sender for a new copy", "archive-corrupt") from error


def _next_stream(source: Source, kind: str, data: bytes) -> bytes:
    """Return the start of the next stream of the file, or ``b""`` if only zeros are left."""
    # gzip(1) allows zeros after the end: tapes and block devices pad files with them
    data = data.lstrip(b"\0")
    while len(data) < LONGEST_MAGIC and (more := source.read(READ_BLOCK)):
        data = (data + more).lstrip(b"\0")
    # Fewer bytes may be the start of a truncated stream; the decompressor decides
    if len(data) >= LONGEST_MAGIC and not MAGIC[kind].match(data):
        raise StageError(f"the {kind} data is followed by other data; ask the sender for a new copy", "archive-corrupt")
    return data
