"""Child processes: a worker that the parent monitors, and a helper beside it.

The parent learns how a worker ended, even after a crash. A child that crashes or is stopped leaves the stacks of its threads
(faulthandler) for the file's record. Every child ends with its parent, and no signal interrupts a fork: see :mod:`dpp.signals`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import math
import multiprocessing
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, NamedTuple

from dpp.engine.confine import confine, confine_child, end_group, paused_together, release_group
from dpp.engine.wear import says_used_up, starts_sound
from dpp.errors import DppError, EnvironmentStop
from dpp.signals import resume_signals, signals_blocked, signals_held
from dpp.workspace.locks import kept_in_fork
from dpp.workspace.machine import LIMITS, is_thread_refusal, starting
from dpp.workspace.space import can_write

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
END_SECONDS = 12.0
STACK_SECONDS = 10.0
LEAVE_SECONDS = 5.0
JOIN_SECONDS = 0.05
FORK_PAUSES = (0.25, 0.5, 1.0, 2.0)

_FORK = multiprocessing.get_context("fork")
_FINISHED = "finished"
_LAST = "finished the last task"
_LEAVE = "leave"
_INTERRUPTED = "interrupted"
_PR_SET_PDEATHSIG = 1


class ChildExit(NamedTuple):
    """How a child ended that did not finish its work.

    Attributes:
        reason: What happened, as the predicate of a sentence, such as "exited with code 1".
        traceback: The stacks of its threads, or None.
        is_stopped: Whether its parent stopped it.
    """

    reason: str
    traceback: str | None = None
    is_stopped: bool = False


class Child:
    """A child process that does one task after another, until it crashes or is closed; the next task starts a new process.

    Args:
        do: Called in the child with each task; returns whether the same process may do another one. An interrupt may end it early.
        leave: Called in the child before it ends, also after ``do`` has raised an exception.
        guard: Held during the fork, so that no other thread is inside the guarded code at that moment.
    """

    def __init__(
        self,
        do: Callable[[Any], bool],
        leave: Callable[[], None] = lambda: None,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        self._do = do
        self._leave = leave
        self._guard = guard or nullcontext()
        self._process: BaseProcess | None = None
        self._connection: Connection
        self._stacks: IO[bytes]

    def run(self, task: Any = None, look: Callable[[], str] = str) -> ChildExit | None:
        """Let the child do a task, and wait for it; start the child first if there is none.

        Args:
            task: The task; it is pickled.
            look: Called several times a second meanwhile; a text that it returns stops the child, for that reason.

        Returns:
            How the child ended if it did not finish the task; None if it finished.

        Raises:
            EnvironmentStop: The child cannot be started.
            DppError: The task or ``look`` raised it.
            KeyboardInterrupt: This process was interrupted; as after an error in ``look``, the child got up to 12 seconds to end.
        """
        has_ended, finished = True, False
        try:
            process = self._process or self._start()
            # A child that has died since its last task is found below.
            with suppress(OSError):
                self._connection.send(task)
            assert process.pid is not None
            with paused_together(process.pid):
                reason = _watched(process, self._connection, look)
                ended, has_ended = _how_it_ended(process, self._connection, reason, self._stacks)
            finished = ended is None
            return ended
        except (KeyboardInterrupt, DppError):
            if self._process:
                _end(self._process, END_SECONDS)
            raise
        finally:
            if has_ended:
                self._forget(finished=finished)

    def close(self, look: Callable[[], str] = str) -> ChildExit | None:
        """End the child, if there is one; see :meth:`run`."""
        return self.run(_LEAVE, look) if self._process else None

    def _start(self) -> BaseProcess:
        with starting():
            self._connection, theirs = _FORK.Pipe()
            self._stacks = os.fdopen(os.memfd_create("stacks"), "w+b")
        with theirs:
            arguments = (self._do, self._leave, theirs, self._stacks, os.getpid())
            self._process = process = _FORK.Process(target=_serve, args=arguments)
            _start(process, self._guard)
        confine_child(process.pid or 0)
        return process

    def _forget(self, *, finished: bool) -> None:
        """Kill the child if it has not ended, and what it has started if it did not finish."""
        if (process := self._process) is None:
            return
        self._process = None
        _end(process)
        if process.pid:
            (release_group if finished else end_group)(process.pid)
        self._connection.close()
        self._stacks.close()


def run_in_child(
    work: Callable[[], object],
    look: Callable[[], str] = str,
    guard: AbstractContextManager[object] | None = None,
) -> ChildExit | None:
    """Call a function in a child process, and wait for the child to end; see :meth:`Child.run`."""

    def do(_task: None) -> bool:
        work()
        return False

    return Child(do, guard=guard).run(look=look)


def _start(process: BaseProcess, guard: AbstractContextManager[object]) -> None:
    """Start a child; where the system has no process left, wait a while for those that another file's step has started."""
    pauses = iter(FORK_PAUSES)
    with starting():
        while True:
            try:
                with guard, signals_held(), kept_in_fork():
                    process.start()
                return
            except BlockingIOError:
                if (pause := next(pauses, None)) is None:
                    raise
            time.sleep(pause)


def _end(process: BaseProcess, seconds: float = 0.0) -> None:
    """End a child, if it was started: with SIGTERM and these seconds to end, or with SIGKILL if there are none."""
    if process.pid is not None:
        (process.terminate if seconds else process.kill)()
        _join(process, seconds or math.inf)


def _join(process: BaseProcess, seconds: float) -> None:
    """Wait up to this many seconds for a child to end."""
    # Process.join() waits for the sentinel, a pipe that stays open in processes that the child has forked.
    deadline = time.monotonic() + seconds
    while process.exitcode is None and _is_child(process) and (left := deadline - time.monotonic()) > 0:
        wait([process.sentinel], min(left, JOIN_SECONDS))


