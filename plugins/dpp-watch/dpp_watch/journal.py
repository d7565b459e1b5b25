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
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from dpp import ConfigurationError, EnvironmentStop

FORMAT = 1


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
        """Add a line of the journal."""
        if "path" in line:
            self._take(line["path"], line["version"], line["batch"])
        elif "ended" in line:
            failed = set(line["failed"])
            self.tries = {path: count for path, count in self.tries.items() if path in failed or path not in self._members}
            self.tries |= {path: self.tries.get(path, 0) + 1 for path in failed}
            self.is_open, self.last_run = False, line["run"]
        elif "folder" in line:
            self.folder = line["folder"]

    def _take(self, path: str, version: str, number: int) -> None:
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
        self.state = read(self.folder)
        if not self.state.folder:
            self._append([{"folder": digest(place), "format": FORMAT}])
        elif self.state.folder != digest(place):
            self.close()
            raise ConfigurationError(f"the watcher {name!r} of this workspace watches another folder; choose another --name")
        self._adopt()

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

    def _adopt(self) -> None:
        """Add the files of the last manifest to the journal, as far as they are missing."""
        number = max((int(match[1]) for path in self.folder.iterdir() if (match := _manifest(self._name, path.name))), default=0)
        for path in self.folder.glob(".*.tmp"):
            path.unlink()
        if number >= max(self.state.number, 1):
            known = self.state.count() if number == self.state.number else 0
            rows = itertools.islice(_lines(self.manifest(number)), known, None)
            self._append([_line(row, number) for row in rows])

    def manifest(self, number: int) -> Path:
        """Return the path of a collection's manifest."""
        return self.folder / f"{self._name}-{number:06d}.jsonl"

    def collect(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Make a collection of files, and return its number.

        Args:
            rows: The files, as entries of a manifest with ``id`` and ``expect_version``.
        """
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


def read(folder: Path) -> JournalState:
    """Return what the journal in a folder says; nothing if there is none."""
    state = JournalState()
    for line in _lines(_path(folder)):
        state.add(line)
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


def _lines(path: Path) -> Iterator[Any]:
    """Yield the values of a file of JSON Lines; an incomplete last line is skipped."""
    with suppress(FileNotFoundError), open(path, "rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                with suppress(ValueError):
                    yield json.loads(line)


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
                f"cannot write {self._path}: {error.strerror}. Fix this and start the watcher again; nothing is lost."
            ) from error
