"""What the processes of a run have on their way, in small files for whoever watches the run."""

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
    """A file that a stage is at.

    Attributes:
        id: The file's id.
        stage: The stage.
        since: When the stage began with it, in seconds since 1970-01-01 UTC.
        bytes: How much of it is downloaded, where it is being downloaded.
    """

    id: str
    stage: str
    since: float
    bytes: int = 0


class Snapshot(BaseModel):
    """What one process has on its way at one moment.

    Attributes:
        host: Its machine.
        pid: Its number there.
        running: How many files each stage is at.
        waiting: How many files wait for each stage.
        slowest: The files that a stage has been at for longest.
        bytes: How much is there of downloads that have not ended.
    """

    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    running: dict[str, int] = Field(default_factory=dict)
    waiting: dict[str, int] = Field(default_factory=dict)
    slowest: list[Slow] = Field(default_factory=list)
    bytes: int = 0

    @property
    def is_current(self) -> bool:
        """Whether its process may still be at it."""
        return self.host != socket.gethostname() or is_alive(str(self.pid))


def keep_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot down, if that can be done and the run still lasts; nothing depends on it."""
    if path.parent.is_dir():
        with suppress(EnvironmentStop):
            write_atomic(path, snapshot.model_dump_json().encode())


def read_snapshots(folder: Path) -> Iterator[Snapshot]:
    """Yield the snapshots of a run; the folder goes when the run ends, at any moment."""
    found: list[str] = []
    with suppress(FileNotFoundError):
        found = os.listdir(folder)
    for name in found:
        if name.endswith(".json"):
            with suppress(OSError, ValidationError):
                yield Snapshot.model_validate_json(read_bytes(folder / name))
