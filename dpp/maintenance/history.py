"""The history of a file: what each stage did, the state of its targets, and whether a run would process it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from dpp import names
from dpp.batch.folder import RunFolder
from dpp.download.complete import Download, load_download
from dpp.download.local import local_version
from dpp.engine.preprocess import INPUT, load_prepared
from dpp.errors import ConfigurationError
from dpp.models import FileData, Outcome
from dpp.plugins.builtin import content_digest
from dpp.report.summary import spell_retry
from dpp.selection import Selection
from dpp.workspace.atomic import read_json
from dpp.workspace.layout import SIDECAR_SUFFIX, DownloadPaths, Workspace

WHOLE, ABSENT = "complete", "missing"


class StageRecord(BaseModel):
    """What one stage did.

    Attributes:
        stage: The stage.
        steps: Its steps: name, version, and a digest of the options.
        input: SHA-256 digest of its input.
        output: SHA-256 digest of its output; for a folder, of the list of its files as ``sha256sum`` would print it.
        seconds: Seconds it took, in the run that ran it.
        state: ``complete``, or what is wrong with its target.
        path: The target.
    """

    stage: str
    steps: list[dict[str, str]] = Field(default_factory=list)
    input: str | None = None
    output: str | None = None
    seconds: float | None = None
    state: str = WHOLE
    path: str = ""


class FileHistory(BaseModel):
    """The history of a file.

    Attributes:
        batch: The batch and the run.
        outcome: The outcome of the file.
        stages: What each stage did, in order.
        again: Whether ``dpp run`` would process the file again.
        why: Why it would or would not.
    """

    batch: str
    outcome: Outcome
    stages: list[StageRecord]
    again: bool
    why: str


def find_outcome(run: RunFolder, file_id: str) -> Outcome:
    """Return the outcome of a file in a run.

    Raises:
        ConfigurationError: The run has no file with this id that has an outcome.
    """
    found = next((outcome for outcome in run.results() if outcome.id == file_id), None)
    if found is not None:
        return found
    near = names.close_match(file_id, (outcome.id for outcome in run.results()))
    hint = f"did you mean {near!r}? " if near else ""
    raise ConfigurationError(
        f"run {run.label} has no outcome of a file {file_id!r}; {hint}to list all files: dpp report {run.batch} --format jsonl"
    )


def file_history(run: RunFolder, outcome: Outcome) -> FileHistory:
    """Return the history of a file with this outcome, from the workspace."""
    stages = list(_Targets(run, outcome).stages())
    again, why = _verdict(outcome, stages, run)
    return FileHistory(batch=run.label, outcome=outcome, stages=stages, again=again, why=why)


def _verdict(outcome: Outcome, stages: list[StageRecord], run: RunFolder) -> tuple[bool, str]:
    download, report = stages[0], stages[-1]
    if not outcome.ok:
        words = [] if Selection().picks(outcome) else ["--class", outcome.error_class or ""]
        return True, f"it failed in {outcome.stage}: {outcome.error_class}; to retry it: {spell_retry(run.batch, run.folder, *words)}"
    if report.state != WHOLE:
        return True, f"its report is {report.state}"
    if download.state not in (WHOLE, ABSENT) and os.path.exists(download.path):
        return True, f"its download is {download.state}"
    version = outcome.source_version
    if version is not None and local_version(outcome.url) not in (None, version):
        return True, "its source has changed"
    is_asked = version is not None and urlsplit(outcome.url).scheme != "file"
    return False, "its report is ok, unless its source has changed; dpp plan asks the source" if is_asked else "its report is ok"


class _Targets:
    """The targets of a file."""

    def __init__(self, run: RunFolder, outcome: Outcome) -> None:
        self._outcome = outcome
        self._workspace = Workspace(run.root)
        self._steps = run.info.plugins
        self._fingerprints = run.info.fingerprints or ["", "", ""]
        self._file = FileData(url=outcome.url, id=outcome.id, name=outcome.name)
        self._paths = self._download_paths()
        self._download = load_download(self._paths, self._file)

    def stages(self) -> Iterator[StageRecord]:
        """Yield what each stage did, in order."""
        yield self._downloaded()
        made = self._pre_processed() if self._of_kind("pre-processor") else None
        if made is not None:
            yield made
        yield self._processed(made)
        if self._of_kind("post-processor"):
            yield self._record("post-process", "post-processor", state=self._state_of("post-process"))
        yield self._reported()

    def _record(self, stage: str, kind: str, **facts: Any) -> StageRecord:
        return StageRecord(stage=stage, steps=self._of_kind(kind), seconds=self._outcome.seconds.get(stage), **facts)

    def _of_kind(self, kind: str) -> list[dict[str, str]]:
        return [step for step in self._steps if step["kind"] == kind]

    def _state_of(self, stage: str) -> str:
        return f"failed: {self._outcome.error_class}" if self._outcome.stage == stage else "done" if self._outcome.ok else "not reached"

    def _download_paths(self) -> DownloadPaths:
        """Return the paths of the download."""
        paths = self._workspace.download(self._file)
        if os.path.exists(paths.folder):
            return paths
        # The folder is named by a digest of the URL. If the URL has a secret, which the outcome does not store, search the sidecars.
        for path in self._workspace.root.glob(f"downloads/*/{names.slug(names.stem(self._file.url))}-*/*{SIDECAR_SUFFIX}"):
            sidecar = read_json(path)
            if isinstance(sidecar, dict) and (sidecar.get("url"), sidecar.get("sha256")) == (self._file.url, self._outcome.sha256):
                return DownloadPaths(str(path.parent), path.name.removesuffix(SIDECAR_SUFFIX))
        return paths

    def _downloaded(self) -> StageRecord:
        digest = self._download.sha256 if self._download else None
        record = self._record("download", "fetcher", output=digest, state=self._download_state(), path=self._paths.body)
        record.steps = [{"kind": "fetcher", "name": urlsplit(self._file.url).scheme, "version": "", "options": ""}]
        return record

    def _download_state(self) -> str:
        if self._download is not None:
            expected = self._outcome.bytes
            return WHOLE if expected in (None, self._download.size) else f"{self._download.size} bytes, expected {expected}"
        sidecar = read_json(self._paths.sidecar)
        if isinstance(sidecar, dict) and os.path.exists(self._paths.body):
            return f"damaged: {os.stat(self._paths.body).st_size} of {sidecar.get('size')} bytes"
        if os.path.exists(self._paths.part):
            return f"partial: {os.stat(self._paths.part).st_size} bytes"
        return ABSENT

    def _pre_processed(self) -> StageRecord:
        path = Path(self._workspace.keyed("pre_processed", self._fingerprints[0], self._outcome.key))
        download = self._download or Download(Path(self._paths.body), self._outcome.bytes or 0, self._outcome.sha256 or "")
        made = load_prepared(self._file, path, download)
        digest = _current_digest(made.local_path) if made and made.local_path else None
        state = WHOLE if made else "damaged, or of another download" if path.exists() else ABSENT
        return self._record("pre-process", "pre-processor", input=download.sha256 or None, output=digest, state=state, path=str(path))

    def _processed(self, made: StageRecord | None) -> StageRecord:
        path = Path(self._workspace.keyed("processed", self._fingerprints[1], self._outcome.key) + ".json")
        stored = read_json(path)
        digest = stored.get(INPUT) if isinstance(stored, dict) else None
        fits = digest is not None and digest == (self._outcome.sha256 or digest)
        state = WHOLE if fits else "damaged, or of another download" if path.exists() else ABSENT
        return self._record(
            "process", "processor", input=made.output if made else digest, output=_current_digest(path), state=state, path=str(path)
        )

    def _reported(self) -> StageRecord:
        path = Path(self._workspace.keyed("reports", self._fingerprints[2], self._outcome.key) + ".json")
        stored = read_json(path)
        status = stored.get("status") if isinstance(stored, dict) else None
        state = WHOLE if status == self._outcome.status else f"{status or 'damaged'}" if path.exists() else ABSENT
        return StageRecord(stage="report", output=_current_digest(path), state=state, path=str(path))


def _current_digest(path: Path) -> str | None:
    """Return the digest of a file or folder; None if it does not exist."""
    return content_digest(path) if path.is_dir() or path.is_file() else None
