"""The Luigi tasks of a batch that is split into chunks."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext
from typing import ClassVar

import luigi

from dpp.batch.chunks import ChunkRunner
from dpp.batch.run import Run
from dpp.executors.coordinator import Coordinator
from dpp.logs import set_up_logging
from dpp.plugins.registry import registry
from dpp.tasks.file import PatientTask, fork_guard, run_in
from dpp.tasks.progress import Progress
from dpp.tasks.shutdown import Ending
from dpp.tasks.targets import FileTarget

FIRST_PRIORITY = 1_000_000


class ChunkTask(PatientTask):
    """A task that runs chunks of a run.

    Attributes:
        ending: What handles the signals that end the run; set by the process that began it, and inherited by its forks.
    """

    # Only where to find the run, nothing about the files: any process can run the chunks.
    run_folder = luigi.Parameter(description="folder of the run that the chunks belong to")

    ending: ClassVar[Ending | None] = None

    def opened(self) -> Run:
        """Return the run, with the log set up as its settings say."""
        run = run_in(self.run_folder)
        set_up_logging(run.workfile.settings)
        return run

    def graceful(self) -> AbstractContextManager[None]:
        """Return a context in which a signal that ends the run lets files in progress finish."""
        return self.ending.chunk() if self.ending else nullcontext()


class FileChunk(ChunkTask):
    """Run a slice of a batch's files through all stages, with the same targets as the four tasks of a file.

    It then runs, in the same process, each chunk that is not done and that no other process runs: a batch requires only one of
    these tasks per worker.
    """

    index = luigi.IntParameter(description="index in the run of the chunk to begin with, from 0")

    @property
    def priority(self) -> int:  # type: ignore[override] # Luigi only reads it
        """Return Luigi's priority of the chunk: they run in the order of the manifest."""
        # Luigi ignores a priority below that of RunBatch, 0.
        return FIRST_PRIORITY - self.index

    def output(self) -> FileTarget:
        """Return the chunk's ledger, which gets its final name when every file has an outcome."""
        return FileTarget(run_in(self.run_folder).chunk_ledger(self.index))

    def run(self) -> None:
        """Run the files that have no outcome in this run yet, in a child process."""
        run = self.opened()
        # In a child, so that a plugin that kills its process fails one file, not the chunk.
        with self.graceful(), closing(ChunkRunner(run, fork_guard())) as runner:
            runner.run_all(self.index, Progress(self).files)


class ExecutedChunks(ChunkTask):
    """Run all chunks of a batch with an executor; in place of the :class:`FileChunk` tasks, and with the same targets."""

    workers = luigi.IntParameter(description="number of chunks at once, if the executor's options have none")

    def output(self) -> FileTarget:
        """Return the folder of the chunks' ledgers, which is complete when every file has an outcome."""
        run = run_in(self.run_folder)
        return FileTarget(run.ledgers, run.has_all_ledgers)

    def run(self) -> None:
        """Submit the chunks, and wait until all are done."""
        run = self.opened()
        executor = registry().executor(run.workfile.settings, self.workers)
        assert executor is not None, "the run has no executor"
        with self.graceful():
            Coordinator(run, executor, Progress(self).files).run()
