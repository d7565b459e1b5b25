"""How a run ends early: SIGINT and SIGTERM let what is on its way finish, and the summary is written all the same.

Luigi leaves an interrupt to Python and its children to their fate, and its exit codes know nothing of why tasks
failed. So the process that began a run watches over its end.
"""

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
from luigi.worker import fork_lock

from dpp.batch.run import Run
from dpp.engine.child import end_with_parent, join_children
from dpp.engine.engine import GRACE_SECONDS
from dpp.errors import INTERRUPTED_TEXT, DppError
from dpp.monitor.viewer import Viewer
from dpp.report.summary import Summary
from dpp.signals import hold_signals, postpone, release_signals, resume_signals

log = logging.getLogger(__name__)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNAL_EXIT = 128


class Ending:
    """Watch over the end of a run, in the process that began it and in its children.

    The first signal becomes a KeyboardInterrupt: in the process that began the run, and in a child that works on a
    chunk; other children have nothing to finish and go at once. A second SIGINT ends everything at once.

    Args:
        run: The run.
        viewer: What shows it.
    """

    def __init__(self, run: Run, viewer: Viewer | None = None) -> None:
        self._run = run
        self._viewer = viewer
        self._owner = os.getpid()
        self._signal = 0
        self._graceful = False
        self._previous = {number: signal.signal(number, self._on_signal) for number in ENDING_SIGNALS}
        luigi.worker.fork_lock = cast("Any", _ForkLock())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if postpone(number):
            return
        again, self._signal = bool(self._signal), self._signal or number
        nothing_to_finish = not self.is_owner and not self._graceful
        if nothing_to_finish or (again and number == signal.SIGINT):
            os._exit(_SIGNAL_EXIT + number)
        if not again:
            raise KeyboardInterrupt

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Let a chunk finish what is on its way when a signal comes, and then end a child without a traceback."""
        self._graceful = True
        self._end_with_owner()
        try:
            yield
        except KeyboardInterrupt:
            if self.is_owner:
                raise
            logging.shutdown()
            os._exit(_SIGNAL_EXIT + (self._signal or signal.SIGINT))
        finally:
            self._graceful = False

    def _end_with_owner(self) -> None:
        """Let a child get SIGTERM when the process that began the run is killed, so that it does not hold the batch's lock."""
        if not self.is_owner:
            end_with_parent(signal.SIGTERM, self._owner)

    @property
    def is_owner(self) -> bool:
        """Whether this process began the run."""
        return os.getpid() == self._owner

    def conclude(self) -> tuple[Summary, int]:
        """Return the summary and the exit code, after the children have ended."""
        join_children(GRACE_SECONDS)
        summary, code = self._run.conclude(interrupted=bool(self._signal))
        if self._viewer is not None:
            self._viewer.stop()
        return summary, _SIGNAL_EXIT + self._signal if self._signal else code

    def restore(self) -> None:
        """Restore the handlers of before."""
        luigi.worker.fork_lock = fork_lock
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def at_exit(self) -> None:
        """Conclude when this process ends, if RunBatch had no chance to, and end with dpp's exit code."""
        atexit.register(self._conclude_at_exit)
        sys.excepthook = self._excepthook

    def _excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            log.warning(INTERRUPTED_TEXT)
        else:
            sys.__excepthook__(kind, error, trace)

    def _conclude_at_exit(self) -> None:
        if not self.is_owner or self._viewer is None or self._run.summary() is not None:
            return
        try:
            summary, code = self.conclude()
            self._viewer.end(summary)
        except DppError as error:
            log.error("%s", error)
            code = error.exit_code
        logging.shutdown()
        os._exit(code)


class _ForkLock:
    """Luigi's lock around its forks, with signals held.

    A signal that interrupts a fork would be lost in a hook, or leave a child that its parent does not know.
    The child handles signals again at once: it has nothing to finish, so that its handler ends it.
    """

    is_forking = False

    def __enter__(self) -> None:
        fork_lock.acquire()
        hold_signals()
        _ForkLock.is_forking = True

    def __exit__(self, *_: object) -> None:
        _ForkLock.is_forking = False
        fork_lock.release()
        release_signals()


def _after_luigis_fork() -> None:
    if _ForkLock.is_forking:
        _ForkLock.is_forking = False
        resume_signals()


os.register_at_fork(after_in_child=_after_luigis_fork)
