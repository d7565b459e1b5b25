"""Submit the chunks of a run to an executor, and again where they are lost.

The ledger of a chunk decides whether it is done. What the executor returns is only a hint: it may be lost, late or doubled.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dpp.base import BaseExecutor
from dpp.batch.chunks import End
from dpp.batch.run import Run
from dpp.errors import RESUMABLE_TEXT, DppError, EnvironmentStop, InputError
from dpp.executors.work import close_runners, work
from dpp.workspace.ledger import OPEN_SUFFIX

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
STOP_SECONDS = 20.0
ROUNDS_SUBMITTED = 2
MAX_LOSSES = 5

OnProgress = Callable[[int, int, int], None]


@dataclass
class _Submission:
    """A chunk that was submitted.

    Attributes:
        index: Index of the chunk in the run.
        future: What the executor returned; None if that has ended and the chunk is not done.
        seen: When the last sign of life was seen, on the monotonic clock.
        sign: The last sign of life, see :meth:`dpp.batch.workfile.WorkFile.last_beat_for`.
        recorded: Bytes in the ledger when the chunk was submitted.
        is_begun: Whether there was a sign of life since: a worker has it.
        losses: How often the chunk was lost in a row, without an outcome of any file.
        hosts: Where it was lost.
    """

    index: int
    future: Future[End] | None
    seen: float
    sign: int
    recorded: int
    is_begun: bool = False
    losses: int = 0
    hosts: list[str] = field(default_factory=list)


class Coordinator:
    """Submit the chunks of a run to an executor until each of them is done.

    Args:
        run: The run.
        executor: The executor.
        on_progress: Called several times a second with the number of files in chunks that are done, 0, and the number of all files.
    """

    def __init__(self, run: Run, executor: BaseExecutor, on_progress: OnProgress) -> None:
        self._run = run
        self._executor = executor
        self._on_progress = on_progress
        self._sizes = [chunk.size for chunk in run.workfile.chunks()]
        self._total = sum(self._sizes)
        self._files_done = 0
        self._limit = run.workfile.settings.lost_after
        self._most = ROUNDS_SUBMITTED * max(1, executor.workers)
        self._submitted: dict[int, _Submission] = {}
        self._last_sign = time.monotonic()

    def run(self) -> None:
        """Run all chunks that are not done.

        Raises:
            InputError: A worker does not see the workspace, or has other versions of dpp or of a plugin.
            EnvironmentStop: The environment stops the run, or a chunk was lost too often.
            KeyboardInterrupt: This process was interrupted; the files in flight got some seconds to end.
        """
        with self._run.stops_noted():
            self._run.workfile.beat()
            # Luigi may run the task again after a stop, here or in another process that shares the run.
            self._run.workfile.resume()
            try:
                with self._executor.open() as pool:
                    self._run_with(pool)
            except InputError as error:
                self._run.stop(error)
                raise
            finally:
                close_runners()

    def _run_with(self, pool: Executor) -> None:
        self._last_sign = time.monotonic()
        waiting = deque(index for index in range(len(self._sizes)) if not self._is_done(index))
        self._files_done = self._total - sum(self._sizes[index] for index in waiting)
        try:
            while waiting or self._submitted:
                while waiting and len(self._submitted) < self._most:
                    self._submit(pool, waiting.popleft())
                self._wait()
                self._run.workfile.beat()
                self._run.check_not_stopped()
                for submission in [*self._submitted.values()]:
                    self._look(pool, submission)
                self._on_progress(self._files_done, 0, self._total)
        except BaseException:
            self._stop()
            raise

    def _submit(self, pool: Executor, index: int) -> None:
        # A worker that had the chunk before may have left a sign of life.
        sign, recorded = self._run.workfile.last_beat_for(index), self._recorded(index)
        future = pool.submit(work, str(self._run.folder), index, self._run.info.mark)
        self._submitted[index] = _Submission(index, future, time.monotonic(), sign, recorded)

    def _wait(self) -> None:
        futures = [submission.future for submission in self._submitted.values() if submission.future]
        if futures:
            wait(futures, LOOK_SECONDS, FIRST_COMPLETED)
        else:
            time.sleep(LOOK_SECONDS)

    def _look(self, pool: Executor, submission: _Submission) -> None:
        """Forget a chunk that is done; submit one again that is lost."""
        self._see_life(submission)
        reason = self._end_of(submission) or self._silence(submission)
        if self._is_done(submission.index):
            self._last_sign = time.monotonic()
            self._files_done += self._sizes[submission.index]
            del self._submitted[submission.index]
        elif reason:
            self._submit_again(pool, submission, reason)

    def _see_life(self, submission: _Submission) -> None:
        if (sign := self._run.workfile.last_beat_for(submission.index)) != submission.sign:
            submission.sign, submission.is_begun = sign, True
            submission.seen = self._last_sign = time.monotonic()

    def _end_of(self, submission: _Submission) -> str:
        """Return why a future has ended without its chunk being run, if it has; "" otherwise."""
        if submission.future is None or not submission.future.done():
            return ""
        future, submission.future = submission.future, None
        if future.cancelled():
            return "the executor has cancelled it"
        error = future.exception()
        if isinstance(error, DppError):
            raise error
        # After any other end, the chunk is done, or another process runs it.
        return f"{type(error).__name__}: {error}" if error else ""

    def _silence(self, submission: _Submission) -> str:
        """Return why a chunk counts as lost, if it gives no sign of life; "" otherwise."""
        # A chunk that was not begun waits for a worker, while others work.
        seen = submission.seen if submission.is_begun else max(submission.seen, self._last_sign)
        if time.monotonic() - seen <= self._limit or self._is_held(submission.index):
            return ""
        return f"it gave no sign of life for {self._limit:g} s"

    def _submit_again(self, pool: Executor, lost: _Submission, reason: str) -> None:
        if lost.future:
            lost.future.cancel()
        losses = 1 if self._recorded(lost.index) > lost.recorded else lost.losses + 1
        host = self._run.workfile.chunk_holder(lost.index) or "no worker has run it"
        hosts = [*lost.hosts, *([host] if host not in lost.hosts else [])]
        if losses == MAX_LOSSES:
            raise EnvironmentStop(
                f"chunk {lost.index} was lost {losses} times in a row ({'; '.join(hosts)}); the last time, {reason}. {RESUMABLE_TEXT}"
            )
        log.warning("chunk %d was lost (%s): %s; it is submitted again", lost.index, host, reason)
        self._submit(pool, lost.index)
        self._submitted[lost.index].losses, self._submitted[lost.index].hosts = losses, hosts

    def _stop(self) -> None:
        """Let the workers end their chunks, and wait for them."""
        self._run.workfile.interrupt()
        for submission in self._submitted.values():
            if submission.future:
                submission.future.cancel()
        # A future says nothing here: one without a worker stays pending, and so does one whose worker was killed.
        until = time.monotonic() + STOP_SECONDS
        while any(map(self._is_held, self._submitted)) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _is_done(self, index: int) -> bool:
        return self._run.chunk_ledger(index).exists()

    def _is_held(self, index: int) -> bool:
        """Whether a process runs a chunk."""
        return self._run.workfile.chunk_lock(index).is_held()

    def _recorded(self, index: int) -> int:
        path = self._run.chunk_ledger(index)
        with suppress(FileNotFoundError):
            return Path(f"{path}{OPEN_SUFFIX}").stat().st_size
        return 0
