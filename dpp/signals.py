"""Hold signals back during code that an exception from a signal handler would leave half done.

Python runs a signal's handler in the main thread between any two of its instructions, whichever thread received the
signal (https://docs.python.org/3/library/signal.html, "Signals and threads"). So a signal mask of the main thread does not
help in a process with other threads. A handler that raises an exception must call :func:`postpone` first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    """The number of nested blocks that hold signals, and the number of the held signal; 0 for none."""

    depth = 0
    waiting = 0


def postpone(number: int) -> bool:
    """Return whether a signal is held; its handler is called again at the end of the block that holds it."""
    if _State.depth:
        _State.waiting = number
    return bool(_State.depth)


def hold_signals() -> None:
    """Hold signals from now on, until :func:`release_signals`; does nothing in other threads than the main thread."""
    if threading.current_thread() is threading.main_thread():
        _State.depth += 1


def release_signals() -> None:
    """End the effect of :func:`hold_signals`, and deliver the held signal."""
    if threading.current_thread() is threading.main_thread():
        _State.depth -= 1
        if not _State.depth:
            resume_signals()


def resume_signals() -> None:
    """Hold signals no more, and deliver the held one; for a process that was forked while signals were held."""
    number, _State.depth, _State.waiting = _State.waiting, 0, 0
    if number:
        signal.raise_signal(number)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold signals during a block."""
    hold_signals()
    try:
        yield
    finally:
        release_signals()


@contextmanager
def signals_blocked(numbers: frozenset[signal.Signals]) -> Iterator[None]:
    """Block signals during a block, for code that waits for them with ``sigtimedwait``, and for processes that it forks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
