"""Detect a file's format by its name, and choose the name of the unpacked file or folder."""

from __future__ import annotations

from typing import NamedTuple

from dpp_archive.content import UNSUPPORTED_SUFFIXES

SMALLEST = {"gz": 20, "bz2": 14, "xz": 32, "zst": 9, "tar": 1024, "zip": 22}  # bytes of a file with no content

_COMPRESSED = {"gz": "gz", "bz2": "bz2", "bz": "bz2", "xz": "xz", "zst": "zst", "zstd": "zst"}
_COMPRESSED_TARS = {"tgz": "gz", "taz": "gz", "tbz": "bz2", "tbz2": "bz2", "tb2": "bz2", "txz": "xz", "tzst": "zst"}
_ARCHIVES = {"tar": "tar", "zip": "zip", "zipx": "zip"}
SUFFIXES = {*_ARCHIVES, *_COMPRESSED, *_COMPRESSED_TARS}


class Promise(NamedTuple):
    """The format that a file's name announces.

    Attributes:
        kind: ``gz``, ``bz2``, ``xz``, ``zst``, ``tar``, ``zip``, or a value of ``UNSUPPORTED_SUFFIXES``.
        has_tar: Whether the file is a tar, compressed or not.
    """

    kind: str
    has_tar: bool


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
    if last in UNSUPPORTED_SUFFIXES:
        return Promise(UNSUPPORTED_SUFFIXES[last], has_tar=False)
    return Promise(_ARCHIVES[last], has_tar=last == "tar") if last in _ARCHIVES else None


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
