"""Run many files through one pipeline, with threads and bounded queues, and record their outcomes in a ledger.

    files -> download threads -> queue -> pre-processing thread -> queue -> processing threads -> ledger

Without pre-processors there is one queue. A full queue blocks the stage before it, so the number of files in memory does not
grow with the batch.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dpp.engine.activity import Board
from dpp.engine.pipeline import Job, Pipeline
from dpp.engine.snapshot import POST_PROCESS
from dpp.engine.wear import UsedUp, Wear
from dpp.models import FileData
from dpp.workspace.ledger import Ledger, Record
from dpp.workspace.machine import is_thread_refusal

GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 0.015
QUICK_SECONDS = 0.002
POLL_SECONDS = 0.1

Work = Callable[[Job], None]


class _Threads:
    """A group of threads that run the same function, started as needed.

    Args:
        name: Prefix of the threads' names.
        limit: Maximum number of threads.
        work_off: Called once in each thread; returns when no work is left.
    """

    def __init__(self, name: str, limit: int, work_off: Callable[[], None]) -> None:
        self._name = name
        self._limit = limit
        self._work_off = work_off
        self._alive: set[threading.Thread] = set()
        self._changed = threading.Condition()
        self.started = 0

    def grow(self, count: int) -> None:
        """Start more threads, up to the limit; fewer, but at least one in all, if the system refuses more."""
        with self._changed:
            numbers = range(self.started + 1, min(self.started + count, self._limit) + 1)
            more = [threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True) for number in numbers]
            self.started += len(more)
            self._alive.update(more)
        try:
            for thread in more:
                thread.start()
        except RuntimeError as error:
            # A single one does all the work, too.
            if not is_thread_refusal(error) or (self.started == len(more) and more[0].ident is None):
                raise
        finally:
            # Threads that an interrupt or the system kept from starting would never remove themselves.
            with self._changed:
                self._alive -= {thread for thread in more if thread.ident is None}

    def wait(self, timeout: float) -> bool:
        """Wait up to this many seconds for all threads to end; return whether they did."""
        # join() does not work here: in Python 3.11, a thread counts as ended once a signal has interrupted join().
        with self._changed:
            return self._changed.wait_for(lambda: not self._alive, timeout)

    def wait_until(self, over: Callable[[], bool]) -> None:
        """Wait until all threads have ended or ``over`` returns true."""
        while not over() and not self.wait(POLL_SECONDS):
            pass

    def _run(self) -> None:
        try:
            self._work_off()
        finally:
            with self._changed:
                self._alive.discard(threading.current_thread())
                self._changed.notify_all()


class _StageThreads:
    """The threads of one stage, behind a bounded queue.

    Args:
        name: Prefix of the threads' names.
        limit: Maximum number of jobs at once.
        inbox_size: Maximum number of waiting jobs; :meth:`put` blocks while the queue is full.
        work: Called with each job.
        inline: Whether :meth:`put` may run quick jobs in the calling thread.
    """

    def __init__(self, name: str, limit: int, inbox_size: int, work: Work, *, inline: bool) -> None:
        self._inbox: queue.Queue[Job | None] = queue.Queue(inbox_size)
        self._slots = threading.Semaphore(limit)
        self._threads = _Threads(name, limit, self._work_off)
        self._work = work
        self._patience = QUICK_SECONDS if inline else 0.0
        self._last_took = math.inf

    def put(self, job: Job) -> None:
        """Queue a job, or run it in this thread."""
        # A switch of threads costs more than a small file, so a job runs here if the last one was quick and none waits.
        if self._last_took < self._patience and self._inbox.empty() and self._slots.acquire(blocking=False):
            try:
                self._do(job)
            finally:
                self._slots.release()
        else:
            self._threads.grow(1)
            self._inbox.put(job)

    def open_up(self) -> None:
        """Remove the limit of the queue, and wake the threads that wait for room in it."""
        # Otherwise a thread that hangs in this stage would keep the threads of the stage before it from ending.
        with self._inbox.mutex:
            self._inbox.maxsize = sys.maxsize
            self._inbox.not_full.notify_all()

    def finish(self, over: Callable[[], bool]) -> None:
        """Let the threads empty the queue, and wait until they have ended or ``over`` returns true."""
        self.open_up()
        for _ in range(self._threads.started):
            self._inbox.put(None)
        self._threads.wait_until(over)

    def _work_off(self) -> None:
        while (job := self._inbox.get()) is not None:
            with self._slots:
                self._do(job)

    def _do(self, job: Job) -> None:
        began = time.monotonic()
        self._work(job)
        self._last_took = time.monotonic() - began


class _Intake:
    """The first stage: threads that take files from an iterator, at first one, and all of them once that one mostly waits.

    Args:
        limit: Maximum number of downloads at once.
        files: The files.
        work: Called with each job.
    """

    # On a slow network, many downloads can wait at once. On a fast one, threads only compete for the GIL: eight threads
    # on loopback took a quarter more processor time than one.

    def __init__(self, limit: int, files: Iterator[FileData], work: Work) -> None:
        self._threads = _Threads("download", limit, self._work_off)
        self._files = files
        self._turn = threading.Lock()
        self._first: int | None = None
        self._count = 0
        self._work = work
        self._limit = limit

    def run(self, over: Callable[[], bool]) -> None:
        """Take all files, with as many threads as needed, until none is left or ``over`` returns true."""
        self._threads.grow(1)
        # A cumulative sum (CUSUM, Page 1954) of the waiting time beyond half of the passed time detects that the thread waits.
        # On loopback the thread waits a tenth of the time, and the sum stayed below 14 ms with eight processes on two cores.
        # If the thread only waits, the others start after 40 ms.
        since, busy, excess = time.monotonic(), 0.0, 0.0
        while self._threads.started < self._limit and not over() and not self._threads.wait(LOOK_SECONDS):
            now, spent = time.monotonic(), _busy_seconds(self._first)
            # For a thread that has ended, spent is 0 and the difference negative.
            passed, worked = now - since, max(0.0, spent - busy)
            excess = max(0.0, excess + passed / 2 - worked)
            if excess > PATIENCE_SECONDS:
                self._threads.grow(self._limit)
            since, busy = now, spent
        self._threads.wait_until(over)

    def finish(self, over: Callable[[], bool]) -> None:
        """Wait until the threads have ended or ``over`` returns true."""
        self._threads.wait_until(over)

    def _work_off(self) -> None:
        self._first = self._first or threading.get_native_id()
        while (job := self._next()) is not None:
            self._work(job)

    def _next(self) -> Job | None:
        with self._turn:
            if (file := next(self._files, None)) is None:
                return None
            self._count += 1
            return Job(file, number=self._count - 1)


def _busy_seconds(thread: int | None) -> float:
    """Return the seconds that a thread has run or waited for a processor (proc(5), schedstat); 0 if the system has no such file."""
    try:
        ran, queued, _ = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0
    return (int(ran) + int(queued)) / 1e9


class _Fault:
    """Keep the first error that does not belong to a single file; it stops the engine."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.error = self.error or error
            self.stop.set()
        return True


