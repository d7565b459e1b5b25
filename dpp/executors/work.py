"""The function that an executor calls for a chunk, and the chunk runners that it hands the chunk to.

A chunk runner is a process that runs chunk after chunk. It is no fork of the calling process, which may have threads, or be daemonic
and may then have no children of ``multiprocessing``, as the workers of Celery and Dask. It is forked by a program (``python -m
dpp.runner``) that has loaded dpp and the plugins and does nothing else: a fork takes 10 ms, and starting a program half a second.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from pathlib import Path

from dpp.batch.chunks import End
from dpp.batch.folder import RunFolder
from dpp.engine.confine import confine_child, end_group, release_group
from dpp.errors import DppError
from dpp.workspace.machine import starting

END_SECONDS = 15.0
BEAT_SECONDS = 0.5

OnWait = Callable[[], None]

_idle: list[_Runner] = []
_lock = threading.Lock()
_nurseries: dict[str, _Nursery] = {}
_nursery_lock = threading.Lock()


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
    workfile = RunFolder(Path(run_folder)).workfile

    def beat() -> None:
        workfile.beat_for(index)

    runner = _idle_runner(run_folder) or _Runner(run_folder, beat)
    try:
        answer = runner.ask(index, token, beat)
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
    """End the idle chunk runners of this process, and what forks them."""
    with _lock:
        runners = [*_idle]
        _idle.clear()
    for runner in runners:
        runner.close()
    with _nursery_lock:
        nurseries = [*_nurseries.values()]
        _nurseries.clear()
    for nursery in nurseries:
        nursery.close()


class _Nursery:
    """The program that forks the chunk runners of a run; it ends when its connection is closed, or with this process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with starting(), theirs:
            self._connection = Connection(ours.detach())
            try:
                # Without -P, a module in the current folder could take the place of one of Python's.
                command = [sys.executable, "-P", "-m", "dpp.runner", str(theirs.fileno())]
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
                )
            except BaseException:
                self._connection.close()
                raise

    def is_alive(self) -> bool:
        """Whether the program has not ended."""
        return self._process.poll() is None

    def fork(self, connection: socket.socket, on_wait: OnWait) -> int:
        """Let the program fork a runner that serves a connection; return its process id.

        Raises:
            OSError: The program has ended.
            EOFError: It has ended meanwhile.
        """
        send_handle(self._connection, connection.fileno(), self._process.pid)
        # A program that was just started loads dpp and the plugins first.
        while not self._connection.poll(BEAT_SECONDS):
            on_wait()
        return int(self._connection.recv())

    def close(self) -> None:
        """End the program."""
        self._connection.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _fork_runner(run_folder: str, connection: socket.socket, on_wait: OnWait) -> int:
    """Fork a chunk runner that serves a connection; return its process id."""
    while not _nursery_lock.acquire(timeout=BEAT_SECONDS):
        on_wait()
    try:
        # A program may have ended since: it ends by itself if it is not needed for a while.
        for ended in [folder for folder, nursery in _nurseries.items() if not nursery.is_alive()]:
            _nurseries.pop(ended).close()
        nursery = _nurseries[run_folder] = _nurseries.get(run_folder) or _Nursery()
        try:
            return nursery.fork(connection, on_wait)
        except (OSError, EOFError) as error:
            _nurseries.pop(run_folder).close()
            raise ChunkLost(f"the program that starts the processes of chunks on {socket.gethostname()} was stopped") from error
    finally:
        _nursery_lock.release()


class _Runner:
    """A chunk runner for one run; it ends when its connection is closed, or with this process.

    Args:
        run_folder: Path of the run's folder.
        on_wait: Called about twice a second until the runner is there.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, run_folder: str, on_wait: OnWait) -> None:
        self.run_folder = run_folder
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        try:
            with theirs:
                self.pid = _fork_runner(run_folder, theirs, on_wait)
            # A process that a plugin has forked may keep the other end of the connection open.
            self._ended = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            self._connection.close()
            raise self._lost(0) from error
        except BaseException:
            self._connection.close()
            raise
        confine_child(self.pid)

    @staticmethod
    def _lost(index: int) -> ChunkLost:
        return ChunkLost(f"the process of chunk {index} on {socket.gethostname()} was stopped")

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return not wait([self._ended], 0)

    def ask(self, index: int, token: str, on_wait: OnWait) -> End | DppError:
        """Let the runner run a chunk; return what came of it."""
        try:
            self._connection.send((self.run_folder, index, token))
        except OSError as error:
            raise self._lost(index) from error
        while not wait([self._connection, self._ended], BEAT_SECONDS):
            on_wait()
        try:
            answer: End | DppError | None = self._connection.recv() if self._connection.poll() else None
        except (EOFError, ConnectionResetError) as error:
            raise self._lost(index) from error
        if answer is None:
            raise self._lost(index)
        return answer

    def close(self) -> None:
        """Let the runner end its chunk, if it has one, and end; kill it if that takes too long."""
        self._connection.close()
        if wait([self._ended], END_SECONDS):
            release_group(self.pid)
        else:
            end_group(self.pid)
        os.close(self._ended)
