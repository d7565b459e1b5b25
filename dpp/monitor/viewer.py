"""Showing a run while it lasts: drawn on a terminal, said in lines, or told as events; in a process of its own.

Luigi forks a child a task from the process that began the run, so that one must have no thread that draws: a child
would inherit its locks. The viewer is forked before all of them, has one thread, and knows of the run what its folder says.

A frame is drawn below the cursor, which then goes back to where it was. So what anybody else writes to the terminal
lands above the view, nothing has to be restored when the viewer is killed, and a terminal that gets narrower does no harm.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TextIO

from dpp.batch.run import Run
from dpp.engine.child import Helper
from dpp.logs import END, ERASE, mark_view_below
from dpp.monitor.state import RunFollower, State
from dpp.report.summary import Summary, render
from dpp.settings import Settings
from dpp.signals import signals_blocked
from dpp.workspace.atomic import json_line, write_all

log = logging.getLogger(__name__)

START_SECONDS = 0.7
DRAW_SECONDS = 0.3
LINE_SECONDS = 5.0
EVENT_SECONDS = 1.0
VIEWER_END_SECONDS = 5.0
VIEWER_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH})
ENDS = frozenset({signal.SIGTERM, signal.SIGHUP})


class Display(Protocol):
    """A way to show a run.

    Attributes:
        first: Seconds until it is shown for the first time.
        seconds: Seconds from one time to the next.
    """

    first: float
    seconds: float

    def begin(self, follower: RunFollower) -> None:
        """Look for the first time: rates count from here."""

    def show(self, follower: RunFollower) -> None:
        """Show what the run is at."""

    def end(self, follower: RunFollower) -> None:
        """Show what there is to show at the end, or take away what is shown."""


class TerminalDisplay:
    """Draw on a terminal, as long as it is this process's turn there.

    Args:
        stream: The terminal.
        first: Seconds until the first frame; a run that is over by then needs none.
    """

    seconds = DRAW_SECONDS

    def __init__(self, stream: TextIO, first: float = START_SECONDS) -> None:
        self.first = first
        self._stream = stream
        self._is_drawn = False

    def begin(self, follower: RunFollower) -> None:
        """Draw nothing yet."""
        follower.look()

    def show(self, follower: RunFollower) -> None:
        """Draw a frame."""
        from dpp.monitor.terminal import frame  # noqa: PLC0415 - takes 0.1 s, which a short run can do without

        state, _ = follower.look()
        if self._in_foreground():
            columns, rows = os.get_terminal_size(self._stream.fileno())
            shown = ["", *frame(state, self._stream, columns or 80, (rows or 24) - 2)]
            self._write("\r" + "\n".join(f"{line}\x1b[K" for line in shown) + f"\x1b[J\x1b[{len(shown) - 1}A\r")
            self._is_drawn = True

    def end(self, follower: RunFollower) -> None:
        """Take the frame away; where a shell has the terminal by now, only what is below and right of its cursor."""
        if self._is_drawn:
            self._write(ERASE if self._in_foreground() else ERASE.lstrip("\r"))
            self._is_drawn = False

    def wipe(self) -> None:
        """Take away the frame of another process that can't do so any more, as :meth:`end` would have."""
        with suppress(OSError):  # the terminal is gone as well
            if self._in_foreground():
                self._write(ERASE)

    def _in_foreground(self) -> bool:
        """Whether the shell lets this process write; one in the background would write over what somebody types."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:  # a terminal that controls no processes
            return True

    def _write(self, text: str) -> None:
        os.write(self._stream.fileno(), text.encode(self._stream.encoding, "replace"))


class LogDisplay:
    """Say how far a run is, in one line every few seconds.

    Args:
        say: Takes the line.
    """

    first = seconds = LINE_SECONDS

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def begin(self, follower: RunFollower) -> None:
        """Say nothing yet."""
        follower.look()

    def show(self, follower: RunFollower) -> None:
        """Say the line."""
        self._say(follower.look()[0].line())

    def end(self, follower: RunFollower) -> None:
        """Say nothing; the summary follows."""


class JsonDisplay:
    """Tell events as JSON Lines: each file once it has its outcome, and how far the run is.

    Args:
        descriptor: Takes the lines.
    """

    first = seconds = EVENT_SECONDS

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin(self, follower: RunFollower) -> None:
        """Tell what there is: a short run may be over by now."""
        self._tell(follower)

    def show(self, follower: RunFollower) -> None:
        """Tell what is new, and how far the run is."""
        write_all(self._descriptor, event("progress", progress(self._tell(follower))))

    def end(self, follower: RunFollower) -> None:
        """Tell what is new."""
        self._tell(follower)

    def _tell(self, follower: RunFollower) -> State:
        state, lines = follower.look()
        for line in lines:
            write_all(self._descriptor, b'{"event":"file-finished",' + line[1:])
        return state


def event(name: str, facts: dict[str, Any]) -> bytes:
    """Return an event as a line of JSON."""
    return json_line({"event": name, **facts})


def progress(state: State) -> dict[str, Any]:
    """Return what the event ``progress`` says."""
    return {
        **{name: getattr(state, name) for name in ("batch", "run", "total", "ok", "cached", "failed", "bytes")},
        "seconds": round(state.seconds, 3),
        "files_per_second": round(state.rate, 3),
        "bytes_per_second": round(state.byte_rate),
        "seconds_left": None if state.seconds_left is None else round(state.seconds_left, 1),
        "stages": {stage.name: {"done": stage.done, "running": stage.running, "waiting": stage.waiting} for stage in state.stages},
    }


def follow(follower: RunFollower, display: Display, is_over: Callable[[], bool], *, heeds_interrupt: bool = True) -> None:
    """Show a run until it is over, or a signal ends this.

    Args:
        follower: Follows the run.
        display: How it is shown.
        is_over: Whether there is nothing to come any more.
        heeds_interrupt: Whether SIGINT ends this; a viewer goes on while files that are on their way get their time.

    Raises:
        KeyboardInterrupt: SIGINT came.
    """
    display.begin(follower)
    due = time.monotonic() + display.first
    with signals_blocked(VIEWER_SIGNALS):
        while not is_over():
            caught = signal.sigtimedwait(VIEWER_SIGNALS, max(0.0, due - time.monotonic()))
            if caught is None:
                display.show(follower)
                due = time.monotonic() + display.seconds
            elif _ends(caught.si_signo, follower, display, heeds_interrupt=heeds_interrupt):
                break
        display.end(follower)


def _ends(number: int, follower: RunFollower, display: Display, *, heeds_interrupt: bool) -> bool:
    """Do what a signal asks for; return whether it ends the view."""
    if number == signal.SIGINT and heeds_interrupt:
        display.end(follower)
        raise KeyboardInterrupt
    if number == signal.SIGTSTP:
        display.end(follower)
        os.kill(os.getpid(), signal.SIGSTOP)
    return number in ENDS


def draws_on(stream: TextIO) -> bool:
    """Whether a stream is a terminal that somebody looks at, and that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown") and not os.environ.get("CI")


