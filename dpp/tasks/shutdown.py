"""Graceful shutdown of a run: after SIGINT, SIGTERM or SIGHUP, files in progress finish and the summary is written."""

# Luigi does not handle interrupts, does not wait for its children, and has no exit code for the reason why tasks failed. So
# the process that started the run does all of this.

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, cast

import luigi.worker

from dpp.batch.run import Run
from dpp.engine.child import end_with_parent, join_children
from dpp.engine.confine import end_groups
from dpp.engine.engine import GRACE_SECONDS
from dpp.errors import INTERRUPTED_TEXT, SIGNAL_EXIT, DppError, EnvironmentStop
from dpp.monitor.viewer import Viewer
from dpp.report.summary import Summary
from dpp.signals import hold_signals, postpone, release_signals, resume_signals
from dpp.streams import lost_output
from dpp.workspace.locks import keep_in_fork
from dpp.workspace.machine import stop_for, stop_for_refusal

log = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LUIGIS_LOCK = luigi.worker.fork_lock
REPORT_SECONDS = 5.0


class Ending:
    """Handle the signals that end a run, in the process that started it and in its children.

    The first signal raises KeyboardInterrupt in the process that started the run and in a child that works on a chunk; other
    children exit at once. A second SIGINT ends every process at once.

    Args:
        run: The run.
        viewer: The viewer that shows the run.
    """

    def __init__(self, run: Run, viewer: Viewer | None = None) -> None:
        self._run = run
        self._viewer = viewer
        self._owner = os.getpid()
        self._signal = 0
        self._graceful = False
        # nohup(1) lets its program ignore the hang-up of the terminal.
        numbers = [number for number in ENDING_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if postpone(number):
            return
        again, self._signal = bool(self._signal), self._signal or number
        nothing_to_finish = not self.is_owner and not self._graceful
        if nothing_to_finish or (again and number == signal.SIGINT):
            end_groups()
            os._exit(SIGNAL_EXIT + number)
        if not again:
            raise KeyboardInterrupt

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Let a chunk finish its files in progress after a signal, then end a child without a traceback."""
        # A child must not keep the batch locked after the process that started the run was killed.
        if not self.is_owner:
            end_with_parent(signal.SIGTERM, self._owner)
        try:
            # From here on the handler raises KeyboardInterrupt in a child, too, so this must be inside the block.
            self._graceful = True
            yield
        except KeyboardInterrupt:
            if self.is_owner:
                raise
            logging.shutdown()
            os._exit(SIGNAL_EXIT + (self._signal or signal.SIGINT))
        finally:
            self._graceful = False

    @property
    def is_owner(self) -> bool:
        """Whether this process started the run."""
        return os.getpid() == self._owner

    def conclude(self) -> tuple[Summary, int]:
        """Wait for the children to end, then return the summary and the exit code."""
        join_children(GRACE_SECONDS + REPORT_SECONDS)
        summary, code = self._run.conclude(interrupted=bool(self._signal))
        if self._viewer is not None:
            self._viewer.stop()
        return summary, SIGNAL_EXIT + self._signal if self._signal else code

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def at_exit(self) -> None:
        """Write the summary when this process exits, unless RunBatch has done so, and exit with dpp's exit code."""
        # An interrupt may end Luigi before it runs RunBatch.
        atexit.register(self._conclude_at_exit)
        sys.excepthook = self._excepthook

    def _excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            log.warning(INTERRUPTED_TEXT)
        else:
            sys.__excepthook__(kind, error, trace)

    def _conclude_at_exit(self) -> None:
        if not self.is_owner or self._viewer is None:
            return
        code = 0
        try:
            if self._run.summary() is None:
                summary, code = self.conclude()
                self._viewer.end(summary)
        except (DppError, OSError) as error:
            stop = error if isinstance(error, DppError) else stop_for(error)
            log.error("%s", stop)
            code = stop.exit_code
        if reason := lost_output():
            log.error("cannot write to standard output: %s", reason)
            code = code or EnvironmentStop.exit_code
        if code:
            logging.shutdown()
            os._exit(code)


def stop_run(run: Run, error: BaseException) -> EnvironmentStop | None:
    """Stop a run that Luigi has ended with an error of the environment, and return the reason; None for other errors."""
    stop = stop_for_refusal(error)
    if stop is not None:
        run.stop(stop)
    return stop


class _ForkLock:
    """Luigi's lock around its forks, which also holds signals back, and lets the child keep the lock of the batch."""

    # A signal that interrupted a fork could be lost in a fork hook, or leave a child that its parent does not know.
    is_forking = False

    def __enter__(self) -> None:
        # In this order: an exception after the lock was taken would leave it locked for Luigi's thread, which takes it, too.
        hold_signals()
        LUIGIS_LOCK.acquire()
        _ForkLock.is_forking = True
        keep_in_fork(keep=True)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        keep_in_fork(keep=False)
        _ForkLock.is_forking = False
        LUIGIS_LOCK.release()
        release_signals()
        # Luigi forks inside of this lock, and would end with a traceback if the system has no more processes.
        if error is not None and (stop := stop_for_refusal(error)):
            raise stop from error


def _after_luigis_fork() -> None:
    if _ForkLock.is_forking:
        _ForkLock.is_forking = False
        # The child handles signals at once: it has no file in progress, so its handler ends it.
        resume_signals()


os.register_at_fork(after_in_child=_after_luigis_fork)
luigi.worker.fork_lock = cast("Any", _ForkLock())
