"""The content of ``run.json``: how, when and where a run was started, without secrets."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from dpp.selection import Selection
from dpp.shards import Shard
from dpp.workspace.atomic import read_bytes


class RunInfo(BaseModel):
    """The description of a run in ``run.json``.

    Attributes:
        batch: Name of the batch.
        run: Number of the run; 0 if ``run.json`` is missing or damaged.
        files: Name of the manifest for messages.
        total: Number of files in the batch.
        started: Start of the run, as ISO 8601 text in UTC.
        started_at: Start of the run, in seconds since 1970-01-01 UTC.
        started_clock: Start of the run on the ``CLOCK_BOOTTIME`` of its machine, in seconds.
        host: Name of the machine.
        pid: Id of the process.
        dpp: Version of dpp.
        plugins: The steps, with kind, name, version and a digest of their options.
        fingerprints: Names of the folders of targets: of the pre-processors, of these with the processor, of all steps.
        name: Name that the user gave the batch; "" if it has the manifest's name.
        source: Path or URL of the manifest; "" if it cannot be read again or contains a secret.
        settings: The settings, without the options of plugins.
        options: The options that were given, without secrets.
        withheld: Names of options and settings that are not stored because they may be secret.
        selection: Which failures of earlier runs are retried; all if None.
        skipped: Files skipped because the destination has them (``skip_existing``).
        packages: Versions of the packages whose steps and fetchers the run may use, by name.
        mark: Random text by which a process on another machine recognizes the run; no secret.
        shard: The part of the manifest that is run, such as ``3/8``; "" for all of it.
        manifest: Digest of the manifest's entries, which the runs of all shards have in common; "" without a shard.
        listed: Number of files in all shards; 0 without a shard.
    """

    # Every field has a default, so that the file of another version of dpp can be read.
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
    packages: dict[str, str] = Field(default_factory=dict)
    mark: str = ""
    shard: str = ""
    manifest: str = ""
    listed: int = 0

    @field_validator("shard")
    @classmethod
    def _shard_is_one(cls, text: str) -> str:
        return str(Shard.parse(text)) if text else ""

    def elapsed(self) -> float:
        """Return the seconds since the start of the run."""
        # CLOCK_BOOTTIME cannot be set, unlike the time of day, but is valid only on the machine of the run.
        if self.started_clock is not None and self.host == socket.gethostname():
            return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_clock)
        return max(0.0, time.time() - self.started_at) if self.started_at else 0.0


def read_info(folder: Path) -> RunInfo:
    """Return the content of ``run.json`` in the folder of a run; only defaults if it is missing or damaged."""
    try:
        return RunInfo.model_validate_json(read_bytes(folder / "run.json"))
    except (OSError, ValidationError):
        return RunInfo()
