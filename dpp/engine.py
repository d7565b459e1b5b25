"""Many files through one pipeline: threads, bounded queues, and outcomes into a ledger.

    files -> download threads -> queue -> pre-processing thread -> queue -> processing threads -> ledger

A full queue stops the stage before it, so what is in memory and on its way does not grow with the batch.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable

from dpp.ledger import Ledger
from dpp.models import FileData, Outcome
from dpp.pipeline import Job, Pipeline

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0

Work = Callable[[Job], bool]


class _Stage:
    """Threads that take jobs from an inbox, do one thing, and pass on what is not finished.

    Args:
        name: What its threads are called.
        threads: How many.
        inbox_size: Jobs that may wait before it.
        work: Returns whether the job goes on.
        after: The next stage.
    """

    def __init__(self, name: str, threads: int, inbox_size: int, work: Work, after: _Stage | None, fault: _Fault) -> None:
        self._inbox: queue.Queue[Job | None] = queue.Queue(inbox_size)
        self._work = work
        self._after = after
        self._fault = fault
        self._threads = self._alive = threads
        self._ended = threading.Condition()
        for number in range(1, threads + 1):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def put(self, job: Job) -> None:
        """Hand over a job; waits while the inbox is full."""
        self._inbox.put(job)

    def open_up(self) -> None:
        """Let nobody wait for room any more, so that a thread that hangs keeps no other from ending."""
        with self._inbox.mutex:
            self._inbox.maxsize = sys.maxsize
            self._inbox.not_full.notify_all()

    def finish(self, deadline: float | None = None) -> None:
        """Let the threads work off the inbox, and wait for them to end, until a deadline of the monotonic clock.

        Not with ``join``: Python 3.11 takes a thread for ended once a signal has interrupted waiting for it.
        """
        for _ in range(self._threads):
            self._inbox.put(None)
        with self._ended:
            self._ended.wait_for(lambda: not self._alive, _left(deadline))

    def _run(self) -> None:
        self._work_off()
        with self._ended:
            self._alive -= 1
            self._ended.notify_all()

    def _work_off(self) -> None:
        while (job := self._inbox.get()) is not None:
            with self._fault:
                if not self._fault.stop.is_set() and self._work(job) and self._after:
                    self._after.put(job)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


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
        on_outcome: Called after each outcome is recorded, from any thread.
    """

    def __init__(self, pipeline: Pipeline, ledger: Ledger, on_outcome: Callable[[Outcome], None] | None = None) -> None:
        self._pipeline = pipeline
        self._ledger = ledger
        self._on_outcome = on_outcome
        self._fault = _Fault()

    def run(self, files: Iterable[FileData]) -> None:
        """Work until every file has its outcome.

        Raises:
            EnvironmentStop: The surroundings stopped the run; files that have no outcome yet are left.
            KeyboardInterrupt: The user did; files that were on their way got some seconds to end.
        """
        stages = self._started()
        try:
            for file in files:
                if self._fault.stop.is_set():
                    break
                stages[0].put(Job(file))
            self._finish(stages, None)
        except BaseException:
            self._fault.stop.set()
            for stage in stages:
                stage.open_up()
            self._finish(stages, time.monotonic() + GRACE_SECONDS)
            raise
        if self._fault.error is not None:
            raise self._fault.error

    def _started(self) -> list[_Stage]:
        settings, fault = self._pipeline.settings, self._fault
        process = _Stage("process", settings.processing_limit, settings.pre_processing_queue_size, self._process, None, fault)
        prepare = _Stage("pre-process", 1, settings.download_queue_size, self._pre_process, process, fault)
        download = _Stage("download", settings.download_threads, settings.download_threads, self._download, prepare, fault)
        return [download, prepare, process]

    @staticmethod
    def _finish(stages: list[_Stage], deadline: float | None) -> None:
        for stage in stages:
            stage.finish(deadline)

    def _download(self, job: Job) -> bool:
        known = self._pipeline.recall(job)
        if known is not None:
            self._record(known)
            return False
        self._pipeline.download(job)
        return True

    def _pre_process(self, job: Job) -> bool:
        self._pipeline.pre_process(job)
        return True

    def _process(self, job: Job) -> bool:
        self._pipeline.process(job)
        self._record(self._pipeline.report(job))
        return True

    def _record(self, outcome: Outcome) -> None:
        self._ledger.append(outcome)
        if self._on_outcome:
            self._on_outcome(outcome)