class Viewer:
    """The process that shows a run, as its parent sees it.

    Args:
        run: The run.
        settings: Say how it is shown.
    """

    def __init__(self, run: Run, settings: Settings) -> None:
        self._helper: Helper | None = None
        self._json = settings.json_lines
        self._drawn: TerminalDisplay | None = None
        if display := self._choose_display(settings):
            self._drawn = display if isinstance(display, TerminalDisplay) else None
            if isinstance(display, JsonDisplay):
                self.tell("run-started", run.info.model_dump(mode="json"))
            mark_view_below(on=self._drawn is not None)
            self._helper = Helper(lambda parent: _view(run, display, parent), VIEWER_SIGNALS)

    @staticmethod
    def _choose_display(settings: Settings) -> Display | None:
        if settings.json_lines:
            return JsonDisplay(sys.stdout.fileno())
        if settings.quiet:
            return None
        return TerminalDisplay(sys.stderr) if draws_on(sys.stderr) else LogDisplay(lambda line: log.info("%s", line))

    def stop(self) -> None:
        """Wait until the viewer has shown everything, and is gone; may be called by any process of the run, and again."""
        if self._helper:
            helper, self._helper = self._helper, None
            mark_view_below(on=False)
            if not helper.stop(None if self._json else VIEWER_END_SECONDS) and self._drawn:
                self._drawn.wipe()

    def end(self, summary: Summary) -> None:
        """Stop, and say how the run ended."""
        self.stop()
        if self._json:
            self.tell("run-finished", summary.model_dump(mode="json"))
        else:
            logging.getLogger(END).info("%s", render(summary))

    def tell(self, name: str, facts: dict[str, Any]) -> None:
        """Tell an event of the run as a whole, where events are asked for."""
        if self._json:
            with suppress(BrokenPipeError):
                write_all(sys.stdout.fileno(), event(name, facts))


def _view(run: Run, display: Display, parent: int) -> None:
    """Show the run until told to end, or the parent is gone."""
    try:
        run.release()
        follow(RunFollower(run), display, lambda: os.getppid() != parent, heeds_interrupt=False)
    except OSError as error:
        log.debug("nobody looks at the view any more: %s", error)
    except Exception:  # a view that fails must not look like a run that does
        log.warning("the view ended early; the run goes on", exc_info=True)
