"""Show the progress of a run in a separate process: as a view on a terminal, as log lines, or as JSON events."""

# Luigi forks a child per task from the process that started the run. A thread that draws in that process could hold a lock
# at a fork, which the child would inherit. So the viewer is a process, forked before the others, and reads the run's folder.

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
from dpp.redact import printable_json
from dpp.report.summary import Summary, render
from dpp.settings import Settings
from dpp.signals import signals_blocked
from dpp.streams import reserve_output, write_all, write_output
from dpp.workspace.atomic import json_line

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
        first: Seconds until the first display.
        seconds: Seconds between displays.
    """

    first: float
    seconds: float

    def begin(self, follower: RunFollower) -> None:
        """Read the state for the first time, from which rates are computed."""

    def show(self, follower: RunFollower) -> None:
        """Show the state of the run."""

    def end(self, follower: RunFollower) -> None:
        """Show the final state, or remove the display."""


class TerminalDisplay:
    """Draw the state on a terminal while this process is in the foreground.

    Args:
        stream: The terminal.
        first: Seconds until the first frame; a run that ends earlier is not drawn.
    """

    # A frame is drawn below the cursor, which then returns to its place. So the output of other processes appears above the
    # view, a viewer that is killed leaves nothing to restore, and a terminal that becomes narrower does no harm.

    seconds = DRAW_SECONDS

    def __init__(self, stream: TextIO, first: float = START_SECONDS) -> None:
        self.first = first
        self._stream = stream
        self._is_drawn = False

    def begin(self, follower: RunFollower) -> None:
        """Read the state for the first time, without drawing."""
        follower.look()

    def show(self, follower: RunFollower) -> None:
        """Draw a frame."""
        from dpp.monitor.terminal import frame  # noqa: PLC0415 - the import takes 0.1 s, and a short run does not need it

        state, _ = follower.look()
        if self._in_foreground():
            columns, rows = os.get_terminal_size(self._stream.fileno())
            shown = ["", *frame(state, self._stream, columns or 80, (rows or 24) - 2)]
            self._write("\r" + "\n".join(f"{line}\x1b[K" for line in shown) + f"\x1b[J\x1b[{len(shown) - 1}A\r")
            self._is_drawn = True

    def end(self, follower: RunFollower) -> None:
        """Erase the frame."""
        if self._is_drawn:
            # In the background, the cursor is behind the shell's prompt, which must stay.
            self._write(ERASE if self._in_foreground() else ERASE.lstrip("\r"))
            self._is_drawn = False

    def wipe(self) -> None:
        """Erase the frame of a viewer process that was killed."""
        # The terminal may be gone as well.
        with suppress(OSError):
            if self._in_foreground():
                self._write(ERASE)

    def _in_foreground(self) -> bool:
        """Return whether this process is in the foreground of the terminal."""
        # In the background, a frame would overwrite what the user types.
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:
            # Not the controlling terminal of this process: it has no foreground.
            return True

    def _write(self, text: str) -> None:
        os.write(self._stream.fileno(), text.encode(self._stream.encoding, "replace"))


class LogDisplay:
    """Write the state as one line every few seconds.

    Args:
        say: Function that writes a line.
    """

    first = seconds = LINE_SECONDS

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def begin(self, follower: RunFollower) -> None:
        """Read the state for the first time, without writing."""
        follower.look()

    def show(self, follower: RunFollower) -> None:
        """Write the line."""
        self._say(follower.look()[0].line())

    def end(self, follower: RunFollower) -> None:
        """Write nothing: the summary follows."""


class JsonDisplay:
    """Write events as JSON Lines: one per file with an outcome, and the progress of the run.

    Args:
        descriptor: File descriptor to write to.
    """

    first = seconds = EVENT_SECONDS

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin(self, follower: RunFollower) -> None:
        """Write the files that have an outcome."""
        # A short run may have ended already.
        self._tell(follower)

    def show(self, follower: RunFollower) -> None:
        """Write the new files and the progress."""
        write_all(self._descriptor, event("progress", progress(self._tell(follower))))

    def end(self, follower: RunFollower) -> None:
        """Write the new files."""
        self._tell(follower)

    def _tell(self, follower: RunFollower) -> State:
        state, lines = follower.look()
        for line in lines:
            write_all(self._descriptor, _printable(b'{"event":"file-finished",' + line[1:]))
        return state


def event(name: str, facts: dict[str, Any]) -> bytes:
    """Return an event as one line of JSON."""
    return _printable(json_line({"event": name, **facts}))


def _printable(line: bytes) -> bytes:
    return printable_json(line.decode()).encode()


def progress(state: State) -> dict[str, Any]:
    """Return the fields of the event ``progress``."""
    return {
        **{name: getattr(state, name) for name in ("batch", "run", "total", "ok", "cached", "failed", "bytes")},
        "seconds": round(state.seconds, 3),
        "files_per_second": round(state.rate, 3),
        "bytes_per_second": round(state.byte_rate),
        "seconds_left": None if state.seconds_left is None else round(state.seconds_left, 1),
        "stages": {stage.name: {"done": stage.done, "running": stage.running, "waiting": stage.waiting} for stage in state.stages},
    }


def follow(follower: RunFollower, display: Display, is_over: Callable[[], bool], *, heeds_interrupt: bool = True) -> None:
    """Show a run until it has ended or a signal arrives.

    Args:
        follower: Follows the run.
        display: How to show it.
        is_over: Function that returns whether the run has ended.
        heeds_interrupt: Whether SIGINT ends the display. The viewer of a run continues until the files in progress have ended.

    Raises:
        KeyboardInterrupt: SIGINT arrived.
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
    """Handle a signal; return whether it ends the display."""
    if number == signal.SIGINT and heeds_interrupt:
        display.end(follower)
        raise KeyboardInterrupt
    if number == signal.SIGTSTP:
        # Ctrl-Z: the shell that comes to the foreground must not find the frame on its terminal.
        display.end(follower)
        os.kill(os.getpid(), signal.SIGSTOP)
    return number in ENDS


def draws_on(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor, and not the log of a CI system."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown") and not os.environ.get("CI")


class Viewer:
    """The process that shows a run, for its parent.

    Args:
        run: The run.
        settings: Determine how it is shown.
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
            return JsonDisplay(reserve_output())
        if settings.quiet:
            return None
        return TerminalDisplay(sys.stderr) if draws_on(sys.stderr) else LogDisplay(lambda line: log.info("%s", line))

    def stop(self) -> None:
        """Stop the viewer after it has shown everything; may be called repeatedly, and by any process of the run."""
        if self._helper:
            helper, self._helper = self._helper, None
            mark_view_below(on=False)
            if not helper.stop(None if self._json else VIEWER_END_SECONDS) and self._drawn:
                self._drawn.wipe()

    def end(self, summary: Summary) -> None:
        """Stop the viewer, and show the summary."""
        self.stop()
        if self._json:
            self.tell("run-finished", summary.model_dump(mode="json"))
        else:
            logging.getLogger(END).info("%s", render(summary))

    def tell(self, name: str, facts: dict[str, Any]) -> None:
        """Write an event of the run, if events are requested."""
        if self._json:
            write_output(event(name, facts))


def _view(run: Run, display: Display, parent: int) -> None:
    """Show the run until a signal arrives or the parent has ended."""
    try:
        follow(RunFollower(run), display, lambda: os.getppid() != parent, heeds_interrupt=False)
    except OSError as error:
        log.debug("the output of the progress view was closed: %s", error)
    except Exception:
        # An error of the view must not look like one of the run.
        log.warning("the progress view failed; the run continues without it", exc_info=True)
