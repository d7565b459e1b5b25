"""Standard streams that cannot be written: closed, on a full disk, or pipes that are not read any more.

What a run prints must not decide what becomes of its files. So a failed write of a message is ignored. One of standard output is
remembered, and the command then ends with exit code 3. A reader that closes its end of a pipe, such as head, wants no more:
the rest of the output is discarded, and the exit code is that of the command.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

OUTPUT, MESSAGES = 1, 2
_FAILING = {"strict", "surrogateescape"}  # Python's for standard output (PYTHONIOENCODING), which fail for some characters
_lost: list[OSError] = []


class _Reserved:
    """The descriptor of standard output."""

    descriptor = OUTPUT


class _Tolerant(io.RawIOBase):
    """A standard stream whose writes always succeed.

    Args:
        descriptor: The stream's file descriptor, which stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Write all of the data; ignore an error."""
        if self._descriptor == _Reserved.descriptor:
            write_output(data)
        else:
            with suppress(OSError):
                write_all(self._descriptor, data)
        return len(data)


def write_output(data: bytes) -> None:
    """Write data to standard output; remember an error for :func:`lost_output`."""
    try:
        write_all(_Reserved.descriptor, data)
    except OSError as error:
        if error.errno != errno.EPIPE:
            _lost.append(error)


def reserve_output() -> int:
    """Reserve standard output for :func:`write_output`, and return its descriptor; what others print goes to standard error from now on.

    This holds for this process and those that it starts: plugins may print, and so may the programs that they run.
    """
    if _Reserved.descriptor == OUTPUT:
        sys.stdout.flush()
        _Reserved.descriptor = os.dup(OUTPUT)
        os.dup2(MESSAGES, OUTPUT)
    return _Reserved.descriptor


def lost_output() -> str:
    """Return why a part of this process's standard output could not be written; "" if all was, or if its reader wanted no more."""
    sys.stdout.flush()
    return (_lost[0].strerror or str(_lost[0])) if _lost else ""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data, with as many calls as needed; wait while a pipe or a terminal is full.

    Raises:
        OSError: The data cannot be written.
    """
    remaining = memoryview(data)
    while remaining:
        try:
            remaining = remaining[os.write(descriptor, remaining) :]
        except BlockingIOError:
            # The process that started this one has made the pipe or the terminal non-blocking, for itself as well.
            select.select([], [descriptor], [])


def open_closed_streams() -> None:
    """Open /dev/null in place of the standard streams that were closed when this process started."""
    # Otherwise the next files that are opened would take their descriptors, and get what is printed.
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _null(descriptor, "w" if descriptor else "r"))


def _null(descriptor: int, mode: str) -> TextIO:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        # os.open takes the lowest free descriptor, which is this one unless a lower one is free as well.
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        else:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the function's only form
        return open(descriptor, mode, encoding="utf-8", closefd=False)  # type: ignore[return-value]
    return open(os.devnull, mode, encoding="utf-8")  # type: ignore[return-value]


def tolerate_write_errors() -> None:
    """Let all writes to standard output and standard error succeed, in this process and those that it forks."""
    for descriptor, name in ((OUTPUT, "stdout"), (MESSAGES, "stderr")):
        stream = getattr(sys, name)
        # A stream that a program has replaced, as tests do, is its own.
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor:
            setattr(sys, name, _tolerant(stream, descriptor))
            setattr(sys, f"__{name}__", getattr(sys, name))


def _tolerant(stream: io.TextIOWrapper, descriptor: int) -> TextIO:
    """Return a stream with the same encoding and buffering as another one, which escapes what it cannot encode."""
    with suppress(OSError):
        stream.flush()
    raw: Any = _Tolerant(descriptor)
    # With PYTHONUNBUFFERED, a standard stream has no buffer.
    buffer = raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        # As standard error has them: in a locale such as C, a step that prints "ü" would fail its file.
        errors="backslashreplace" if stream.errors in _FAILING else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
