"""The ledger of a chunk: its files' outcomes as JSON Lines, appended as files end.

A line is written with one call, so a process that dies leaves at most one incomplete line, at the end. Readers skip it, and the
next writer removes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from pydantic import ValidationError

from dpp.models import Outcome
from dpp.streams import write_all
from dpp.workspace.atomic import list_folder, read_bytes, stops_run

OPEN_SUFFIX = ".open"


class Ledger:
    """Append outcomes to a file; only one process may write at a time, from any of its threads.

    Args:
        path: The final path, which :meth:`finish` creates; until then the file has the suffix ``.open``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open_path = path.with_name(path.name + OPEN_SUFFIX)
        self._lock = threading.Lock()
        with stops_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor: int | None = os.open(self._open_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._size = self._repaired()

    def _repaired(self) -> int:
        """Remove an incomplete last line; return the size in bytes."""
        data = self._open_path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.truncate(self._open_path, whole)
        return whole

    def recorded(self) -> dict[str, Outcome]:
        """Return the outcomes in the ledger, by key."""
        return {outcome.key: outcome for outcome in read_ledger(self._open_path)}

    def append(self, record: Record) -> None:
        """Append a record.

        Raises:
            EnvironmentStop: The record cannot be written; its written part is removed.
        """
        assert self._descriptor is not None, "the ledger is closed"
        with self._lock, stops_run(self._path):
            try:
                write_all(self._descriptor, record.line)
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise
            self._size += len(record.line)

    def finish(self) -> None:
        """Give the ledger its final name: every file of the chunk has an outcome."""
        with stops_run(self._path):
            self.close()
            os.replace(self._open_path, self._path)

    def close(self) -> None:
        """Close the file; an unfinished ledger can be opened again."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class Record(NamedTuple):
    """An outcome, and its line in a ledger, in a report and in ``results.jsonl``: JSON that ends with a line feed."""

    outcome: Outcome
    line: bytes

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Return the record of an outcome."""
        return cls(outcome, outcome.model_dump_json().encode() + b"\n")


def read_outcome(path: Path | str) -> Outcome | None:
    """Return the outcome in a file's report; None if the report is missing or incomplete."""
    try:
        return Outcome.model_validate_json(read_bytes(path))
    except (OSError, ValidationError):
        return None


def read_ledger(path: Path) -> Iterator[Outcome]:
    """Yield the outcomes of a ledger."""
    return (record.outcome for record in read_records(path))


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a ledger; skip incomplete and invalid lines."""
    # An unfinished ledger may have got its final name since its path was listed.
    stream = _open_if_there(path) or _open_if_there(path.with_name(path.name.removesuffix(OPEN_SUFFIX)))
    if stream is None:
        return
    with stream:
        for line in stream:
            try:
                yield Record(Outcome.model_validate_json(line), line.rstrip(b"\n") + b"\n")
            except ValidationError:
                continue


def _open_if_there(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def read_ledgers(folder: Path) -> Iterator[Record]:
    """Yield the records of all ledgers in a folder, finished or not."""
    for path in list_folder(folder):
        if ".jsonl" in path.name:
            yield from read_records(path)
