"""Snapshots of the files in flight, one small file per process, for the live view of a run."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from dpp.errors import EnvironmentStop
from dpp.workspace.atomic import is_alive, read_bytes, write_atomic

POST_PROCESS = "post-process"
STAGES = ("download", "pre-process", "process", POST_PROCESS)


class Slow(BaseModel):
    """A file that a stage works on.

    Attributes:
        id: The file's id.
        stage: The stage.
        since: When the stage started, in seconds since 1970-01-01 UTC.
        bytes: Bytes downloaded so far; 0 if the stage is not the download.
    """

    id: str
    stage: str
    since: float
    bytes: int = 0


class Snapshot(BaseModel):
    """The files that one process has in flight at one moment.

    Attributes:
        host: The machine of the process.
        pid: The process id.
        running: Number of files that each stage works on.
        waiting: Number of files that wait for each stage.
        slowest: The files that a stage has worked on for longest.
        bytes: Bytes received of all downloads in progress.
    """

    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    running: dict[str, int] = Field(default_factory=dict)
    waiting: dict[str, int] = Field(default_factory=dict)
    slowest: list[Slow] = Field(default_factory=list)
    bytes: int = 0

    @property
    def is_current(self) -> bool:
        """Whether the process may still be running."""
        # A process on another machine cannot be checked from here.
        return self.host != socket.gethostname() or is_alive(str(self.pid))


def keep_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot; do nothing if it cannot be written or the run has ended."""
    # Only the display reads snapshots, so a failure here must not stop the run.
    if path.parent.is_dir():
        with suppress(EnvironmentStop):
            write_atomic(path, snapshot.model_dump_json().encode())


def read_snapshots(folder: Path) -> Iterator[Snapshot]:
    """Yield the snapshots of a run."""
    found: list[str] = []
    # The end of the run may remove the folder and its files at any moment.
    with suppress(FileNotFoundError):
        found = os.listdir(folder)
    for name in found:
        if name.endswith(".json"):
            with suppress(OSError, ValidationError):
                yield Snapshot.model_validate_json(read_bytes(folder / name))
