"""What ``run.json`` holds: how a run was asked for, when and where it began; without secrets."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from dpp.selection import Selection
from dpp.workspace.atomic import read_bytes


class RunInfo(BaseModel):
    """A run, as ``run.json`` describes it; what a file of another version does not say has its default.

    Attributes:
        batch: Name of the batch.
        run: Number of the run; 0 where ``run.json`` is missing or damaged.
        files: What messages call the manifest.
        total: Files in the batch.
        started: When it began, as ISO 8601 text in UTC.
        started_at: The same in seconds since 1970-01-01 UTC.
        started_clock: The same on the clock of its machine that nobody sets (``CLOCK_BOOTTIME``), in seconds.
        host: Its machine.
        pid: Its process there.
        dpp: The version of dpp.
        plugins: The steps, with kind, name, version and a digest of their options.
        fingerprints: Of the pre-processors, of these with the processor, of all steps: they name the folders of targets.
        name: What its user calls the batch; "" where that is the manifest's name.
        source: Where the manifest can be read again; "" where it can't, or where that has a secret.
        settings: The settings, without the options of plugins.
        options: The options that were given, without secrets.
        withheld: Names of options and settings that are left out, as they may be secret.
        selection: Which failures of earlier runs are tried again; all if None.
        skipped: Files that the destination had already (``skip_existing``).
    """

    batch: str = ""
    run: int = 0
    files: str = ""
    total: int = 0
    started: str = ""
    started_at: float = 0.0
    started_clock: float | None = None
    host: str = ""
    pid: int = 0
    dpp: str = ""
    plugins: list[dict[str, str]] = Field(default_factory=list)
    fingerprints: list[str] = Field(default_factory=list)
    name: str = ""
    source: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    withheld: list[str] = Field(default_factory=list)
    selection: Selection | None = None
    skipped: int = 0

    def elapsed(self) -> float:
        """Return the seconds since the run began; on its own machine by a clock that nobody sets."""
        if self.started_clock is not None and self.host == socket.gethostname():
            return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_clock)
        return max(0.0, time.time() - self.started_at) if self.started_at else 0.0


def read_info(folder: Path) -> RunInfo:
    """Return what the ``run.json`` of a run's folder holds; all defaults where it is missing or damaged."""
    try:
        return RunInfo.model_validate_json(read_bytes(folder / "run.json"))
    except (OSError, ValidationError):
        return RunInfo()
