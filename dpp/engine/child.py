"""Child processes: one that works and is watched, and one that helps.

Whatever the work does to its process, the parent learns how it ended. The child's message counts, not its exit code: a plugin
that calls ``os._exit(0)`` ends a process that has not finished. A child that crashes or is stopped leaves the stacks of its
threads (faulthandler), so that the file's record can tell where it was.

Every child ends with its parent, and no signal interrupts a fork: see :mod:`dpp.signals`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, NamedTuple

from dpp.errors import RESUMABLE_TEXT, DppError, EnvironmentStop
from dpp.signals import resume_signals, signals_blocked, signals_held

POLL_SECONDS = 0.25
END_SECONDS = 12.0
STACK_SECONDS = 10.0
_FORK = multiprocessing.get_context("fork")
_FINISHED = "finished"
_INTERRUPTED = "interrupted"
_PR_SET_PDEATHSIG = 1


class ChildExit(NamedTuple):
    """How a child ended that did not finish its work.

    Attributes:
        reason: What happened to it, as the end of a sentence.
        traceback: Where it was, if it left that.
        is_stopped: Whether its parent stopped it.
    """

    reason: str
    traceback: str | None = None
    is_stopped: bool = False


def run_in_child(
    work: Callable[[], None],
    look: Callable[[], str] = str,
    guard: AbstractContextManager[object] | None = None,
) -> ChildExit | None:
    """Do something in a child process, and wait for its end.

    Args:
        work: What is done; an interrupt may end it early.
        look: Called several times a second meanwhile; stops the child by returning why.
        guard: Held while the child is forked, so that no thread is doing then what it guards.

    Returns:
        How the child ended where it did not finish; None where it did.

    Raises:
        EnvironmentStop: No child can be started.
        DppError: The work raised it.
        KeyboardInterrupt: This process was interrupted; the child got some seconds to end.
    """
    with _starting():
        reader, writer = _FORK.Pipe(duplex=False)
        stacks = os.fdopen(os.memfd_create("stacks"), "w+b")
    with stacks, reader:
        process = _FORK.Process(target=_do, args=(work, writer, stacks, os.getpid()))
        try:
            with _starting(), guard or nullcontext(), signals_held():
                process.start()
            writer.close()
            reason = _watched(process, reader, look)
            return _how_it_ended(process, reader, reason, stacks)
        except KeyboardInterrupt:
            _end(process, END_SECONDS)
            raise
        finally:
            _end(process)


def _end(process: BaseProcess, seconds: float = 0.0) -> None:
    """End a child, if it was started: with SIGTERM and so many seconds to end, if it gets any."""
    if process.pid is not None:
        (process.terminate if seconds else process.kill)()
        process.join(seconds or None)


@contextmanager
def _starting() -> Iterator[None]:
    """Let it stop the run that this process may open no more files, or start no more processes."""
    try:
        yield
    except OSError as error:
        what = f"cannot start a process for the files: {error.strerror} (see ulimit -n and ulimit -u)"
        raise EnvironmentStop(f"{what}. {RESUMABLE_TEXT}") from error


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """Let this process get a signal when its parent ends, however it does (Linux only; prctl(2), PR_SET_PDEATHSIG).

    Args:
        number: The signal.
        parent: The parent's number; where it has ended already, the signal comes at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def join_children(seconds: float) -> None:
    """Wait for the processes that this one started with ``multiprocessing``, for so long at most."""
    deadline = time.monotonic() + seconds
    for child in multiprocessing.active_children():
        child.join(max(0.0, deadline - time.monotonic()))


class Helper:
    """A process beside the work, such as one that shows a run; any process of the run may stop it.

    Args:
        work: What it does, given the number of its parent; what it raises is lost.
        signals: What the process asks for itself (``sigtimedwait``): blocked from its first moment on.

    Attributes:
        pid: The number of the process.
    """

    def __init__(self, work: Callable[[int], None], signals: frozenset[signal.Signals]) -> None:
        self._ended, end = os.pipe()
        parent = os.getpid()
        with signals_blocked(signals), signals_held():
            self.pid = os.fork()
            if not self.pid:
                try:
                    resume_signals()
                    gc.freeze()
                    end_with_parent(signal.SIGTERM, parent)
                    work(parent)
                finally:
                    os._exit(0)
        os.close(end)

    def stop(self, seconds: float | None) -> bool:
        """End it with SIGTERM, and wait until it has ended; return false where it had to be killed.

        Args:
            seconds: How long it has to end; None for as long as it takes.
        """
        in_time = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            in_time = bool(select.select([self._ended], [], [], seconds)[0])
            if not in_time:
                os.kill(self.pid, signal.SIGKILL)
                select.select([self._ended], [], [])
        os.close(self._ended)
        with suppress(ChildProcessError):  # it is another process's child
            os.waitpid(self.pid, 0)
        return in_time


def _do(work: Callable[[], None], writer: Connection, stacks: IO[bytes], parent: int) -> None:
    """Be the child."""
    end_with_parent(signal.SIGKILL, parent)
    gc.freeze()  # what it begins with needs no looking through again and again: 5 % of a run's time
    faulthandler.enable(stacks)
    try:
        resume_signals()
        work()
        writer.send(_FINISHED)
    except KeyboardInterrupt:
        writer.send(_INTERRUPTED)
    except DppError as error:
        writer.send(error)
    except BaseException as error:  # noqa: BLE001 - the parent is told of it
        writer.send(ChildExit(f"failed with {type(error).__name__}: {error}", traceback.format_exc()))


def _watched(process: BaseProcess, reader: Connection, look: Callable[[], str]) -> str:
    """Wait until a child has said how it ended, or is no more; return why it was stopped, if it was."""
    while not reader.poll() and process.is_alive():
        if reason := look():
            _stop(process)
            return reason
        wait([reader, process.sentinel], POLL_SECONDS)
    return ""


def _stop(process: BaseProcess) -> None:
    """End a child that hangs, after a moment to leave its stacks, and the processes that it started: it may hang in one."""
    pid = process.pid or 0
    _send(pid, signal.SIGSTOP)  # so that it starts no more of them meanwhile
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    started = _descendants(pid)
    _send(pid, signal.SIGABRT)
    _send(pid, signal.SIGCONT)
    for each in started:
        _send(each, signal.SIGKILL)
    process.join(STACK_SECONDS)
    process.kill()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _how_it_ended(process: BaseProcess, reader: Connection, reason: str, stacks: IO[bytes]) -> ChildExit | None:
    said = None
    with suppress(EOFError):
        said = reader.recv() if reader.poll() else None
    process.join(END_SECONDS if said else None)
    if said == _FINISHED:
        return None
    if isinstance(said, DppError):
        raise said
    if isinstance(said, ChildExit):
        return said
    stacks.seek(0)
    trace = stacks.read().decode(errors="replace") or None
    if said == _INTERRUPTED:
        return ChildExit("was interrupted")
    return ChildExit(reason or _exit_reason(process.exitcode or 0), trace, is_stopped=bool(reason))


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"ended itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", as the system does when memory runs out" if code == -signal.SIGKILL else "")


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started (proc(5), task/*/children)."""
    children = []
    with suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                children += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in _descendants(child)]
