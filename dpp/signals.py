"""Signals that have to wait, as an exception at that moment would leave something half done.

Python runs a signal's handler in the main thread between any two of its instructions, whichever thread the system gave the
signal to (https://docs.python.org/3/library/signal.html, "Signals and threads"). So a signal mask of the main thread does not
help where other threads run. A handler that raises an exception asks :func:`postpone` first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    """How many blocks keep signals waiting, one within the other, and the signal that waits; 0 for none."""

    depth = 0
    waiting = 0


def postpone(number: int) -> bool:
    """Return whether a signal has to wait; its handler is called again at the end of the block that keeps it waiting."""
    if _State.depth:
        _State.waiting = number
    return bool(_State.depth)


def hold_signals() -> None:
    """Let signals wait from now on, until :func:`release_signals`; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        _State.depth += 1


def release_signals() -> None:
    """End what :func:`hold_signals` began, and deliver the signal that waits."""
    if threading.current_thread() is threading.main_thread():
        _State.depth -= 1
        if not _State.depth:
            resume_signals()


def resume_signals() -> None:
    """Let signals wait no more, and deliver the one that waits; a process calls it that was forked while they did."""
    number, _State.depth, _State.waiting = _State.waiting, 0, 0
    if number:
        signal.raise_signal(number)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait while a block runs."""
    hold_signals()
    try:
        yield
    finally:
        release_signals()


@contextmanager
def signals_blocked(numbers: frozenset[signal.Signals]) -> Iterator[None]:
    """Block signals while a block runs, for code that asks for them (``sigtimedwait``), and for processes that it forks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
