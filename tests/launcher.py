"""Start console scripts without importing their modules again: imports take two thirds of the processor time of a start.

``python tests/launcher.py DESCRIPTOR`` is the launcher. It imports the modules, then reads requests from a socket and forks a process for
each. That process gets the arguments, environment, folder and streams of the request, runs the script as its main program, and exits like
any Python program. The launcher itself only imports, so no state passes from one test to the next.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from io import FileIO
from pathlib import Path

from dpp.tasks.luigi_defaults import set_soft_defaults
from luigi.configuration import LuigiConfigParser, add_config_path

Completed = subprocess.CompletedProcess[str]
REQUEST_BYTES = 200_000
SECONDS = 30
MODULES = ["dpp.cli", "dpp.cli.predecessor", "luigi.retcodes", "luigi.tools.deps_tree", "jinja2", "requests", "rich.live", "rich.table"]


class Launcher:
    """Start a launcher, and send requests to it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def run(self, arguments: list[str], folder: Path, environment: dict[str, str], timeout: float) -> Completed:
        """Run a console script to its end; the first argument is its path."""
        request = {"arguments": arguments, "folder": str(folder), "environment": environment}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with self._started(request, output.fileno(), errors.fileno()) as reply:
                if not select.select([reply], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(arguments, timeout)
                code = self._number(reply)
            texts = [os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0).decode() for stream in (output, errors)]
        return Completed(arguments, code, *texts)

    @contextmanager
    def _started(self, request: dict[str, object], output: int, errors: int) -> Iterator[FileIO]:
        """Start a program; yield the pipe that its exit code is read from. An exception in the block kills the program."""
        reader, writer = os.pipe()
        with FileIO(reader) as reply:
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode()], [output, errors, writer])
            finally:
                os.close(writer)
            pid = self._number(reply)
            try:
                yield reply
            except BaseException:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise

    def _number(self, reply: FileIO) -> int:
        if not (line := reply.readline()):
            raise RuntimeError(f"the launcher has ended: {self._process.poll()}")
        return int(line)

    def close(self) -> None:
        """End the launcher, even if a process that a test has left still holds the socket."""
        self._requests.shutdown(socket.SHUT_RDWR)
        self._requests.close()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(requests: socket.socket) -> None:
    """Run the launcher: return in each forked process that will run a script; exit when the client closes the socket."""
    for module in MODULES:
        importlib.import_module(module)
    for entry in entry_points(group="dpp"):
        entry.load()
    assert threading.active_count() == 1, "only a process with one thread may be forked"
    gc.freeze()
    # With SIG_IGN, the kernel reaps the processes that wait for programs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not message:
            sys.exit()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            fork_program(*descriptors)
            become(json.loads(message))
            return
        for descriptor in descriptors:
            os.close(descriptor)


def fork_program(output: int, errors: int, reply: int) -> None:
    """Return in a new process with these streams; this process waits for it, and replies with its id and its exit code."""
    if pid := os.fork():
        os.write(reply, b"%d\n" % pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # The client may have stopped waiting.
        with suppress(BrokenPipeError):
            os.write(reply, b"%d\n" % code)
        # Not _exit, for which coverage would write data that is not needed.
        os.kill(os.getpid(), signal.SIGKILL)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (output, errors, reply):
        os.close(descriptor)


def become(request: dict[str, object]) -> None:
    """Give this process the arguments, environment and folder of a request."""
    arguments, environment, folder = request["arguments"], request["environment"], request["folder"]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    # Luigi has read the temporary folder and the arguments of the launcher when it was imported.
    tempfile.tempdir = None
    sys.modules.pop("luigi.cmdline", None)
    sys.path[:1] = [str(Path(arguments[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    configure_luigi()


def configure_luigi() -> None:
    """Read Luigi's configuration for this process, and set dpp's defaults again."""
    # The launcher has read its own configuration when it imported Luigi.
    config = LuigiConfigParser.instance()
    for section in config.sections():
        config.remove_section(section)
    config.reload()
    if path := os.environ.get("LUIGI_CONFIG_PATH"):
        add_config_path(path)
    set_soft_defaults(sys.argv[1:])


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)
    runpy.run_path(sys.argv[0], run_name="__main__")