class Engine:
    """Run files through a pipeline and record their outcomes.

    Args:
        pipeline: The stages.
        ledger: The ledger for the outcomes.
        wear: Compares this process with its state before its first file.
        board: Records the stage of each file, for the supervisor of this process.

    Attributes:
        is_worn: Whether the files have used up what other files need; then some may have no outcome.
    """

    def __init__(self, pipeline: Pipeline, ledger: Ledger, wear: Wear, board: Board | None = None) -> None:
        settings = pipeline.settings
        self._pipeline = pipeline
        self._ledger = ledger
        self._board = board
        self._wear = wear
        self.is_worn = False
        self._fault = _Fault()
        self._preparing = _StageThreads("pre-process", 1, settings.download_queue_size, self._guarded(self._pre_process), inline=False)
        room = settings.pre_processing_queue_size + (0 if pipeline.steps.pre_processors else settings.download_queue_size)
        self._processing = _StageThreads("process", settings.processing_limit, room, self._guarded(self._process), inline=True)

    def run(self, files: Iterable[FileData]) -> None:
        """Run until every file has an outcome, or, with a board, until the files have worn this process; see :class:`dpp.engine.wear.Wear`.

        Raises:
            EnvironmentStop: The environment stopped the run; some files have no outcome.
            KeyboardInterrupt: The user interrupted the run; files in flight got up to 10 seconds to end.
        """
        intake = _Intake(self._pipeline.settings.download_threads, self._until_stopped(files), self._guarded(self._download))
        with self._fault:
            for work in (intake.run, self._preparing.finish, self._processing.finish):
                work(self._is_stopped)
        if self._fault.error is not None:
            self._stop(intake)
            raise self._fault.error

    def _is_stopped(self) -> bool:
        """Record a sign of life on the board; return whether the engine stops. Called several times a second."""
        if self._board:
            self._board.beats()
        return self._fault.stop.is_set()

    def _stop(self, intake: _Intake) -> None:
        """Wait up to 10 seconds for the files in flight."""
        deadline = time.monotonic() + GRACE_SECONDS
        self._pipeline.stop()
        for stage in (self._preparing, self._processing):
            stage.open_up()
        for part in (intake, self._preparing, self._processing):
            part.finish(lambda: time.monotonic() > deadline)

    def _until_stopped(self, files: Iterable[FileData]) -> Iterator[FileData]:
        with self._fault:
            for file in files:
                if self._fault.stop.is_set() or self.is_worn:
                    return
                yield file

    def _guarded(self, work: Work) -> Work:
        """Wrap work: skip it once the engine stops, and stop the engine if it raises."""

        def guarded(job: Job) -> None:
            with self._fault:
                if not self._fault.stop.is_set():
                    work(job)

        return guarded

    def _download(self, job: Job) -> None:
        self._runs(job, "download")
        known = self._pipeline.recalled(job)
        if known is not None:
            self._record(job, known)
            return
        self._pipeline.download(job)
        if self._pipeline.steps.pre_processors:
            self._waits(job, "pre-process")
            self._preparing.put(job)
        else:
            self._pre_process(job)

    def _pre_process(self, job: Job) -> None:
        if self._pipeline.steps.pre_processors:
            self._runs(job, "pre-process")
        self._pipeline.pre_process(job)
        self._waits(job, "process")
        self._processing.put(job)

    def _process(self, job: Job) -> None:
        self._runs(job, "process")
        self._pipeline.process(job)
        # Another file in this process may have used up what this one needs, so the supervisor runs it again, alone.
        if self._board and self._board.size > 1 and job.failure and (job.used_up or self._wear.is_worn()):
            self._board.mark_suspect(job.number)
            raise UsedUp(job.failure.message)
        if self._pipeline.steps.post_processors:
            self._runs(job, POST_PROCESS)
        self._record(job, self._pipeline.report(job))

    def _record(self, job: Job, record: Record) -> None:
        self._ledger.append(record)
        self._wear.restore_folder()
        if self._board:
            self._board.ended(job.number, ok=record.outcome.ok)
            self.is_worn = self.is_worn or self._wear.is_worn()

    def _runs(self, job: Job, stage: str) -> None:
        if self._board:
            self._board.runs(job.number, stage)

    def _waits(self, job: Job, stage: str) -> None:
        if self._board:
            self._board.waits(job.number, stage)
