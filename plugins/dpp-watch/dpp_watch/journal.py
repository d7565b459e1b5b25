"""What was taken: ``journal.jsonl``, and the manifests of the collections beside it.

watch/<name>/lock                  held by the watcher; has its process id
watch/<name>/journal.jsonl         a line for the folder, one per file that was taken, and one per batch that has ended
watch/<name>/<name>-000017.jsonl   the manifest of a collection

A collection exists once its manifest has its name. Then its files are written to the journal, and then its batch starts. A process
that is killed in between leaves a manifest whose files are not all in the journal, and at most one incomplete line, at its end: the next
watcher removes the line and adds the files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, Self

from dpp import ConfigurationError, EnvironmentStop
from pydantic import TypeAdapter
from typing_extensions import TypedDict

FORMAT = 1


class _FolderLine(TypedDict):
    folder: str
    format: int


class _FileLine(TypedDict):
    path: str
    version: str
    batch: int


class _EndLine(TypedDict):
    batch: int
    ended: int
    run: str
    failed: list[str]


class _Row(TypedDict):
    id: str
    expect_version: str
    size: NotRequired[int | None]


_JOURNAL = TypeAdapter[Mapping[str, Any]](_FolderLine | _FileLine | _EndLine)
_MANIFEST = TypeAdapter[Mapping[str, Any]](_Row)


class JournalState:
    """What a journal says.

    Attributes:
        folder: Digest of the watched folder's place; "" for a new journal.
        taken: Version of each file that was taken last, by path.
        tries: Number of batches in which that version has failed, by path; files that are ok are not in it.
        number: Number of the last collection; 0 for none.
        is_open: Whether its batch has not ended.
        last_run: Label of the last run that has ended.
    """

    def __init__(self) -> None:
        self.folder = ""
        self.taken: dict[str, str] = {}
        self.tries: dict[str, int] = {}
        self.number = 0
        self.is_open = False
        self.last_run = ""
        self._members: list[str] = []

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of the journal.

        Raises:
            ValueError: The lines of a collection are missing, or another version of dpp-watch has written the journal.
        """
        if "path" in line:
            self._take(line["path"], line["version"], line["batch"])
        elif "ended" in line:
            failed = set(line["failed"])
            self.tries = {path: count for path, count in self.tries.items() if path in failed or path not in self._members}
            self.tries |= {path: self.tries.get(path, 0) + 1 for path in failed}
            self.is_open, self.last_run = False, line["run"]
        elif line["format"] == FORMAT:
            self.folder = line["folder"]
        else:
            raise ValueError("it was written by another version of dpp-watch")

    def _take(self, path: str, version: str, number: int) -> None:
        if number not in (self.number, self.number + 1):
            raise ValueError(f"collection {self.number + 1} is missing before it")
        if number != self.number:
            self.number, self.is_open, self._members = number, True, []
        if self.taken.get(path) != version:
            self.tries.pop(path, None)
        self.taken[path] = version
        self._members.append(path)

    def count(self) -> int:
        """Return the number of files of the last collection in the journal."""
        return len(self._members)


