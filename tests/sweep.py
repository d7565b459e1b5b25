"""Disturb a small batch at each system call that changes a file of its workspace, and check the workspace and the result of a rerun.

    python tests/sweep.py kill --mode chunks                every process is killed (SIGKILL)
    python tests/sweep.py kill-one --mode workers           the calling process is killed
    python tests/sweep.py full --mode tasks --program dpp   from this call on, the disk is full (ENOSPC)
    python tests/sweep.py broken --mode cleanup             one write or fsync fails with EIO
    python tests/sweep.py stale --mode chunks               from this call on, the file server is gone (ESTALE)

Each try is a run in its own process group, disturbed at its first, second, third, ... call, and an undisturbed rerun. Each problem is
printed as a line, and a summary at the end.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import luigi.cmdline
import requests  # noqa: F401 - imported here once, and not by every run
from dpp import FileData
from dpp.cli import main as dpp_command
from dpp.maintenance.verify import Checker

import http_site
from aftermath import check, contents
from interception import Call, Verdict, guard, supervise

BODIES = {"a.txt": b"small\n", "b.bin": b"0123456789abcdef" * 10_000, "c.txt": b""}
MODES = {
    "tasks": ["--workers", "1"],
    "chunks": ["--chunk-size", "2", "--workers", "1"],
    "workers": ["--chunk-size", "2", "--workers", "2"],
    "cleanup": ["--chunk-size", "2", "--workers", "1", "--cleanup"],
}
STEPS = ["--pre-processors", "sweep:Copies", "--post-processors", "sweep:Looks"]
TAKES_SPACE = frozenset({"write", "pwrite64", "writev", "sendfile", "copy_file_range", "openat", "mkdir", "mkdirat", "link", "symlink"})
NEEDS_DISK = frozenset({"write", "pwrite64", "writev", "fsync", "fdatasync"})
STOPPED = 3


class Copies:
    """A pre-processor that writes a file."""

    def pre_process(self, file: FileData) -> FileData:
        assert file.output_dir is not None
        file.local_path = Path(shutil.copy(str(file.local_path), file.output_dir / "copy"))
        return file


class Looks:
    """A post-processor that reads its file."""

    def post_process(self, result: object, file: FileData) -> None:
        assert file.error is not None or Path(str(file.local_path)).read_bytes() == BODIES[Path(file.url).name]


class Ended(NamedTuple):
    """The exit code and the output of a run; a negative code is a signal."""

    code: int
    said: str


class Batch:
    """A small batch in its own folder.

    Args:
        folder: The folder.
        program: ``luigi`` or ``dpp``.
        arguments: Arguments of the run.
    """

    def __init__(self, folder: Path, url: str, program: str, arguments: list[str]) -> None:
        self.folder = folder
        self.manifest = folder / "files.json"
        self.manifest.write_text(json.dumps([{"url": f"{url}/{name}", "id": name, "size": len(body)} for name, body in BODIES.items()]))
        self._said = folder.parent / "said.txt"
        self._program = program
        self._arguments = [*arguments, *STEPS]

    def run(self, workspace: str, verdict: Verdict | None = None) -> Ended:
        """Run the batch to its end; with a verdict, call it for each system call that changes a file."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            ours.close()
            self._be(workspace, theirs if verdict else None)
        theirs.close()
        with ours:
            if verdict:
                _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
                supervise(listener, verdict)
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), self._said.read_text())

    def _be(self, workspace: str, channel: socket.socket | None) -> NoReturn:
        """Run the batch in this process, and exit as a program does."""
        os.setsid()
        os.chdir(self.folder)
        said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        if channel:
            listener = guard()
            socket.send_fds(channel, [b"-"], [listener])
            os.close(listener)
            channel.close()
        code = 1
        try:
            self._command([str(self.manifest), "--workspace", workspace, *self._arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:  # noqa: BLE001 - as the interpreter does at its end
            sys.excepthook(*sys.exc_info())
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)

    def _command(self, arguments: list[str]) -> None:
        if self._program == "dpp":
            dpp_command(["run", *arguments])
        else:
            luigi.cmdline.luigi_run(["--module", "dpp", "RunBatch", "--files", *arguments])


class Disturbance:
    """Disturb a run at one of the calls that change a file of its workspace.

    Args:
        root: The workspace.
        how: A key of ``HOW``.
        at: Number of the call, from 1.
    """

    def __init__(self, root: Path, how: str, at: int) -> None:
        self.met: Call | None = None
        self._inside = f"{root}/"
        self._how = HOW[how]
        self._calls = 0
        self._at = at

    def __call__(self, call: Call) -> int:
        """Return the errno with which the call fails; 0 if it succeeds."""
        if not call.path.startswith(self._inside) or (self._how.counts and call.name not in self._how.counts):
            return 0
        self._calls += 1
        if self._calls < self._at or (self._calls > self._at and not self._how.lasts):
            return 0
        self.met = self.met or call
        self._how.kill(call.process)
        return self._how.error


def kill_all(process: int) -> None:
    """Kill all processes of a run: its group, and the group of the child that called."""
    for group in {os.getsid(process), os.getpgid(process)}:
        os.killpg(group, signal.SIGKILL)


def kill_one(process: int) -> None:
    """Kill one process of a run."""
    os.kill(process, signal.SIGKILL)


def kill_none(process: int) -> None:
    """Kill no process."""


class How(NamedTuple):
    """A way to disturb a run.

    Attributes:
        counts: Names of the calls that count; all if empty.
        error: The errno with which the call fails.
        lasts: Whether all later calls fail as well.
        kill: Kills processes of the run, given the calling one.
        codes: Exit codes that the run may have.
    """

    counts: frozenset[str] = frozenset()
    error: int = 0
    lasts: bool = False
    kill: Callable[[int], None] = kill_none
    codes: tuple[int, ...] = (0, STOPPED)


HOW = {
    "kill": How(error=errno.EINTR, kill=kill_all, codes=(-signal.SIGKILL,)),
    "kill-one": How(error=errno.EINTR, kill=kill_one, codes=(-signal.SIGKILL, 0, 1, STOPPED)),
    "full": How(TAKES_SPACE, errno.ENOSPC, lasts=True),
    "broken": How(NEEDS_DISK, errno.EIO),
    "stale": How(error=errno.ESTALE, lasts=True),
}


class Try:
    """A disturbed run, and an undisturbed rerun.

    Attributes:
        met: The call at which the run was disturbed; None if the run had fewer calls.
        faults: The problems that were found.
    """

    def __init__(self, batch: Batch, how: str, at: int, before: dict[str, bytes]) -> None:
        self.faults: list[str] = []
        self._batch, self._root, self._before = batch, batch.folder / "disturbed", before
        shutil.rmtree(self._root, ignore_errors=True)
        disturbance = Disturbance(self._root, how, at)
        ended = batch.run(self._root.name, disturbance)
        self.met = disturbance.met
        if self.met:
            self._look(ended, HOW[how])
            self._look_again(batch.run(self._root.name))

    def _look(self, ended: Ended, how: How) -> None:
        """Check the workspace that the disturbed run left."""
        self.faults += [f"left {problem.path}: {problem.text}" for problem in Checker(self._root).problems()]
        stops = [line for line in ended.said.splitlines() if line.startswith(("ERROR", "Error", "CRITICAL"))]
        if ended.code not in how.codes:
            self.faults.append(f"ended with {ended.code}: {ended.said}")
        told_once = len(stops) == 1 or (not stops and ended.code == 0)
        if how.kill is kill_none and ("Traceback" in ended.said or not told_once):
            self.faults.append(f"did not report the reason in one line: {ended.said}")
        if ended.code == 0:
            self._check(0)

    def _look_again(self, ended: Ended) -> None:
        """Check the result of the rerun."""
        if ended.code:
            self.faults.append(f"the rerun ended with {ended.code}: {ended.said}")
        else:
            self._check(0)

    def _check(self, code: int) -> None:
        try:
            check(self._root, code=code, total=len(BODIES), same_as=self._batch.folder / "undisturbed", before=self._before)
        except AssertionError as error:
            self.faults.append(f"not as after an undisturbed run: {error}")


def serve(site: http_site.Site) -> None:
    """Serve the files."""
    for name, body in BODIES.items():
        site.add(f"/{name}", body)


def sweep(batch: Batch, how: str, first: int, step: int, last: int) -> bool:
    """Disturb the batch at every ``step``-th call until a run has fewer calls; return whether no problem was found."""
    undisturbed = batch.run("undisturbed")
    assert undisturbed.code == 0, undisturbed
    before = contents(batch.folder, batch.folder / "disturbed")
    at, faults = first, 0
    while at <= last and (tried := Try(batch, how, at, before)).met:
        for fault in tried.faults:
            print(f"call {at}, {tried.met.name} {tried.met.path.removeprefix(str(batch.folder))}: {fault}", flush=True)
        faults += len(tried.faults)
        at += step
    print(f"{how}: {len(range(first, at, step))} calls of {at - step} or more, {faults} faults")
    return at > first and not faults


def main() -> None:
    """Run the sweep of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=HOW)
    parser.add_argument("--mode", choices=MODES, default="tasks")
    parser.add_argument("--program", choices=["luigi", "dpp"], default="luigi")
    parser.add_argument("--first", type=int, default=1, help="number of the first disturbed call")
    parser.add_argument("--step", type=int, default=1, help="distance between disturbed calls")
    parser.add_argument("--last", type=int, default=sys.maxsize, help="number of the last disturbed call, if a run has so many")
    arguments = parser.parse_args()
    # Not a TemporaryDirectory: each run exits as a program does, and would remove it.
    folder = Path(tempfile.mkdtemp(), "batch")
    folder.mkdir()
    try:
        with http_site.served(serve) as url:
            well = sweep(
                Batch(folder, url, arguments.program, MODES[arguments.mode]), arguments.how, arguments.first, arguments.step, arguments.last
            )
    finally:
        shutil.rmtree(folder.parent)
    sys.exit(not well)


if __name__ == "__main__":
    main()
