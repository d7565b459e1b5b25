"""Write, read and remove files so that a final name always has the complete content.

A file is written under a temporary name in its folder, and renamed when it is complete. So a process that is killed leaves the
complete file or none. There is no fsync by default: a file that a power cut truncates is found by the size in its sidecar, and
made again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from dpp.errors import RESUMABLE_TEXT, EnvironmentStop
from dpp.streams import write_all
from dpp.workspace.machine import process_name, process_space, reason_of

StrPath = str | Path
_BLOCK = 64 * 1024
_OF_RIGHTS = frozenset({errno.EACCES, errno.EROFS})
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_TEMPORARY = re.compile(r"\..*\.(?P<space>[0-9a-f]{6})-(?P<pid>\d+)-\d+\.tmp", re.DOTALL)


class stops_run:  # noqa: N801 - reads as a verb, like contextlib.suppress
    """Turn an OSError into EnvironmentStop, for code that writes our own files: a failure would affect every file of the batch.

    Args:
        path: The path to name in the message.
    """

    # A class, as a generator takes three times as long, and each file enters about ten of these blocks.
    __slots__ = ("_path",)

    def __init__(self, path: StrPath) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            stop = EnvironmentStop(f"cannot write {self._path}: {reason_of(error)}. {RESUMABLE_TEXT}")
            stop.denied = os.fspath(self._path) if error.errno in _OF_RIGHTS else ""
            raise stop from error


def write_atomic(path: StrPath, data: bytes) -> None:
    """Write a small file atomically; create missing folders.

    Raises:
        EnvironmentStop: The file cannot be written.
    """
    temporary = temporary_name(path)
    with stops_run(path):
        try:
            descriptor = _create(temporary)
            try:
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise


@contextmanager
def writing(path: StrPath, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Yield a stream for a file of any size, which gets its name when the block succeeds; remove it if the block raises.

    Args:
        path: Path of the file; its folder must exist.
        durable: Whether the file must survive a power cut (fsync).

    Raises:
        EnvironmentStop: The file cannot be written.
    """
    temporary = temporary_name(path)
    with stops_run(path):
        try:
            with open(temporary, "wb") as stream:
                yield stream
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise


def write_stream(path: StrPath, parts: Iterable[bytes], *, durable: bool = False) -> None:
    """Write a large file, part by part; see :func:`writing`."""
    with writing(path, durable=durable) as stream:
        stream.writelines(parts)


def remove(path: StrPath) -> None:
    """Remove a file if it exists."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def temporary_name(path: StrPath) -> str:
    """Return a temporary path beside a target, unique to this thread, process and machine, whose ids it contains."""
    folder, slash, name = os.fspath(path).rpartition("/")
    return f"{folder}{slash}.{name}.{process_name()}-{threading.get_native_id()}.tmp"


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary file or folder."""
    return _TEMPORARY.fullmatch(name) is not None


def is_abandoned(name: str) -> bool:
    """Whether this is the name of a temporary file whose process has ended; false if this process could not see it."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and match["space"] == process_space() and not is_alive(match["pid"])


def is_alive(pid: str) -> bool:
    """Whether a process still runs, among those that this one can see."""
    try:
        state = Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    # A zombie (Z, see proc(5)) has ended, but its parent has not waited for it yet.
    return state not in ("Z", "X")


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def write_json(path: StrPath, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomic(path, json_line(value))


def json_line(value: Any) -> bytes:
    """Return a value as a line of JSON.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot represent the value.
    """
    return _JSON.encode(value).encode() + b"\n"


def read_json(path: StrPath) -> Any:
    """Return the content of a JSON file, or None if it is missing, truncated or not JSON."""
    try:
        return from_json(read_bytes(path))
    except (OSError, ValueError):
        return None


def read_bytes(path: StrPath) -> bytes:
    """Return the content of a small file.

    Raises:
        OSError: The file cannot be read.
    """
    # Path.read_bytes takes three times as long (12 microseconds instead of 4). With O_NONBLOCK, a named pipe in place of the
    # file does not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.read(descriptor, _BLOCK)
        return data if len(data) < _BLOCK else data + b"".join(iter(lambda: os.read(descriptor, _BLOCK), b""))
    finally:
        os.close(descriptor)


def is_cut(path: StrPath) -> bool:
    """Whether a file that :func:`write_json` wrote is truncated: it has no line feed at its end. A missing file is not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        return not size or os.pread(descriptor, 1, size - 1) != b"\n"
    except OSError:
        return True
    finally:
        os.close(descriptor)


def list_folder(folder: Path) -> list[Path]:
    """Return the paths in a folder, sorted; none if there is no such folder.

    Raises:
        OSError: The folder cannot be read.
    """
    # Path.glob skips what it cannot read, as if it were not there: PermissionError, and since Python 3.13 every OSError.
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield what ``os.walk`` yields, without the folders that are removed meanwhile.

    Raises:
        OSError: A folder cannot be read, which os.walk skips.
    """

    def check(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return os.walk(folder, onerror=check)


def make_folder(folder: str) -> None:
    """Create a folder and its parents, if they are missing."""
    # Most of the time only the folder itself is missing, and mkdir is faster than makedirs.
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)


def discard(folder: Path) -> None:
    """Remove a published folder and the record beside it."""
    # The record goes first, so that no record describes a folder that does not exist.
    with stops_run(folder):
        remove(f"{folder}.json")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def publishing(final: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``final`` when the block succeeds, and is removed if it raises."""
    temporary = Path(temporary_name(final))
    with stops_run(final):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with stops_run(final):
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
