"""Run the chunks of a run, each in one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from dpp.batch.run import Run
from dpp.engine.supervisor import Supervisor, Work
from dpp.workspace.atomic import remove
from dpp.workspace.layout import Workspace

LOOK_SECONDS = 1.0

End = Literal["done", "already", "busy"]
OnProgress = Callable[[int, int, int], None]


def _ignore(_done: int, _failed: int, _total: int) -> None:
    return None


class _CoordinatorWatch:
    """Watch the process that submits the chunks of a run, which may be on another machine.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._workfile = run.workfile
        self._limit = run.workfile.settings.lost_after
        self._beat = 0
        self._seen = time.monotonic()

    def look(self) -> None:
        """Raise KeyboardInterrupt if the process has ended, gives no sign of life, or wants the chunks to end."""
        # The clocks of two machines may differ: what counts is whether the time changes.
        if (beat := self._workfile.last_beat()) != self._beat:
            self._beat, self._seen = beat, time.monotonic()
        if self._workfile.is_interrupted() or time.monotonic() - self._seen > self._limit:
            raise KeyboardInterrupt


class ChunkRunner:
    """Run chunks of a run one after another, in a child process that stays from chunk to chunk.

    The process that has this object runs no plugins, so it lives as long as nobody stops it, and the lock of its chunk with it.

    Args:
        run: The run.
        guard: Held while a process is forked.
        is_watched: Whether an executor runs the chunks: they end when the process that submits them has ended or says so.
    """

    def __init__(self, run: Run, guard: AbstractContextManager[object] | None = None, *, is_watched: bool = False) -> None:
        self._run = run
        self._coordinator = _CoordinatorWatch(run) if is_watched else None
        self._chunks = run.workfile.chunks()
        workspace = Workspace(run.root)
        self._supervisor = Supervisor(
            run.workfile.files,
            max(chunk.size for chunk in self._chunks),
            run.pipeline,
            stage_timeout=run.workfile.settings.stage_timeout,
            received=lambda file: workspace.download(file).received(),
            on_crash=run.workfile.note_crash,
            guard=guard,
        )

    def run(self, index: int, on_progress: OnProgress = _ignore) -> End:
        """Run the files of a chunk that have no outcome in this run yet.

        Args:
            index: Index of the chunk in the run, from 0.
            on_progress: Called several times a second with the number of files that have an outcome, of those that failed, and of
                all files of the chunk.

        Returns:
            "done"; "already" if the chunk was done before; "busy" if another process runs it.

        Raises:
            EnvironmentStop: The environment has stopped the run, here or in another process.
            KeyboardInterrupt: This process was interrupted; the files in flight got up to 12 seconds to end.
        """
        ledger = self._run.chunk_ledger(index)
        if ledger.exists():
            return "already"
        lock = self._run.workfile.chunk_lock(index)
        try:
            if not lock.try_hard():
                return "busy"
            # It may have been finished since.
            if ledger.exists():
                return "already"
            self._supervise(index, on_progress)
            return "done"
        finally:
            lock.release()

    def _supervise(self, index: int, on_progress: OnProgress) -> None:
        chunk, snapshot, due = self._chunks[index], self._run.chunk_snapshot(index), 0.0

        def look(done: int, failed: int) -> None:
            nonlocal due
            if (now := time.monotonic()) >= due:
                due = now + LOOK_SECONDS
                self._run.check_not_stopped()
                if self._coordinator:
                    self._coordinator.look()
            on_progress(done, failed, chunk.size)

        with self._run.stops_noted():
            try:
                self._supervisor.run(Work(chunk, self._run.chunk_ledger(index), snapshot, look))
            finally:
                remove(snapshot)

    def run_all(self, first: int, on_progress: OnProgress = _ignore) -> None:
        """Run a chunk, then each one that is not done and that no other process runs; see :meth:`run`."""
        self.run(first, on_progress)
        # Meanwhile, a process that has run another chunk may have been killed.
        while "done" in [self.run(index, on_progress) for index in range(len(self._chunks))]:
            pass

    def close(self) -> None:
        """End the child process."""
        self._supervisor.close()
