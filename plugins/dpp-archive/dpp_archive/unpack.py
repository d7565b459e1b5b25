"""One file unpacked, whatever format it is: wholly, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dpp import StageError

from dpp_archive.folder import Folder, write_new
from dpp_archive.formats import HEAD, SMALLEST, Promise, unpacked_name
from dpp_archive.limits import Budget
from dpp_archive.streams import WRITE_BLOCK, decompressed
from dpp_archive.tar_headers import ZEROS, is_tar
from dpp_archive.tars import Stream, unpack_tar
from dpp_archive.zips import unpack_zip


def unpack(path: Path, kind: str, into: Path, budget: Budget, promise: Promise | None) -> Path:
    """Unpack a file.

    Args:
        path: The file.
        kind: Its format.
        into: The folder to write into.
        budget: The limits that hold for it.
        promise: What the file has to be, where that matters.

    Returns:
        The file or the folder that came out of it.

    Raises:
        StageError: It is refused; nothing is left of it.
        OSError: It can't be read, or what is in it can't be written.
    """
    with path.open("rb") as source:
        if kind == "zip":
            with _whole(into / unpacked_name(path.name, folder=True)) as target:
                unpack_zip(source, Folder(target, budget), budget)
            return target
        stream = Stream(_blocks(source) if kind == "tar" else decompressed(source, kind), budget)
        if _holds_tar(stream, promise):
            with _whole(into / unpacked_name(path.name, folder=True)) as target:
                unpack_tar(stream, Folder(target, budget))
        else:
            with _whole(into / unpacked_name(path.name, folder=False)) as target:
                write_new(str(target), stream.rest())
        return target


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(WRITE_BLOCK), b"")


def _holds_tar(stream: Stream, promise: Promise | None) -> bool:
    """Whether a stream is a tar, by its beginning or by its promise; zeros are a tar without members."""
    head = stream.peek(HEAD)
    if is_tar(head):
        return True
    if promise is None or not promise.has_tar:
        return False
    if len(head) < HEAD:
        raise too_short(len(head), "tar")
    if head != ZEROS:
        raise mismatch("tar")
    return True


def too_short(size: int, kind: str) -> StageError:
    """Return the refusal of a file with fewer bytes than one of its format can have."""
    return StageError(f"it is cut short: it has {size} bytes, a {kind} at least {SMALLEST[kind]}; fetch it again", "archive-truncated")


def mismatch(kind: str) -> StageError:
    """Return the refusal of a file that is not what its name says."""
    return StageError(
        f"its name says that it is a {kind}, and its content is none; if it is to pass as it is, set check_suffix of decompress to false",
        "archive-mismatch",
    )


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Leave nothing of what was begun, unless all of it is there."""
    try:
        yield target
    except BaseException:
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        elif target.exists():
            os.unlink(target)
        raise
