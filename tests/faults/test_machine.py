"""Faults of the machine: streams, locks, semaphores, processes, folders. They are not reported as failures of files."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from programs import BIN

pytestmark = pytest.mark.fault(37)

COMMANDS = {"dpp": "dpp run list.txt", "luigi": "luigi --module dpp RunBatch --files list.txt"}
TOTAL = 3
BREAK = """
import errno, os

def refuse(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))
    return call
"""
BROKEN = {
    "ENOLCK": "import fcntl; fcntl.flock = refuse(errno.ENOLCK)",
    "ENOSYS": "import fcntl; fcntl.flock = refuse(errno.ENOSYS)",
    "EOPNOTSUPP": "import fcntl; fcntl.flock = refuse(errno.EOPNOTSUPP)",
    "semaphores": """
import _multiprocessing
class SemLock(_multiprocessing.SemLock):
    __new__ = refuse(errno.ENOSYS)
_multiprocessing.SemLock = SemLock
""",
    "EAGAIN": "os.fork = refuse(errno.EAGAIN)",
    "ENOMEM": "os.fork = refuse(errno.ENOMEM)",
    "threads": """
import threading
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
""",
}
SAID = {
    "ENOLCK": "must support flock(2)",
    "ENOSYS": "must support flock(2)",
    "EOPNOTSUPP": "must support flock(2)",
    "semaphores": "cannot create a semaphore: Function not implemented; Luigi needs POSIX semaphores",
    "EAGAIN": "cannot start a child process: Resource temporarily unavailable",
    "ENOMEM": "cannot start a child process: Cannot allocate memory",
    "threads": "cannot start a thread",
}


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a line of bash in a folder with a batch of files, and returns the exit code and the output."""
    for number in range(TOTAL):
        (tmp_path / f"{number}.txt").write_text(str(number))
    (tmp_path / "list.txt").write_text("".join(f"{(tmp_path / f'{number}.txt').as_uri()}\n" for number in range(TOTAL)))

    def do(line, **environment):
        variables = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment}
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=variables, check=False)
        output = done.stdout + done.stderr
        assert "Traceback" not in output
        return done.returncode, output

    return do


