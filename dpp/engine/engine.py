"""Many files through one pipeline: threads, bounded queues, and outcomes into a ledger.

    files -> download threads -> queue -> pre-processing thread -> queue -> processing threads -> ledger

Without pre-processors both queues are one.

A full queue stops the stage before it, so what is in memory and on its way does not grow with the batch.
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
from dpp.models import FileData
from dpp.workspace.ledger import Ledger, Record

GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 0.015
QUICK_SECONDS = 0.002
POLL_SECONDS = 0.1

Work = Callable[[Job], None]


class _Threads:
    """Threads of one name that do the same, started as they are needed.

    Args:
        name: What they are called.
        limit: How many there may be.
        work_off: What each does until there is nothing left to do.
    """

    def __init__(self, name: str, limit: int, work_off: Callable[[], None]) -> None:
        self._name = name
        self._limit = limit
        self._work_off = work_off
        self._alive: set[threading.Thread] = set()
        self._changed = threading.Condition()
        self.started = 0

    def grow(self, count: int) -> None:
        """Start more threads, up to the limit; one that an interrupt or the system keeps from starting is not waited for."""
        with self._changed:
            numbers = range(self.started + 1, min(self.started + count, self._limit) + 1)
            more = [threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True) for number in numbers]
            self.started += len(more)
            self._alive.update(more)
        try:
            for thread in more:
                thread.start()
        finally:
            with self._changed:
                self._alive -= {thread for thread in more if thread.ident is None}

    def wait(self, timeout: float) -> bool:
        """Wait for all threads to end; return whether they did.

        Not with ``join``: Python 3.11 takes a thread for ended once a signal has interrupted waiting for it.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._alive, timeout)

    def wait_until(self, over: Callable[[], bool]) -> None:
        """Wait for all threads to end, or for something else that makes waiting pointless."""
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
    """A stage behind a bounded inbox.

    A job waits for a thread of the stage; while the inbox is full, so does who hands it over. Where the last job was
    quick, nobody waits and the limit allows, who hands it over does it right away: switching threads costs more than
    a small file does.

    Args:
        name: What its threads are called.
        limit: Jobs at once.
        inbox_size: Jobs that may wait before it.
        work: What is done with a job.
        inline: Whether jobs may be done right away.
    """

    def __init__(self, name: str, limit: int, inbox_size: int, work: Work, *, inline: bool) -> None:
        self._inbox: queue.Queue[Job | None] = queue.Queue(inbox_size)
        self._slots = threading.Semaphore(limit)
        self._threads = _Threads(name, limit, self._work_off)
        self._work = work
        self._patience = QUICK_SECONDS if inline else 0.0
        self._last_took = math.inf

    def put(self, job: Job) -> None:
        """Do a job, or hand it over."""
        if self._last_took < self._patience and self._inbox.empty() and self._slots.acquire(blocking=False):
            try:
                self._do(job)
            finally:
                self._slots.release()
        else:
            self._threads.grow(1)
            self._inbox.put(job)

    def open_up(self) -> None:
        """Let nobody wait for room any more, so that a thread that hangs keeps no other from ending."""
        with self._inbox.mutex:
            self._inbox.maxsize = sys.maxsize
            self._inbox.not_full.notify_all()

    def finish(self, over: Callable[[], bool]) -> None:
        """Let the threads work off the inbox, and wait for them to end, or until waiting is over."""
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
    """The first stage: threads that take files from an iterator.

    It begins with one thread, and starts all of them once that one waits most of the time for something else than a
    processor: where the network is slow many downloads wait at once, and where it is fast they do not fight for
    Python's lock. Eight threads on loopback took a quarter more processor time than one.

    Whether it waits is told by a cumulative sum (CUSUM, Page 1954) of the time that it waits beyond half of all time: on
    loopback it waits a tenth, and the sum stayed below 14 ms with eight processes on two cores. A thread that only waits gets
    others after 40 ms.

    Args:
        limit: Downloads at once.
        files: The files.
        work: What is done with a job.
    """

    def __init__(self, limit: int, files: Iterator[FileData], work: Work) -> None:
        self._threads = _Threads("download", limit, self._work_off)
        self._files = files
        self._turn = threading.Lock()
        self._first: int | None = None
        self._count = 0
        self._work = work
        self._limit = limit

    def run(self, over: Callable[[], bool]) -> None:
        """Take all files, with as many threads as it needs, or until waiting is over."""
        self._threads.grow(1)
        since, busy, excess = time.monotonic(), 0.0, 0.0
        while self._threads.started < self._limit and not over() and not self._threads.wait(LOOK_SECONDS):
            now, spent = time.monotonic(), _busy_seconds(self._first)
            passed, worked = now - since, max(0.0, spent - busy)  # nothing is told of a thread that has ended
            excess = max(0.0, excess + passed / 2 - worked)
            if excess > PATIENCE_SECONDS:
                self._threads.grow(self._limit)
            since, busy = now, spent
        self._threads.wait_until(over)

    def finish(self, over: Callable[[], bool]) -> None:
        """Wait for the threads to end, or until waiting is over."""
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
    """Return how long a thread has run or waited for a processor (proc(5), schedstat); 0 where the system does not tell."""
    try:
        ran, queued, _ = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0
    return (int(ran) + int(queued)) / 1e9