class Journal:
    """The journal of a watcher, which keeps it locked.

    Args:
        workspace: The workspace.
        name: Name of the watcher.
        place: The watched folder or URL, without a password.

    Raises:
        ConfigurationError: Another process watches under this name, or the name belongs to another folder.
    """

    def __init__(self, workspace: Path, name: str, place: str) -> None:
        self.folder = workspace / "watch" / name
        self._name = name
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._locked()
            self._file = os.open(_path(self.folder), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _remove_torn(self._file)
        try:
            self._load(place)
        except BaseException:
            self.close()
            raise

    def _load(self, place: str) -> None:
        """Read the journal, and complete it."""
        self.state = read(self.folder, place)
        last = self._last_manifest()
        if self.state.is_open and last < self.state.number:
            raise _damaged(self.manifest(self.state.number), "it is missing")
        if not self.state.folder:
            if last:
                raise _damaged(_path(self.folder), "its lines are missing")
            self._append([{"folder": digest(place), "format": FORMAT}])
        self._adopt(last)

    def _locked(self) -> int:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
            os.close(lock)
            raise ConfigurationError(
                f"process {holder} is the watcher {self._name!r} of this workspace already; stop it, or choose another --name"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _last_manifest(self) -> int:
        """Return the number of the last manifest; 0 without a manifest."""
        return max((int(match[1]) for path in self.folder.iterdir() if (match := _manifest(self._name, path.name))), default=0)

    def _adopt(self, number: int) -> None:
        """Add the files of the last manifest to the journal, as far as they are missing."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink()
        if number >= max(self.state.number, 1):
            known = self.state.count() if number == self.state.number else 0
            rows = [row for _, row in _lines(self.manifest(number), _MANIFEST)]
            self._append([_line(row, number) for row in rows[known:]])

    def manifest(self, number: int) -> Path:
        """Return the path of a collection's manifest."""
        return self.folder / f"{self._name}-{number:06d}.jsonl"

    def collect(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make a collection of files, and return its number.

        Args:
            rows: The files, as entries of a manifest with ``id`` and ``expect_version``.
        """
        if not os.fstat(self._lock).st_nlink:
            raise EnvironmentStop(f"{self.folder} was removed while the watcher ran; start the watcher again")
        number = self.state.number + 1
        path = self.manifest(number)
        temporary = path.with_name(f".{path.name}.tmp")
        with _writing(path), open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.writelines(_json(row) for row in rows)
            stream.flush()
            # After a power cut, a manifest that has its name must be complete.
            os.fsync(stream.fileno())
            os.replace(temporary, path)
        self._append([_line(row, number) for row in rows])
        return number

    def end(self, code: int, run: str, failed: Iterable[str]) -> None:
        """Record that the batch of the last collection has ended.

        Args:
            code: Its exit code.
            run: Label of its run.
            failed: Paths of the files that failed.
        """
        self._append([{"batch": self.state.number, "ended": code, "run": run, "failed": sorted(failed)}])

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if not lines:
            return
        data = b"".join(map(_json, lines))
        with _writing(_path(self.folder)):
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        for line in lines:
            self.state.add(line)

    def close(self) -> None:
        """Close the files, which unlocks them; a process that was forked must do so at once."""
        os.close(self._file)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read(folder: Path, place: str) -> JournalState:
    """Return what the journal in a folder says; an empty state without a journal.

    Args:
        folder: Folder of the watcher.
        place: The watched folder or URL, without a password.

    Raises:
        ConfigurationError: The journal is damaged, or is that of another place.
    """
    state, path = JournalState(), _path(folder)
    for number, line in _lines(path, _JOURNAL):
        try:
            state.add(line)
        except ValueError as error:
            raise _damaged(path, str(error), number) from error
    if state.folder not in ("", digest(place)):
        raise ConfigurationError(f"the watcher {folder.name!r} of this workspace watches another folder; choose another --name")
    return state


def is_watched(folder: Path) -> bool:
    """Whether a watcher holds the lock of a folder."""
    with suppress(FileNotFoundError), open(folder / "lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def digest(place: str) -> str:
    """Return a digest of the place that is watched."""
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _path(folder: Path) -> Path:
    return folder / "journal.jsonl"


def _manifest(name: str, file: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{re.escape(name)}-(\d+)\.jsonl", file)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape") + b"\n"


def _line(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"path": row["id"], "size": row.get("size"), "version": row["expect_version"], "batch": number}


def _lines(path: Path, kind: TypeAdapter[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the numbers, from 1, and the values of a file of JSON Lines; an incomplete last line is skipped.

    Raises:
        ConfigurationError: A line is not of this kind.
    """
    with suppress(FileNotFoundError), open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.endswith(b"\n"):
                try:
                    yield number, kind.validate_json(line, strict=True)
                except ValueError as error:
                    raise _damaged(path, "it is damaged", number) from error


def _damaged(path: Path, why: str, line: int = 0) -> ConfigurationError:
    place = f"{path}, line {line}" if line else str(path)
    return ConfigurationError(f"{place}: {why}. Restore it from a backup; or remove {path.parent}, and the watcher takes all files again")


def _remove_torn(descriptor: int) -> None:
    """Remove an incomplete last line, which a process that was killed has left."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)


class _writing:  # noqa: N801 - reads as a verb, like contextlib.suppress
    """Turn an OSError into EnvironmentStop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise EnvironmentStop(
                f"cannot write {error.filename or self._path}: {error.strerror}. Fix this and start the watcher again; nothing is lost."
            ) from error