def _is_child(process: BaseProcess) -> bool:
    """Whether the exit code of a process can be read: Luigi reads that of a worker that it ends, and then Python never knows it."""
    assert process.pid is not None
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """Request a signal for this process when its parent ends (Linux only; prctl(2), PR_SET_PDEATHSIG).

    Args:
        number: The signal.
        parent: The parent's process id; if the parent has ended already, the signal is sent at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def join_children(seconds: float) -> None:
    """Wait up to this many seconds for the processes that this one started with ``multiprocessing``."""
    deadline = time.monotonic() + seconds
    for child in multiprocessing.active_children():
        _join(child, deadline - time.monotonic())


class Helper:
    """A process beside the workers, such as the live view; any process of the run may stop it.

    Args:
        work: Called in the process with the parent's process id; exceptions that it raises are lost.
        signals: Signals that the process waits for with ``sigtimedwait``; blocked from its start.

    Attributes:
        pid: The process id.
    """

    def __init__(self, work: Callable[[int], None], signals: frozenset[signal.Signals]) -> None:
        parent = os.getpid()
        with starting(), signals_blocked(signals), signals_held():
            self._ended, end = os.pipe()
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
        """Send SIGTERM and wait for the process to end; return false if it had to be killed.

        Args:
            seconds: Maximum seconds to wait before it is killed; None for no limit.
        """
        in_time = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            in_time = bool(select.select([self._ended], [], [], seconds)[0])
            if not in_time:
                os.kill(self.pid, signal.SIGKILL)
                select.select([self._ended], [], [])
        os.close(self._ended)
        # If another process called stop(), the helper is not our child and cannot be waited for.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return in_time


def _serve(do: Callable[[Any], bool], leave: Callable[[], None], connection: Connection, stacks: IO[bytes], parent: int) -> None:
    """Do tasks in the child, and send the parent how each of them ended."""
    end_with_parent(signal.SIGKILL, parent)
    confine()
    # Objects inherited from the parent never become garbage: scanning them took 5 % of a run's time.
    gc.freeze()
    faulthandler.enable(stacks)
    is_sound = starts_sound()
    try:
        resume_signals()
        try:
            while (task := connection.recv()) != _LEAVE and do(task):
                connection.send(_FINISHED)
        finally:
            leave()
        connection.send(_LAST)
    except KeyboardInterrupt:
        connection.send(_INTERRUPTED)
    except BaseException as error:  # noqa: BLE001 - sent to the parent
        is_ours = isinstance(error, DppError) and not (is_sound and says_used_up(error))
        connection.send(error if is_ours else ChildExit(f"failed with {_described(error)}", traceback.format_exc()))
    finally:
        # As at the end of a program, executors shut down first: multiprocessing would wait forever for the processes of a
        # ProcessPoolExecutor.
        threading._shutdown()  # type: ignore[attr-defined]


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" + f" ({LIMITS})" * is_thread_refusal(error)


def _watched(process: BaseProcess, connection: Connection, look: Callable[[], str]) -> str:
    """Wait until a child has sent its message or has ended; return why it was stopped, or ""."""
    while not connection.poll() and process.is_alive():
        if reason := look():
            # It makes faulthandler write the stacks of all threads.
            _stop(process, signal.SIGABRT)
            return reason
        wait([connection, process.sentinel], POLL_SECONDS)
    return ""


def _stop(process: BaseProcess, number: signal.Signals) -> None:
    """End a child with a signal, and with SIGKILL the processes that it started and, after a while, the child itself."""
    pid = process.pid or 0
    # A stopped child starts no further processes while its descendants are listed.
    _send(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    started = _descendants(pid)
    _send(pid, number)
    _send(pid, signal.SIGCONT)
    for each in started:
        _send(each, signal.SIGKILL)
    _join(process, STACK_SECONDS)
    process.kill()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _how_it_ended(process: BaseProcess, connection: Connection, reason: str, stacks: IO[bytes]) -> tuple[ChildExit | None, bool]:
    """Return how a child ended its task, None if it has finished it, and whether its process ends."""
    # The message counts, not the exit code: a plugin that calls os._exit(0) ends a child that has not finished.
    message = None
    # A child that has died with a task unread resets the connection.
    with suppress(EOFError, ConnectionResetError):
        message = connection.recv() if connection.poll() else None
    if message == _FINISHED:
        return None, False
    if message == _LAST:
        _join(process, LEAVE_SECONDS)
        if process.exitcode is None:
            log.warning("a plugin left a thread or a process running, so the process of its file did not end; both are stopped")
            _stop(process, signal.SIGKILL)
        return None, True
    _join(process, LEAVE_SECONDS if message else math.inf)
    if isinstance(message, EnvironmentStop) and message.denied and can_write(message.denied):
        return ChildExit(f"may no longer write {message.denied}, which dpp may: a step has changed the rights of its process"), True
    if isinstance(message, DppError):
        raise message
    if isinstance(message, ChildExit):
        return message, True
    stacks.seek(0)
    trace = stacks.read().decode(errors="replace") or None
    if message == _INTERRUPTED:
        return ChildExit("was interrupted"), True
    return ChildExit(reason or _exit_reason(process.exitcode or 0), trace, is_stopped=bool(reason)), True


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (possibly out of memory)" if code == -signal.SIGKILL else "")


def _descendants(pid: int) -> list[int]:
    """Return the ids of all descendants of a process (proc(5), task/*/children)."""
    children = []
    # Processes and threads may end while they are read.
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                children += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in _descendants(child)]
