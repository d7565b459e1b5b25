"""What a run is to do, in a folder that only its owner may read and that is there only while the run lasts.

files.jsonl   the files, as the manifest lists them, with what is secret in URLs and headers
plan.json     the settings, and where the chunks begin
progress/     snapshots of what is on its way
limits/       what is counted across the processes of the run
crashes       there once a process of the run has died
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpp.errors import ConfigurationError
from dpp.manifest.catalog import Chunk, read_catalog, write_catalog
from dpp.manifest.readers import Entry
from dpp.models import FileData
from dpp.settings import Settings, make_settings
from dpp.workspace.atomic import read_json, stops_run, write_json

CRASHES = "crashes"


class WorkFile:
    """The files, settings and chunks of a run.

    Args:
        folder: Where it lies; the same for all runs of a batch, of which one has it at a time.
        run: The number of the run.
        label: What messages call the run.
    """

    def __init__(self, folder: Path, run: int, label: str) -> None:
        self.snapshots = folder / "progress"
        self.limits = folder / "limits"
        self.folder = folder
        self._run = run
        self._label = label
        self._settings: Settings | None = None
        self._files: list[FileData] = []

    def begin(self, source: str, entries: Iterator[Entry], settings: Settings, schemes: set[str], workers: int) -> list[Chunk]:
        """Check the manifest and write down its files.

        Args:
            source: What messages call the manifest.
            entries: Its entries as read.
            settings: The settings.
            schemes: URL schemes that can be fetched.
            workers: Processes that are to work on it.

        Returns:
            The chunks, in the order of the manifest.

        Raises:
            ManifestError: Some entry is invalid; all problems are in it.
        """
        self.forget()
        with stops_run(self.folder):
            self.folder.mkdir(mode=0o700, parents=True)
            self.snapshots.mkdir()
        try:
            return write_catalog(
                self.folder / "files.jsonl",
                source,
                entries,
                schemes,
                lambda total: settings.chunk_size_for(total, workers),
                skip_bad=settings.skip_bad,
            )
        except BaseException:
            self.forget()
            raise

    def open(self, settings: Settings, chunks: Sequence[Chunk]) -> None:
        """Let others join the work."""
        self._settings = settings
        write_json(self.folder / "plan.json", {"run": self._run, "settings": settings.model_dump(mode="json"), "chunks": chunks})

    def is_open(self) -> bool:
        """Whether there is still work that one can join."""
        return self._stored() is not None

    @property
    def settings(self) -> Settings:
        """The settings of the run; read once.

        Raises:
            ConfigurationError: The run has ended.
        """
        self._settings = self._settings or make_settings(self._plan()["settings"])
        return self._settings

    def chunks(self) -> list[Chunk]:
        """Return the chunks, in the order of the manifest.

        Raises:
            ConfigurationError: The run has ended.
        """
        return [Chunk(*chunk) for chunk in self._plan()["chunks"]]

    def file(self, index: int) -> FileData:
        """Return a file of a small batch, each of whose files has Luigi tasks of its own; all are read at the first call.

        Args:
            index: Which of the run's files, from 0.

        Raises:
            ConfigurationError: The run has ended.
        """
        self._files = self._files or [file for chunk in self.chunks() for file in self.files(chunk)]
        return self._files[index]

    def files(self, chunk: Chunk) -> Iterator[FileData]:
        """Yield the files of a chunk."""
        return read_catalog(self.folder / "files.jsonl", chunk)

    def _plan(self) -> dict[str, Any]:
        if (stored := self._stored()) is None:
            raise ConfigurationError(f"run {self._label} has ended or was replaced; start RunBatch again")
        return stored

    def _stored(self) -> dict[str, Any] | None:
        stored = read_json(self.folder / "plan.json")
        return stored if isinstance(stored, dict) and stored["run"] == self._run else None

    def note_crash(self) -> None:
        """Note that a process of the run died, which may have left something half written."""
        with suppress(OSError):
            (self.folder / CRASHES).touch()

    def had_crashes(self) -> bool:
        """Whether a process of the run died."""
        return (self.folder / CRASHES).exists()

    def forget(self) -> None:
        """Remove it all."""
        shutil.rmtree(self.folder, ignore_errors=True)


def is_graph(chunks: Sequence[Chunk]) -> bool:
    """Whether every file has Luigi tasks of its own, and none is in a chunk with others."""
    return all(chunk.size == 1 for chunk in chunks)
