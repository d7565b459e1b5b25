"""Tests of the confinement of child processes: their group, their pauses, their core dumps."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dpp.engine.child import run_in_child
from dpp.workspace.atomic import is_alive

from listening import wait_until

# A shell starts a job in a group of its own; the kernel stops no group that has no parent in its session (POSIX, orphaned process group).
SHELL = "import subprocess, sys; sys.exit(subprocess.Popen([sys.executable, 'job.py'], process_group=0).wait())"
JOB = """
import os, pathlib, time
from dpp.engine.child import run_in_child

def work():
    pathlib.Path("child.new").write_text(f"{os.getppid()} {os.getpid()}")
    os.rename("child.new", "child")
    while not os.path.exists("go"):
        time.sleep(0.01)

assert run_in_child(work) is None
"""


def state(pid: str) -> str:
    """Return the state of a process (proc(5)): T if it is stopped."""
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]


def test_a_stop_from_the_terminal_pauses_the_child_too(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    with subprocess.Popen([sys.executable, "-c", SHELL], cwd=tmp_path, start_new_session=True) as shell:
        wait_until((tmp_path / "child").exists)
        parent, child = (tmp_path / "child").read_text().split()
        for _ in range(2):
            os.killpg(int(parent), signal.SIGTSTP)
            wait_until(lambda: state(parent) == state(child) == "T")
            os.killpg(int(parent), signal.SIGCONT)
            wait_until(lambda: "T" not in state(parent) + state(child))
        (tmp_path / "go").touch()
        assert shell.wait() == 0


def test_the_child_has_its_own_group_and_is_not_stopped_by_a_terminal():
    group = os.getpgrp()

    def look():
        assert os.getpgrp() == os.getpid() != group
        assert [signal.getsignal(number) for number in (signal.SIGTTIN, signal.SIGTTOU)] == [signal.SIG_IGN] * 2

    assert run_in_child(look) is None


def test_what_a_child_that_crashed_has_started_ends(tmp_path):
    def crash():
        (tmp_path / "pid").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        os._exit(1)

    assert run_in_child(crash)
    wait_until(lambda: not is_alive((tmp_path / "pid").read_text()))


@pytest.fixture
def core_dumps(tmp_path, monkeypatch):
    """Allow core dumps, and make their usual folder the current one."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    monkeypatch.chdir(tmp_path)
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)


@pytest.mark.fault(36)
@pytest.mark.usefixtures("core_dumps")
@pytest.mark.parametrize(
    ("work", "look"),
    [
        (lambda: time.sleep(60), lambda: "hung"),
        (lambda: ctypes.string_at(0), str),
        (lambda: subprocess.run(["sh", "-c", "kill -SEGV $$"], check=True), str),
    ],
    ids=["hangs", "crashes", "starts a program that crashes"],
)
def test_a_child_writes_no_core_dump(tmp_path, work, look, seen, request):
    ended = run_in_child(work, look)
    assert ended
    assert list(tmp_path.glob("*core*")) == []
    seen(f"a step that {request.node.callspec.id}: no core file")
