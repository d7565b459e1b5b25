"""``python -m dpp.runner DESCRIPTOR``: fork chunk runners, as another process requests them over a connection.

Each request is a connection (unix(7), SCM_RIGHTS), and its answer the process id of a runner that serves it: it runs chunks of one run, one
after another. Each request to a runner is the run's folder, the index of a chunk and the run's mark; each answer is the end of the chunk or
an error of dpp. Runners and the program end when the other process closes their connection or ends, or has no request for a minute; a
chunk gets up to 12 seconds for its files in flight then.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import traceback
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dpp._version import __version__
from dpp.batch.chunks import ChunkRunner, End
from dpp.batch.run import Run
from dpp.errors import ConfigurationError, DppError
from dpp.logs import keep_log, set_up_logging
from dpp.plugins.registry import registry
from dpp.signals import postpone

IDLE_SECONDS = 60.0


class Runner:
    """Run the chunks that another process requests.

    Args:
        connection: The connection to the other process.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: ChunkRunner | None = None
        self._is_ending = False

    def serve(self) -> None:
        """Run chunks until the other process closes the connection or has no more, or a signal ends this one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        with suppress(EOFError, OSError, KeyboardInterrupt), closing(self):
            while not self._is_ending and self._connection.poll(IDLE_SECONDS):
                self._connection.send(self._answer(*self._connection.recv()))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not postpone(number):
            self._is_ending = True
            raise KeyboardInterrupt

    def _answer(self, folder: str, index: int, token: str) -> End | DppError | None:
        """Return the end of a chunk, or the error that ended it; None if it was stopped."""
        try:
            run = Run(Path(folder), registry())
            check_visible(run, token)
            if run.workfile.is_interrupted():
                return "already"
            self._chunks = self._chunks or _open(run)
            return self._chunks.run(index, self._look)
        except KeyboardInterrupt:
            return None
        except DppError as error:
            return error

    def _look(self, *_counts: int) -> None:
        # There is no other request before the answer, so this is the end of the other process.
        if self._connection.poll():
            self._is_ending = True
            raise KeyboardInterrupt

    def close(self) -> None:
        """End the child process."""
        if self._chunks is not None:
            self._chunks.close()


def _open(run: Run) -> ChunkRunner:
    """Prepare this process for a run."""
    run.workfile.restore_imports()
    set_up_logging(run.workfile.settings)
    # A run that a program has started keeps no log.
    if (path := run.folder / "log.txt").exists():
        keep_log(path)
    check_versions(run)
    return ChunkRunner(run, is_watched=True)


def check_visible(run: Run, token: str) -> None:
    """Check that this machine sees a run's folder.

    Raises:
        ConfigurationError: It does not, or it sees another run at the same path.
    """
    if run.info.mark != token:
        raise ConfigurationError(
            f"the worker on {socket.gethostname()} does not see workspace {run.root}: {run.folder} is missing there, or is another run; "
            "all workers need the workspace at the same path. Without a shared file system, run a part of the files on each machine"
        )


def check_versions(run: Run) -> None:
    """Check that dpp, and the packages that a run may use, have the same versions here as where the run was started.

    Raises:
        ConfigurationError: Some differ; it names both versions.
    """
    steps = registry().steps(run.workfile.settings)
    ours, theirs = {"dpp": __version__, **registry().packages(steps)}, {"dpp": run.info.dpp, **run.info.packages}
    host = socket.gethostname()
    different = [
        f"{name} is {theirs.get(name, 'not installed')} on {run.info.host}, and {ours.get(name, 'not installed')} for the worker on {host}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if not different and list(steps.fingerprints()) != run.info.fingerprints:
        different = [f"the steps on {run.info.host} and those of the worker on {host} have other versions or options"]
    if different:
        raise ConfigurationError(f"{'; '.join(different)}; install the same versions everywhere")


def main() -> None:
    """Fork runners for the connection whose descriptor is the only argument."""
    with _private(int(sys.argv[1])) as connection:
        # Once, for all runners.
        registry()
        gc.freeze()
        signal.signal(signal.SIGCHLD, _reap)
        with suppress(EOFError, OSError):
            while connection.poll(IDLE_SECONDS):
                descriptor = recv_handle(connection)
                if not (pid := os.fork()):
                    connection.close()
                    _serve(descriptor)
                os.close(descriptor)
                connection.send(pid)


def _private(descriptor: int) -> Connection:
    """Return a connection that programs which this process starts do not get."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - its only form
    return Connection(descriptor)


def _reap(_number: int, _frame: FrameType | None) -> None:
    """Wait for the runners that have ended, so that their processor time counts as that of this program."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _serve(descriptor: int) -> NoReturn:
    """Serve a connection in a runner, and end it."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection = _private(descriptor)
        # A process that a plugin forks must not keep the connection open.
        os.register_at_fork(after_in_child=connection.close)
        Runner(connection).serve()
        code = 0
    except BaseException:  # noqa: BLE001 - shown, as this process ends here
        traceback.print_exc()
    finally:
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
