"""Detect a file's format by its content and by its name, and choose the name of the unpacked file or folder."""

from __future__ import annotations

from typing import NamedTuple

from dpp_archive.streams import MAGIC
from dpp_archive.tar_headers import is_tar

HEAD = 512  # bytes; one block of a tar, the longest of all headers
ZIP = (b"PK\3\4", b"PK\5\6")  # the second is for a zip without members
SMALLEST = {"gz": 20, "bz2": 14, "xz": 32, "zst": 9, "tar": 1024, "zip": 22}  # bytes of a file with no content

_COMPRESSED = {"gz": "gz", "bz2": "bz2", "bz": "bz2", "xz": "xz", "zst": "zst", "zstd": "zst"}
_COMPRESSED_TARS = {"tgz": "gz", "taz": "gz", "tbz": "bz2", "tbz2": "bz2", "tb2": "bz2", "txz": "xz", "tzst": "zst"}
SUFFIXES = {"tar", "zip", *_COMPRESSED, *_COMPRESSED_TARS}


class Promise(NamedTuple):
    """The format that a file's name announces.

    Attributes:
        kind: ``gz``, ``bz2``, ``xz``, ``zst``, ``tar`` or ``zip``.
        has_tar: Whether the file is a tar, compressed or not.
    """

    kind: str
    has_tar: bool


def detect(head: bytes) -> str | None:
    """Return the format of a file from its first 512 bytes, or None if it is not a known one."""
    for kind, magic in MAGIC.items():
        if magic.match(head):
            return kind
    if head.startswith(ZIP):
        return "zip"
    return "tar" if is_tar(head) else None


def suffix(name: str) -> str:
    """Return the part after the last dot of a name in lower case, or "" if it has no dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def promised(name: str) -> Promise | None:
    """Return the format that a file's name announces, or None."""
    last = suffix(name)
    if last in _COMPRESSED:
        return Promise(_COMPRESSED[last], has_tar=suffix(name[: -len(last) - 1]) == "tar")
    if last in _COMPRESSED_TARS:
        return Promise(_COMPRESSED_TARS[last], has_tar=True)
    return Promise(last, has_tar=last == "tar") if last in ("tar", "zip") else None


def unpacked_name(name: str, *, folder: bool) -> str:
    """Return the name of the unpacked file or folder: the packed file's name without the suffix of its format.

    Args:
        name: The packed file's name.
        folder: Whether it is unpacked to a folder, so that ``.tar`` is removed as well.
    """
    short = name[: -len(suffix(name)) - 1] if suffix(name) in SUFFIXES else name
    if folder and suffix(short) == "tar":
        short = short[: -len(".tar")]
    # ".gz" or "..gz" would leave an empty name, or one that means a folder
    return short if short.strip(" .") else name
