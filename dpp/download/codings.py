"""Content codings (RFC 9110, section 8.4): whether one was applied on the way, or is that of the stored file; and how to decode it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from email.message import Message
from urllib.parse import parse_qsl, urlsplit

from dpp.download.partial import expected_digests
from dpp.download.redirects import Headers
from dpp.errors import FetchError
from dpp.models import FileData

_PIECE = 1024 * 1024
_SYNONYMS = {
    "x-gzip": "gzip",
    "x-compress": "compress",
    "x-bzip2": "bzip2",
    "bzip": "bzip2",
    "x-bzip": "bzip2",
    "x-xz": "xz",
    "brotli": "br",
}
# The codings of IANA's registry, and others in use, with the suffixes and content types of files that are stored in them.
_STORED = {
    "gzip": (
        ("gz", "gzip", "tgz", "taz", "svgz", "bgz", "emz", "wmz", "mcz"),
        ("gzip", "x-gzip", "x-gunzip", "gzipped", "x-tgz", "x-tar-gz"),
    ),
    "deflate": (("zz", "deflate"), ("zlib", "x-deflate")),
    "br": (("br",), ("x-brotli", "brotli")),
    "zstd": (("zst", "zstd", "tzst"), ("zstd", "x-zstd")),
    "compress": (("z", "taz", "tz"), ("x-compress", "compress")),
    "bzip2": (("bz2", "tbz", "tbz2", "tb2"), ("x-bzip2", "x-bzip", "bzip2")),
    "xz": (("xz", "txz"), ("x-xz", "xz")),
    "lzma": (("lzma", "tlz"), ("x-lzma", "lzma")),
    "lz4": (("lz4",), ("x-lz4", "lz4")),
    "snappy": (("sz", "snappy"), ("x-snappy-framed",)),
    "zip": (("zip",), ("zip", "x-zip-compressed")),
    **dict.fromkeys(("aes128gcm", "aesgcm", "dcb", "dcz", "exi", "pack200-gzip", "sdch"), ((), ())),
}
_DECODED = frozenset({"gzip", "deflate"})


class PackedFile(FetchError):
    """Report that the digest in the manifest is that of the coded bytes; discard the part and request the file again."""

    def __init__(self) -> None:
        super().__init__("the digest in the manifest is that of the coded body", "encoding", retryable=True)


def coding_to_undo(headers: Headers, urls: Sequence[str], size: int | None) -> str:
    """Return the content coding to decode, which was not requested: ``gzip``, ``deflate``, or "" for none.

    A server that labels stored ``.gz`` files with ``Content-Encoding: gzip`` means the file itself, so it stays packed, as with curl, wget
    and pip. The ``size`` in the manifest decides, then the names of the file, and its content type, as in web browsers. A name that is
    not one of a coding, such as ``binary``, ``aws-chunked`` or ``utf-8``, changes nothing.

    Args:
        headers: The headers of the response.
        urls: The URLs of the request and its redirects.
        size: Size of the file in the manifest, in bytes, or None.

    Raises:
        FetchError: The body has a coding that cannot be decoded.
    """
    codings = _codings(headers)
    if not codings:
        return ""
    length = headers.get("Content-Length") or ""
    if size is not None and length.isdigit() and not headers.get("Transfer-Encoding"):
        is_stored = length == str(size)
    else:
        is_stored = len(codings) == 1 and _is_stored(codings[0], headers, urls)
    if is_stored:
        return ""
    if len(codings) > 1 or codings[0] not in _DECODED:
        raise FetchError(f"the body has Content-Encoding {', '.join(codings)}, which dpp cannot decode; identity was requested", "encoding")
    return codings[0]


def _codings(headers: Headers) -> list[str]:
    """Return the names of codings that change the body, in the order in which they were applied."""
    given = (name.strip().lower() for line in headers.getlist("Content-Encoding") for name in line.split(","))
    return [name for name in (_SYNONYMS.get(name, name) for name in given) if name in _STORED]


def _is_stored(coding: str, headers: Headers, urls: Sequence[str]) -> bool:
    """Whether the name or the content type of a file is that of one stored in this coding."""
    suffixes, types = _STORED[coding]
    facts = Message()
    facts["Content-Disposition"] = headers.get("Content-Disposition") or "inline"
    facts["Content-Type"] = headers.get("Content-Type") or "text/plain"
    texts = [facts.get_filename() or "", *(text for url in urls for text in _names_of_file(url))]
    named = any(text.lower().endswith(tuple(f".{suffix}" for suffix in suffixes)) for text in texts)
    return named or facts.get_content_type().removeprefix("application/") in types


def _names_of_file(url: str) -> list[str]:
    """Return the texts of a URL that may name a file: its path, and the values of its query."""
    parts = urlsplit(url)
    return [parts.path, *(value for _, value in parse_qsl(parts.query))]


class Decoder:
    """Decode a content coding piece by piece, and check that its end was reached.

    Args:
        encoding: ``gzip``, ``deflate`` or "" for none.
        file: The file in the manifest, or None; its digests may be those of the coded bytes, as object stores give them.
    """

    def __init__(self, encoding: str, file: FileData | None = None) -> None:
        self._encoding = encoding
        self._expected = expected_digests(file) if encoding and file else {}
        self._coded = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in self._expected}
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes, in pieces of at most 1 MiB."""
        for digest in self._coded.values():
            digest.update(data)
        # A few bytes may decode to a thousand times as many, so the pieces are limited.
        try:
            yield from self._inflated(self._inflate, data) if self._inflate else (data,)
        except zlib.error as error:
            raise FetchError(f"the response body is not valid {self._encoding} data", "encoding") from error

    def _inflated(self, inflate: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if inflate.eof:
                inflate = self._inflate = self._next_member()
            piece = inflate.decompress(data, _PIECE)
            yield piece
            data = inflate.unconsumed_tail or inflate.unused_data
            full = len(piece) == _PIECE and not inflate.eof

    def _next_member(self) -> zlib._Decompress:
        if self._encoding != "gzip":
            raise zlib.error("data after the end of the stream")
        return zlib.decompressobj(zlib.MAX_WBITS | 16)

    def finish(self) -> None:
        """Raise FetchError if the body ended before the end of its coding, or :class:`PackedFile` if it was not to be decoded."""
        if self._inflate is not None and not self._inflate.eof:
            raise FetchError(f"the {self._encoding} data in the response body is truncated", "truncated", retryable=True)
        if self._coded and all(digest.hexdigest() == self._expected[algorithm] for algorithm, digest in self._coded.items()):
            raise PackedFile
