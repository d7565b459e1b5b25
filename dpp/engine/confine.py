"""Confine a process that runs plugins: it has its own process group, and writes no core dumps. Commands write none, either.

A plugin may end its own process group (``os.killpg(0, ...)``), which must not be the group of the run. A terminal sends its signals
to the group of the run only: Ctrl-C reaches a confined process through its parent, and so does Ctrl-Z.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_GROUPS: set[int] = set()
# For a core_pattern(5) that is a pipe, the kernel ignores a limit of 0, but writes nothing with a limit of 1 byte.
_NO_CORE_BYTES = 1


def confine() -> None:
    """Give this process its own process group, and let it and the processes that it starts write no core dumps."""
    _GROUPS.clear()
    _confine(os.getpid())
    # Otherwise a plugin that reads from the terminal, as for a password, would be stopped, and the run would wait for it.
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


def no_core_dumps(pid: int = 0) -> None:
    """Let a process, and those that it starts from now on, write no core dumps.

    Args:
        pid: Process id; 0 for this process.
    """
    with suppress(OSError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        resource.prlimit(pid, resource.RLIMIT_CORE, (_NO_CORE_BYTES if hard else 0, hard))


def _confine(pid: int) -> None:
    # The process may have ended, and a service may forbid its processes to change limits.
    with suppress(OSError):
        os.setpgid(pid, pid)
    no_core_dumps(pid)


def confine_child(pid: int) -> None:
    """Confine a child of this process from outside, until :func:`release_group` or :func:`end_group`.

    Args:
        pid: Process id of the child.
    """
    # The child does this as well; whichever comes first.
    _confine(pid)
    _GROUPS.add(pid)


def release_group(pid: int) -> None:
    """Let the processes that a confined child has started, and that are still in its group, continue after its end."""
    _GROUPS.discard(pid)


def end_group(pid: int) -> None:
    """Kill a confined child, and the processes that it has started and that are still in its group."""
    _send_group(pid, signal.SIGKILL)
    _GROUPS.discard(pid)


def end_groups() -> None:
    """Kill all confined children of this process, for a process that exits at once."""
    for pid in tuple(_GROUPS):
        end_group(pid)


@contextmanager
def paused_together(pid: int) -> Iterator[None]:
    """Pass a stop by the terminal (SIGTSTP) on to a process group during a block, and continue the group afterwards."""

    def pause(number: int, _: FrameType | None) -> None:
        _send_group(pid, signal.SIGSTOP)
        signal.signal(number, signal.SIG_DFL)
        # This process stops here, until SIGCONT.
        os.kill(os.getpid(), number)
        signal.signal(number, pause)
        _send_group(pid, signal.SIGCONT)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTSTP) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTSTP, pause)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _send_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