class _Fault:
    """The first error that is no single file's own, which stops the engine."""

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
        ledger: Takes the outcomes.
        board: Where a process that supervises this one reads which stage each file is in.
    """

    def __init__(self, pipeline: Pipeline, ledger: Ledger, board: Board | None = None) -> None:
        settings = pipeline.settings
        self._pipeline = pipeline
        self._ledger = ledger
        self._board = board
        self._fault = _Fault()
        self._preparing = _StageThreads("pre-process", 1, settings.download_queue_size, self._guarded(self._pre_process), inline=False)
        room = settings.pre_processing_queue_size + (0 if pipeline.steps.pre_processors else settings.download_queue_size)
        self._processing = _StageThreads("process", settings.processing_limit, room, self._guarded(self._process), inline=True)

    def run(self, files: Iterable[FileData]) -> None:
        """Work until every file has its outcome.

        Raises:
            EnvironmentStop: The surroundings stopped the run; files that have no outcome yet are left.
            KeyboardInterrupt: The user did; files that were on their way got some seconds to end.
        """
        intake = _Intake(self._pipeline.settings.download_threads, self._until_stopped(files), self._guarded(self._download))
        with self._fault:
            for work in (intake.run, self._preparing.finish, self._processing.finish):
                work(self._is_stopped)
        if self._fault.error is not None:
            self._stop(intake)
            raise self._fault.error

    def _is_stopped(self) -> bool:
        """Whether waiting is over; asked several times a second by the thread that waits."""
        if self._board:
            self._board.beats()
        return self._fault.stop.is_set()

    def _stop(self, intake: _Intake) -> None:
        """Let what is on its way end, for some seconds."""
        deadline = time.monotonic() + GRACE_SECONDS
        self._pipeline.stop()
        for stage in (self._preparing, self._processing):
            stage.open_up()
        for part in (intake, self._preparing, self._processing):
            part.finish(lambda: time.monotonic() > deadline)

    def _until_stopped(self, files: Iterable[FileData]) -> Iterator[FileData]:
        with self._fault:
            for file in files:
                if self._fault.stop.is_set():
                    return
                yield file

    def _guarded(self, work: Work) -> Work:
        """Return work that is left undone once the engine stops, and that stops it with what it raises."""

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
        if self._board and self._board.size > 1 and job.failure and job.failure.error_class == MemoryError.__name__:
            self._board.mark_suspect(job.number)
            raise MemoryError(job.failure.message)  # not surely of its own making: who supervises has it run alone
        if self._pipeline.steps.post_processors:
            self._runs(job, POST_PROCESS)
        self._record(job, self._pipeline.report(job))

    def _record(self, job: Job, record: Record) -> None:
        self._ledger.append(record)
        if self._board:
            self._board.ended(job.number, ok=record.outcome.ok)

    def _runs(self, job: Job, stage: str) -> None:
        if self._board:
            self._board.runs(job.number, stage)

    def _waits(self, job: Job, stage: str) -> None:
        if self._board:
            self._board.waits(job.number, stage)
