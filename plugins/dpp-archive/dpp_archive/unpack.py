"""Unpack one file of any format, completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dpp import StageError

from dpp_archive.content import HEAD, described, detect, known_as
from dpp_archive.folder import Folder, Rules, shown, write_new
from dpp_archive.formats import SMALLEST, Promise, promised, unpacked_name
from dpp_archive.limits import Budget
from dpp_archive.streams import WRITE_BLOCK, decompressed
from dpp_archive.tar_headers import ZEROS, is_tar
from dpp_archive.tars import Stream, unpack_tar
from dpp_archive.zips import unpack_zip


class Unpacked(NamedTuple):
    """The result of unpacking a file.

    Attributes:
        path: The file or folder.
        warnings: What a user should know about it.
        skipped_links: The names of links that were skipped.
    """

    path: Path
    warnings: Iterable[str] = ()
    skipped_links: Sequence[str] = ()


def unpack(path: Path, kind: str, into: Path, budget: Budget, promise: Promise | None, rules: Rules) -> Unpacked:
    """Unpack a file.

    Args:
        path: The file.
        kind: Its format, as ``formats.detect`` returns it.
        into: The folder to write into.
        budget: The limits of the file.
        promise: The format that its content has to match, or None for any.
        rules: How members of an archive are unpacked.

    Returns:
        The unpacked file or folder, and what was noticed.

    Raises:
        StageError: The file is rejected; nothing is left in ``into``.
        OSError: The file cannot be read, or its content cannot be written.
    """
    with path.open("rb") as source:
        if kind == "zip":
            with _whole(into / unpacked_name(path.name, folder=True)) as target:
                folder = Folder(target, budget, rules)
                unpack_zip(source, folder, budget)
            return Unpacked(target, folder.warnings, folder.skipped_links)
        stream = Stream(_blocks(source) if kind == "tar" else decompressed(source, kind), budget)
        if _holds_tar(stream, promise):
            with _whole(into / unpacked_name(path.name, folder=True)) as target:
                folder = Folder(target, budget, rules)
                unpack_tar(stream, folder)
            return Unpacked(target, folder.warnings, folder.skipped_links)
        inner = detect(stream.peek(HEAD))
        with _whole(into / unpacked_name(path.name, folder=False)) as target:
            write_new(str(target), stream.rest())
        return Unpacked(target, _warn_about_inner(inner, target.name))


def _warn_about_inner(kind: str | None, name: str) -> Iterator[str]:
    """Warn that an unpacked file is packed once more, unless its name says so."""
    if kind and promised(name) is None:
        yield f"the unpacked file {shown(name)} has the format {kind} again; to unpack it, too, list decompress twice"


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(WRITE_BLOCK), b"")


def _holds_tar(stream: Stream, promise: Promise | None) -> bool:
    """Return whether a stream is a tar, by its first block or by the file's name."""
    head = stream.peek(HEAD)
    if is_tar(head):
        return True
    if promise is None or not promise.has_tar:
        return False
    if len(head) < HEAD:
        raise too_short(len(head), "tar", head)
    # A tar without members has only zeros
    if head != ZEROS:
        raise mismatch("tar", head)
    return True


def too_short(size: int, kind: str, head: bytes) -> StageError:
    """Return the error for a file with fewer bytes than its format needs: it is cut, or something else."""
    if known_as(head):
        return mismatch(kind, head)
    return StageError(
        f"the {kind} is truncated: expected at least {SMALLEST.get(kind, 1)} bytes, got {size}; download the file again",
        "archive-truncated",
    )


def mismatch(kind: str, head: bytes) -> StageError:
    """Return the error for a file whose content, with these first bytes, does not match its name."""
    return StageError(
        f"expected the format {kind} because of the file's name, got {described(head)}; "
        "to accept such files, set check_suffix of decompress to false",
        "archive-mismatch",
    )


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Remove an incomplete file or folder when an error ends the block."""
    try:
        yield target
    except BaseException:
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        elif target.exists():
            os.unlink(target)
        raise
