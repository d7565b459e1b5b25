"""Detect what a file is by its first bytes."""

from __future__ import annotations

import re

from dpp_archive.streams import MAGIC
from dpp_archive.tar_headers import is_tar

HEAD = 512  # bytes; one block of a tar, the longest of all headers
# The second is for a zip without members, the others are for a split zip and for a split zip of one part (APPNOTE 8.5.4, 8.5.5)
ZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\x08PK\3\4", b"PK00PK\3\4")

# Archives and compressed files that are not unpacked; numbers as in the database of file(1)
UNSUPPORTED = {
    kind: re.compile(magic, re.DOTALL)
    for kind, magic in {
        "7z": rb"7z\xbc\xaf\x27\x1c",
        "ace": rb".{7}\*\*ACE\*\*",
        "ar": rb"!<arch>\n(?!debian-binary)",
        "arj": rb"\x60\xea.[\x00-\x0a].{6}\x02",
        "cab": rb"MSCF\x00{4}",
        "compress (Z)": rb"\x1f\x9d[\x09-\x10\x89-\x90]",
        "cpio": rb"07070[127][0-9A-Fa-f]{6}",
        "deb": rb"!<arch>\ndebian-binary",
        "lha": rb".{2}-l[hz][0-9ds]-",
        "lz4": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18",
        "lzip": rb"LZIP[\x00\x01]",
        "lzma": rb"\x5d\x00\x00.{2}(?:\xff{8}|.{5}\x00{3})",
        "lzop": rb"\x89LZO\x00\r\n\x1a\n",
        "pack (z)": rb"\x1f\x1e\x00",
        "rar": rb"Rar!\x1a\x07",
        "rpm": rb"\xed\xab\xee\xdb[\x03\x04]",
        "snappy": rb"\xff\x06\x00\x00sNaPpY",
        "StuffIt": rb"SIT!|StuffIt \(c\)",
        "xar": rb"xar!\x00\x1c\x00\x01",
        "zoo": rb".{20}\xdc\xa7\xc4\xfd",
        "zpaq": rb"7kSt|zPQ[\x01\x02]",
        "zstd (before version 0.8)": rb"[\x22-\x27]\xb5\x2f\xfd",
    }.items()
}
# Without suffixes that other formats have, too, such as ace
UNSUPPORTED_SUFFIXES = {
    **{kind: kind for kind in ("7z", "ar", "arj", "cab", "cpio", "deb", "lha", "lz4", "lzma", "rar", "rpm", "xar", "zpaq")},
    "br": "brotli",
    "lz": "lzip",
    "lzh": "lha",
    "lzo": "lzop",
    "tlz": "lzma",
    "z": "compress (Z)",
}

_OTHERS = {
    kind: re.compile(magic)
    for kind, magic in {
        "an HTML page": rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!--[^>]*-->\s*)*<(?:!doctype\s+html|html|head|body|title)",
        "an XML document": rb"(?:\xef\xbb\xbf)?\s*<\?xml",
        "a JSON document": rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]0-9-])",
        "a Git LFS pointer, not the file itself": rb"version https://git-lfs",
        "a PDF": rb"%PDF-",
        "an image": rb"\x89PNG|\xff\xd8\xff|GIF8",
        "a program, perhaps a self-extracting archive": rb"MZ|\x7fELF|#!",
        "an OpenPGP message, key or signature": rb"-----BEGIN PGP ",
        "an old Office document": rb"\xd0\xcf\x11\xe0",
    }.items()
}
UNKNOWN = "an unknown format"
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def detect(head: bytes) -> str | None:
    """Return the format of a file from its first 512 bytes, or None if it is not one that is unpacked."""
    for kind, magic in MAGIC.items():
        if magic.match(head):
            return kind
    if head.startswith(ZIP):
        return "zip"
    return "tar" if is_tar(head) else None


def unsupported(head: bytes) -> str | None:
    """Return the format of an archive or compressed file that is not unpacked, or None if it is not one."""
    return next((kind for kind, magic in UNSUPPORTED.items() if magic.match(head)), None)


def described(head: bytes) -> str:
    """Return a description of a file from its first 512 bytes, for a message."""
    kind = detect(head) or unsupported(head)
    if kind:
        return f"the format {kind}"
    if not head:
        return "an empty file"
    return known_as(head) or ("text" if _is_text(head) else UNKNOWN)


def known_as(head: bytes) -> str | None:
    """Return what a file that is no archive is, such as ``an HTML page``, or None if its first bytes do not tell."""
    return next((kind for kind, magic in _OTHERS.items() if magic.match(head)), None)


def _is_text(head: bytes) -> bool:
    # The last character may be cut
    text = head.decode("utf-8", "ignore")
    return len(head) - len(text.encode()) < 4 and not _NOT_TEXT.search(text)  # noqa: PLR2004 - bytes of the longest character