def outcomes(folder):
    """Return the status of each file in the results of the last run."""
    found = max(folder.glob("dpp-workspace/batches/*/runs/*/results.jsonl"), default=None)
    return [json.loads(line)["status"] for line in found.read_text().splitlines()] if found else []


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full 2>&1", 3),
        ("--json >/dev/full 2>/dev/null", 3),
        ("--json 2>/dev/null | true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_a_run_outlives_its_output(run, tmp_path, seen, program, streams, code):
    words = streams.replace("--json", "--json-lines") if program == "luigi" else streams
    # Luigi prints nothing to standard output but events.
    expected = 0 if program == "luigi" and "--json" not in streams else code
    assert run(f"{COMMANDS[program]} {words}")[0] == expected
    assert outcomes(tmp_path) == ["ok"] * TOTAL
    seen(f"done with {streams.partition(' |')[0]}")


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("workers", [1, TOTAL])
def test_a_run_ends_although_its_parent_ignores_the_ends_of_children(run, tmp_path, program, workers):
    code, output = run(f"trap '' CHLD; {COMMANDS[program]} --workers {workers}")
    assert (code, outcomes(tmp_path)) == (0, ["ok"] * TOTAL)
    assert "WARNING" not in output


@pytest.mark.parametrize("command", ["status", "report --format jsonl", "config"])
def test_a_command_reports_that_its_output_is_lost(run, command):
    assert run("dpp run list.txt --quiet")[0] == 0
    assert run(f"dpp {command} >/dev/full") == (3, "Error: cannot write to standard output: No space left on device\n")
    assert run(f"dpp {command} >&-")[0] == 0
    assert run(f"set -o pipefail; dpp {command} | head -c 0") == (0, "")


PRINTS = """
import sys
from dpp import BaseProcessor

class Prints(BaseProcessor):
    def process(self, file):
        for stream in (sys.stdout, sys.stderr):
            print("\\u2603 \\udce9", file=stream)
"""


@pytest.mark.parametrize(
    "environment",
    ["PYTHONUTF8=0 LC_ALL=C PYTHONCOERCECLOCALE=0", "PYTHONIOENCODING=ascii", "PYTHONIOENCODING=latin-1:strict", "LC_ALL=C.UTF-8"],
)
@pytest.mark.parametrize("program", COMMANDS)
def test_a_step_may_print_what_the_encoding_lacks(run, tmp_path, program, environment):
    (tmp_path / "mine.py").write_text(PRINTS)
    code, output = run(f"{environment} {COMMANDS[program]} --processor mine:Prints --workers 2 >out.txt 2>err.txt && cat out.txt err.txt")
    assert (code, outcomes(tmp_path)) == (0, ["ok"] * TOTAL)
    assert output.count("\\udce9") == 2 * TOTAL


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("program", COMMANDS)
def test_a_machine_that_lacks_something_stops_the_run(run, tmp_path, seen, program, broken):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/sitecustomize.py").write_text(BREAK + BROKEN[broken])
    code, output = run(f"{COMMANDS[program]} --workers 2", PYTHONPATH=str(tmp_path / "broken"))
    assert code == 3
    assert output.count(SAID[broken]) == 1
    assert "failed" not in outcomes(tmp_path)
    assert run(f"{COMMANDS[program]} --workers 2")[0] == 0
    seen(SAID[broken])


@pytest.mark.parametrize("program", COMMANDS)
def test_a_read_only_dev_shm_stops_the_run(run, program):
    if subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("needs user and mount namespaces")
    code, output = run(f"env -u TMPDIR -u TEMP -u TMP unshare -Urm bash -c 'mount -t tmpfs -o ro none /dev/shm && {COMMANDS[program]}'")
    assert code == 3
    assert "writable /dev/shm" in output


@pytest.mark.parametrize("program", COMMANDS)
def test_a_run_in_a_removed_folder_needs_absolute_paths_only(run, tmp_path, program):
    line = COMMANDS[program].replace("list.txt", f"{tmp_path}/list.txt")
    assert run(f"mkdir gone && cd gone && rmdir ../gone && {line} --workspace {tmp_path}/dpp-workspace")[0] == 0
    assert outcomes(tmp_path) == ["ok"] * TOTAL
    code, output = run(f"mkdir gone && cd gone && rmdir ../gone && {line}")
    assert code == 3
    assert "the current folder was removed" in output


@pytest.mark.parametrize("program", COMMANDS)
def test_a_run_needs_no_home_and_no_named_temporary_folder(run, tmp_path, program):
    assert run(f"env -u HOME TMPDIR=/nowhere {COMMANDS[program]}")[0] == 0
    assert outcomes(tmp_path) == ["ok"] * TOTAL


def test_a_machine_without_any_temporary_folder_says_what_to_set(run, tmp_path):
    if subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("needs user and mount namespaces")
    mounts = " && ".join(
        f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}" for folder in ("/tmp", "/var/tmp", tmp_path)
    )
    code, output = run(f"env -u TMPDIR -u TEMP -u TMP unshare -Urm bash -c '{mounts} && cd {tmp_path} && dpp status'")
    assert code == 3
    assert "No usable temporary directory" in output
    assert "set TMPDIR to a folder that can be written" in output


GONE = """
import os, pathlib, shutil, signal
from dpp import BaseProcessor

class Gone(BaseProcessor):
    name = "gone"
    version = "1"
    def process(self, file):
        (batch,) = pathlib.Path("dpp-workspace/batches").iterdir()
        if not pathlib.Path("removed").exists():
            # In this order: another thread may end the process at any moment.
            shutil.rmtree(batch / WHAT, ignore_errors=True)
            pathlib.Path("removed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


REMOVES = """
import shutil
from dpp import BasePreProcessor

class Removes(BasePreProcessor):
    def pre_process(self, file):
        shutil.rmtree("dpp-workspace", ignore_errors=True)
        return file
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("program", COMMANDS)
def test_per_file_tasks_whose_workspace_disappears_stop_with_one_line(run, tmp_path, program, workers):
    (tmp_path / "mine.py").write_text(REMOVES)
    code, output = run(f"{COMMANDS[program]} --pre-processors mine:Removes --chunk-size 1 --workers {workers}")
    lines = [line for line in output.splitlines() if line.startswith(("ERROR", "Error", "Traceback", "RuntimeError"))]
    assert (code, len(lines), "Traceback" in output) == (3, 1, False), output


@pytest.mark.parametrize("what", ["manifest", "runs"])
@pytest.mark.parametrize("program", COMMANDS)
def test_a_run_whose_folder_disappears_is_stopped(run, tmp_path, seen, program, what):
    (tmp_path / "mine.py").write_text(GONE.replace("WHAT", repr(what)))
    code, _ = run(f"{COMMANDS[program]} --processor mine:Gone --chunk-size 5")
    assert code == 3
    assert "failed" not in outcomes(tmp_path)
    seen(f"stopped without its {what}")
