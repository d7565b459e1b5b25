"""The function that an executor calls for a chunk, and the chunk runners that it hands the chunk to.

A chunk runner (``python -m dpp.runner``) is a process that runs chunk after chunk. It is no fork of the calling process, which may
have threads, or be daemonic and may then have no children of ``multiprocessing``, as the workers of Celery and Dask.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dpp.batch.chunks import End
from dpp.batch.folder import RunFolder
from dpp.engine.confine import confine_child, end_group
from dpp.errors import DppError
from dpp.workspace.machine import starting

END_SECONDS = 15.0
BEAT_SECONDS = 0.5

_idle: list[_Runner] = []
_lock = threading.Lock()


class ChunkLost(Exception):
    """Report that the process of a chunk has ended before the chunk was done."""


def work(run_folder: str, index: int, token: str) -> End:
    """Run a chunk of a run in a chunk runner of this process, and wait for it.

    Args:
        run_folder: Path of the run's folder, the same on all machines.
        index: Index of the chunk in the run, from 0.
        token: The ``mark`` in ``run.json``, by which the workspace is recognized.

    Returns:
        "done"; "already" if the chunk was done before or the run has ended; "busy" if another process runs it.

    Raises:
        ChunkLost: The process of the chunk was stopped.
        InputError: This machine does not see the workspace, or has other versions of dpp or of a plugin.
        EnvironmentStop: The environment stops the run.
    """
    runner = _idle_runner(run_folder) or _Runner(run_folder)
    try:
        answer = runner.ask(index, token)
    except BaseException:
        runner.close()
        raise
    with _lock:
        _idle.append(runner)
    if isinstance(answer, DppError):
        raise answer
    return answer


def _idle_runner(run_folder: str) -> _Runner | None:
    """Take an idle chunk runner of a run, if there is one; forget those that have ended."""
    # Those of other runs are no use, as the modules of steps may have changed since.
    with _lock:
        ended = [runner for runner in _idle if not runner.is_alive()]
        found = next((runner for runner in _idle if runner.run_folder == run_folder and runner not in ended), None)
        _idle[:] = [runner for runner in _idle if runner is not found and runner not in ended]
    for runner in ended:
        runner.close()
    return found


def close_runners() -> None:
    """End the idle chunk runners of this process."""
    with _lock:
        runners = [*_idle]
        _idle.clear()
    for runner in runners:
        runner.close()


class _Runner:
    """A chunk runner for one run; it ends when its connection is closed, or with this process.

    Args:
        run_folder: Path of the run's folder.
    """

    def __init__(self, run_folder: str) -> None:
        self.run_folder = run_folder
        ours, theirs = socket.socketpair()
        with starting(), theirs:
            self._connection = Connection(ours.detach())
            try:
                # Without -P, a module in the current folder could take the place of one of Python's.
                command = [sys.executable, "-P", "-m", "dpp.runner", str(theirs.fileno())]
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
                )
                # A process that a plugin has forked may keep the other end of the connection open.
                self._ended = os.pidfd_open(self._process.pid)
            except BaseException:
                self._connection.close()
                raise
        confine_child(self._process.pid)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def ask(self, index: int, token: str) -> End | DppError:
        """Let the runner run a chunk; return what came of it."""
        lost = ChunkLost(f"the process of chunk {index} on {socket.gethostname()} was stopped")
        workfile = RunFolder(Path(self.run_folder)).workfile
        try:
            self._connection.send((self.run_folder, index, token))
        except OSError as error:
            raise lost from error
        while not wait([self._connection, self._ended], BEAT_SECONDS):
            workfile.beat_for(index)
        try:
            answer: End | DppError | None = self._connection.recv() if self._connection.poll() else None
        except (EOFError, ConnectionResetError) as error:
            raise lost from error
        if answer is None:
            raise lost
        return answer

    def close(self) -> None:
        """Let the runner end its chunk, if it has one, and end; kill it if that takes too long."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        end_group(self._process.pid)
        self._process.wait()
        os.close(self._ended)
