"""Run the files of chunks through the engine, one chunk after another, in a child process that is supervised.

A plugin may hang, exit, crash its process, or use up its memory, descriptors or threads. Only its own file fails: the
supervisor finds the files that were in a stage (:class:`dpp.engine.activity.Board`), runs each of them alone, and continues
with the others. A file that crashes its process alone as well fails as ``crashed``; one that a stage works on for longer than
``stage_timeout`` fails as ``timeout``. A file that has an outcome in the ledger is not run again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple, cast

from dpp.engine.activity import Board, Place, SnapshotWriter
from dpp.engine.child import Child, ChildExit, run_in_child
from dpp.engine.engine import Engine
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import POST_PROCESS
from dpp.engine.wear import Wear
from dpp.errors import RESUMABLE_TEXT, EnvironmentStop
from dpp.manifest.catalog import Chunk
from dpp.models import Failure, FileData, Stage, key_of
from dpp.redact import redact_text, secrets_of_file
from dpp.workspace.ledger import Ledger, Record

log = logging.getLogger(__name__)

MAX_UNATTRIBUTED_CRASHES = 3
MAX_CRASHES = 2
MAX_IDLE_LOOKS = 80

ReadFiles = Callable[[Chunk, Iterable[int]], Iterable[FileData]]


class _Suspect(NamedTuple):
    """A file that may be the reason why a child crashed: its number in the chunk, and the stage that worked on it."""

    number: int
    file: FileData
    place: Place


class _ChildReport(NamedTuple):
    """What became of a child.

    Attributes:
        crash: How it ended, if it did not finish; None if it did.
        suspects: The files that may be the reason for a crash.
        is_sure: Whether they are the reason: they took too long while other threads kept running.
        done: Number of files that have got their outcomes in it.
        left: Number of files that have not. After a child that finished, these are for another one: its files have used up what
            a process has.
    """

    crash: ChildExit | None
    suspects: list[_Suspect]
    is_sure: bool
    done: int
    left: int

    @property
    def is_complete(self) -> bool:
        """Whether no other child is needed."""
        return self.crash is None and not self.left


class _ChildMonitor:
    """Monitor a child, and decide whether to stop it.

    Args:
        board: Where the child records the stage of each file.
        limit: Maximum seconds per stage and file; 0 for no limit.
        tell: Called with the board at each look.

    Attributes:
        overdue: The files that exceeded the limit.
        is_sure: Whether these are why the child was stopped: other threads kept running meanwhile.
    """

    def __init__(self, board: Board, limit: float, tell: Callable[[Board], None]) -> None:
        self.overdue: dict[int, Place] = {}
        self.is_sure = False
        self._board = board
        self._limit = limit
        self._tell = tell
        self._idle_looks = 0

    def look(self) -> str:
        """Return why the child must be stopped; "" if it may continue."""
        self._tell(self._board)
        self.overdue = _overdue(self._board, self._limit)
        if self.overdue:
            self.is_sure = not self._board.is_stalled(self._limit)
            return _too_long(self._limit)
        return self._is_idle()

    def _is_idle(self) -> str:
        """Return why the child must be stopped if it has done nothing for a long time, between two files; "" otherwise."""
        # Where memory is short, threading.Thread.start() may wait forever for a thread that has died. Looks are counted, as a child
        # may be paused together with this process. Before the first file, a step may be loading.
        done, board = self._board.totals()[0], self._board
        is_idle = 0 < done < board.size and not board.running() and board.is_stalled(math.inf)
        self._idle_looks = self._idle_looks + 1 if is_idle else 0
        return "stopped working between two files" if self._idle_looks > MAX_IDLE_LOOKS else ""


class Work(NamedTuple):
    """A chunk, and where its outcomes go.

    Attributes:
        chunk: The chunk.
        ledger: Path of the ledger for the outcomes of its files.
        snapshot: Path of the snapshot for the live view; None for no snapshot.
        on_progress: Called several times a second with the number of files that have an outcome, and of those that failed.
            What it raises ends the work; the files in flight get up to 12 seconds to end.
    """

    chunk: Chunk
    ledger: Path
    snapshot: Path | None = None
    on_progress: Callable[[int, int], None] = lambda _done, _failed: None


class Supervisor:
    """Run the files of chunks in a child process, and start another child after a crash.

    Args:
        files: Returns the files with the given numbers in a chunk: from 0, in ascending order.
        largest: Maximum number of files in a chunk.
        make_pipeline: Makes the stages; called in each process that runs files.
        stage_timeout: Maximum seconds per stage and file; 0 for no limit.
        received: Returns the number of bytes of a file that are downloaded so far.
        on_crash: Called after a child has crashed or was stopped.
        guard: Held while a child is forked.
    """

    def __init__(
        self,
        files: ReadFiles,
        largest: int,
        make_pipeline: Callable[[], Pipeline],
        *,
        stage_timeout: float = 0.0,
        received: Callable[[FileData], int] = lambda _file: 0,
        on_crash: Callable[[], None] = lambda: None,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        self._files = files
        self._make_pipeline = make_pipeline
        self._limit = stage_timeout
        self._received = received
        self._on_crash = on_crash
        self._guard = guard
        self._board = Board(largest)
        self._engine = _EngineInChild(files, make_pipeline, self._board)
        self._child = Child(self._engine.run, self._engine.close, guard)

    def run(self, work: Work) -> None:
        """Run until every file of a chunk has an outcome.

        Raises:
            EnvironmentStop: The environment stopped the run, or the child keeps crashing outside of any file's stage.
            KeyboardInterrupt: The user interrupted the run.
        """
        unattributed = 0
        while not (report := self._run_remaining(work)).is_complete:
            if report.crash is None:
                continue
            unattributed = 0 if report.suspects or report.done else unattributed + 1
            if unattributed == MAX_UNATTRIBUTED_CRASHES:
                raise EnvironmentStop(
                    f"the child process crashed {unattributed} times in a row, outside of any file's stage; "
                    f"the last one {report.crash.reason}. {RESUMABLE_TEXT}"
                )
            names = ", ".join(suspect.file.id for suspect in report.suspects) or "none"
            log.warning("the child process %s; files in a stage at that time: %s", report.crash.reason, names)
            for suspect in report.suspects:
                self._resolve_suspect(work, suspect, report.crash, is_sure=report.is_sure)
        Ledger(work.ledger).finish()

    def close(self) -> None:
        """End the child; a fetcher that hangs when it is closed is stopped after the time limit of a stage."""
        if crash := self._child.close(_time_limit(self._limit)):
            log.warning("the child process %s, after its last file", crash.reason)

    def _run_remaining(self, work: Work) -> _ChildReport:
        """Run the files that have no outcome yet in a child."""
        recorded = _recorded(work.ledger)
        done, failed = len(recorded), sum(not ok for ok in recorded.values())
        numbers: Sequence[int] = range(work.chunk.size)
        if recorded:
            files = enumerate(self._files(work.chunk, numbers))
            numbers = [number for number, file in files if key_of(file) not in recorded]

        def tell(board: Board) -> None:
            more, more_failed = board.totals()
            work.on_progress(done + more, failed + more_failed)

        return self._run(work, numbers, tell)

    def _run(self, work: Work, numbers: Sequence[int], tell: Callable[[Board], None] = lambda _board: None) -> _ChildReport:
        """Run the files with these numbers in a child."""

        def pick(places: Iterable[int]) -> dict[int, FileData]:
            places = sorted(places)
            return dict(zip(places, self._files(work.chunk, [numbers[place] for place in places]), strict=True))

        writer = SnapshotWriter(work.snapshot, pick, self._received) if work.snapshot else None

        def show(board: Board) -> None:
            tell(board)
            if writer:
                writer.write(board)

        self._board.begin(len(numbers))
        monitor = _ChildMonitor(self._board, self._limit, show)
        crash = self._child.run((work.chunk, numbers, work.ledger), monitor.look)
        tell(self._board)
        suspects: list[_Suspect] = []
        if crash:
            self._on_crash()
            places, recorded = monitor.overdue or self._board.running(), _recorded(work.ledger)
            at_work = [_Suspect(numbers[index], file, places[index]) for index, file in pick(places).items()]
            crash = _redacted(crash, (suspect.file for suspect in at_work))
            suspects = [suspect for suspect in at_work if key_of(suspect.file) not in recorded]
        done = self._board.totals()[0]
        return _ChildReport(crash, suspects, monitor.is_sure, done, len(numbers) - done)

    def _resolve_suspect(self, work: Work, suspect: _Suspect, crash: ChildExit, *, is_sure: bool) -> None:
        """Record the failure of a file that ended a child; if another file may be to blame, run it alone first."""
        number, file, place = suspect
        if not is_sure:
            alone = self._run(work, [number])
            # In a process of its own: what it has left behind must not meet other files.
            self.close()
            if alone.crash is None or not alone.suspects:
                return
            crash, place = alone.crash, alone.suspects[0].place
        job = Job(file, _failure_of_exit(place.stage, crash), {place.stage: round(place.seconds, 6)})

        def end(write: Callable[[Pipeline, Job], Record]) -> None:
            with closing(self._make_pipeline()) as pipeline, closing(Ledger(work.ledger)) as ledger:
                ledger.append(write(pipeline, job))

        # A post-processor that crashed must not run again. Otherwise post-processors get the failure, in a child of its own.
        if place.stage == POST_PROCESS or run_in_child(lambda: end(Pipeline.report), _time_limit(self._limit), self._guard):
            end(Pipeline.record)


class _EngineInChild:
    """Run chunks through an engine; in the child, which keeps the stages, with their connections, from chunk to chunk.

    Args:
        files: Returns the files with the given numbers in a chunk.
        make_pipeline: Makes the stages.
        board: Where the stage of each file is recorded.
    """

    def __init__(self, files: ReadFiles, make_pipeline: Callable[[], Pipeline], board: Board) -> None:
        self._files = files
        self._make_pipeline = make_pipeline
        self._board = board
        self._pipeline: Pipeline | None = None
        self._wear: Wear | None = None

    def run(self, task: tuple[Chunk, Sequence[int], Path]) -> bool:
        """Run some files of a chunk; return whether this process may run more."""
        chunk, numbers, path = task
        self._pipeline = self._pipeline or self._make_pipeline()
        self._wear = self._wear or Wear()
        with closing(Ledger(path)) as ledger:
            engine = Engine(self._pipeline, ledger, self._wear, self._board)
            engine.run(self._files(chunk, numbers))
        return not engine.is_worn

    def close(self) -> None:
        """Close the stages."""
        if self._pipeline is not None:
            self._pipeline.close()


def _recorded(path: Path) -> dict[str, bool]:
    """Return the files that have an outcome in a ledger, by key, and whether they are ok."""
    with closing(Ledger(path)) as ledger:
        return {key: outcome.ok for key, outcome in ledger.recorded().items()}


def supervised(
    stage: str,
    file: FileData,
    work: Callable[[], None],
    limit: float,
    on_crash: Callable[[], None] = lambda: None,
    guard: AbstractContextManager[object] | None = None,
    show: Callable[[], None] = lambda: None,
) -> Failure | None:
    """Run one stage of one file in a child process; try it once more if the child crashes.

    Args:
        stage: The stage.
        file: The file.
        work: The function to call in the child.
        limit: Maximum seconds; 0 for no limit.
        on_crash: Called after a child has crashed or was stopped.
        guard: Held while a child is forked.
        show: Called several times a second meanwhile.

    Returns:
        The file's failure if the child crashed twice or was stopped; None if the work was done.
    """

    def look() -> str:
        show()
        return is_over()

    tries, is_over = 0, _time_limit(limit)
    while ended := run_in_child(work, look, guard):
        on_crash()
        ended = _redacted(ended, [file])
        tries += 1
        if ended.is_stopped or tries == MAX_CRASHES:
            return _failure_of_exit(stage, ended)
        log.warning("the child process for %s of %s %s; trying again", stage, file.id, ended.reason)
    return None


def _redacted(ended: ChildExit, files: Iterable[FileData]) -> ChildExit:
    """Return how a child ended, without the secrets of the files that were in a stage."""
    secrets = {secret for file in files for secret in secrets_of_file(file)}
    trace = ended.traceback and redact_text(ended.traceback, secrets)
    return ended._replace(reason=redact_text(ended.reason, secrets), traceback=trace)


def _failure_of_exit(stage: str, ended: ChildExit) -> Failure:
    at, reason, trace = cast("Stage", stage), ended.reason, ended.traceback
    if ended.is_stopped:
        return Failure(stage=at, error_class="timeout", message=reason, traceback=trace)
    return Failure(stage=at, error_class="crashed", message=f"the child process {reason}, also on the second attempt", traceback=trace)


def _time_limit(limit: float) -> Callable[[], str]:
    """Return a function that returns a message once this many seconds have passed, and "" before; always "" for 0 seconds."""
    began = time.monotonic()
    return lambda: _too_long(limit) if limit and time.monotonic() - began > limit else ""


def _too_long(limit: float) -> str:
    return f"took longer than --stage-timeout {limit:g} s and was stopped"


def _overdue(board: Board, limit: float) -> dict[int, Place]:
    return {number: place for number, place in board.running().items() if place.seconds > limit} if limit else {}
