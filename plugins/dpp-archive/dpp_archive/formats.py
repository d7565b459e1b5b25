"""Telling what a file is by its content, what its name promises, and what to call what comes out of it."""

from __future__ import annotations

from typing import NamedTuple

from dpp_archive.streams import MAGIC
from dpp_archive.tar_headers import is_tar

HEAD = 512  # bytes that tell; a block of a tar
ZIP = (b"PK\3\4", b"PK\5\6")  # the second begins a zip without members
SMALLEST = {"gz": 20, "bz2": 14, "xz": 32, "zst": 9, "tar": 1024, "zip": 22}  # bytes that hold nothing

_COMPRESSED = {"gz": "gz", "bz2": "bz2", "bz": "bz2", "xz": "xz", "zst": "zst", "zstd": "zst"}
_COMPRESSED_TARS = {"tgz": "gz", "taz": "gz", "tbz": "bz2", "tbz2": "bz2", "tb2": "bz2", "txz": "xz", "tzst": "zst"}
SUFFIXES = {"tar", "zip", *_COMPRESSED, *_COMPRESSED_TARS}


class Promise(NamedTuple):
    """What a file's name says that it is.

    Attributes:
        kind: ``gz``, ``bz2``, ``xz``, ``zst``, ``tar`` or ``zip``.
        has_tar: Whether it is a tar, or has one inside.
    """

    kind: str
    has_tar: bool


def detect(head: bytes) -> str | None:
    """Return which format a file is, from its first 512 bytes, or None."""
    for kind, magic in MAGIC.items():
        if magic.match(head):
            return kind
    if head.startswith(ZIP):
        return "zip"
    return "tar" if is_tar(head) else None


def suffix(name: str) -> str:
    """Return what follows the last dot of a name, in lower case."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def promised(name: str) -> Promise | None:
    """Return what a name says that the file is, or None where it says nothing."""
    last = suffix(name)
    if last in _COMPRESSED:
        return Promise(_COMPRESSED[last], has_tar=suffix(name[: -len(last) - 1]) == "tar")
    if last in _COMPRESSED_TARS:
        return Promise(_COMPRESSED_TARS[last], has_tar=True)
    return Promise(last, has_tar=last == "tar") if last in ("tar", "zip") else None


def unpacked_name(name: str, *, folder: bool) -> str:
    """Return what to call what comes out of a file: its name without the suffix of a format.

    Args:
        name: The file's name.
        folder: Whether it becomes a folder, so that a ``.tar`` goes as well.
    """
    short = name[: -len(suffix(name)) - 1] if suffix(name) in SUFFIXES else name
    if folder and suffix(short) == "tar":
        short = short[: -len(".tar")]
    return short if short.strip(" .") else name
