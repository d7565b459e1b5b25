"""Run the batch of a collection in a process of its own, and read how it ended."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from dpp import DppError, EnvironmentStop, LockedError, runs

log = logging.getLogger("dpp.watch")

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNEXPECTED = 70  # an internal error (sysexits(3))
_PR_SET_PDEATHSIG = 1
_LOCKED_PAUSE = 0.2


class Ended(NamedTuple):
    """How a batch has ended.

    Attributes:
        code: Exit code.
        folder: Folder of its run; "" if it did not start.
    """

    code: int
    folder: str

    @property
    def is_complete(self) -> bool:
        """Whether every file has an outcome."""
        return self.code in (0, 1)

    def run(self) -> runs.RunFolder:
        """Return its run."""
        return runs.RunFolder(Path(self.folder))

    def failed(self) -> list[str]:
        """Return the ids of the files that failed."""
        return [outcome.id for outcome in self.run().results() if not outcome.ok]


class ForkedProcess:
    """A process that was forked from this one, which has no threads.

    Args:
        work: Called in the process with a function that sends a text to this one; returns the exit code.
        close: Called first in the process: closes files of this one.
    """

    # In a process of its own, a batch leaves nothing behind in the watcher, which runs for months: memory, Luigi's tasks, plugins.
    def __init__(self, work: Callable[[Callable[[str], None]], int], close: Callable[[], None]) -> None:
        self._output, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        sys.stdout.flush()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            self.pid = os.fork()
            if not self.pid:
                _run(parent, blocked, work, lambda text: _write(end, text), close)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(end)
        self.descriptor = os.pidfd_open(self.pid)

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        signal.pidfd_send_signal(self.descriptor, number)

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether the process has ended, or ends within some seconds."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the process; return its exit code, and what it has sent."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        try:
            # What a plugin has started may keep the pipe open, so this does not read to its end.
            text = os.read(self._output, 65536)
        except BlockingIOError:
            text = b""
        os.close(self._output)
        code = os.waitstatus_to_exitcode(status)
        return (128 - code if code < 0 else code), text.decode("utf-8", "surrogateescape")


def _run(
    parent: int, mask: Any, work: Callable[[Callable[[str], None]], int], send: Callable[[str], None], close: Callable[[], None]
) -> NoReturn:
    """Do the work in the forked process, and end it."""
    code = UNEXPECTED
    try:
        # Ctrl-C reaches the watcher only, which passes it on: a second one would end the batch at once.
        os.setpgid(0, 0)
        # A watcher that was killed leaves no batch behind that holds its lock, however busy that is.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (*ENDING_SIGNALS, signal.SIGIO):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() == parent:
            code = work(send)
    except DppError as error:
        log.error("%s", error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        log.exception("the batch ended unexpectedly")
    finally:
        logging.shutdown()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _write(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode("utf-8", "surrogateescape"))


def run_batch(manifest: Path, workers: int, settings: Mapping[str, Any]) -> Callable[[Callable[[str], None]], int]:
    """Return the work of a child that runs the batch of a manifest."""

    def work(send: Callable[[str], None]) -> int:
        while True:
            try:
                finished = runs.start_batch(str(manifest), workers=workers, **settings)
            except LockedError:
                # The workers of a watcher that was killed finish their files in progress.
                time.sleep(_LOCKED_PAUSE)
            else:
                send(json.dumps({"folder": finished.summary.folder}))
                return finished.exit_code

    return work


def ended(child: ForkedProcess) -> Ended:
    """Return how the batch of a child has ended.

    Raises:
        DppError: The batch cannot run: invalid input, or an internal error.
    """
    code, text = child.wait()
    end = Ended(code, json.loads(text)["folder"] if text else "")
    if code == UNEXPECTED or (code in (0, 1) and not end.folder):
        raise EnvironmentStop("the batch of a collection ended unexpectedly; its files are taken again when the watcher starts again")
    return end
