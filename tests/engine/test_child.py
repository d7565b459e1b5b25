"""Tests of child processes, and of how the parent learns about their end."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import pytest
from dpp import EnvironmentStop, FetchError
from dpp.engine import child as child_module
from dpp.engine.child import _descendants, end_with_parent, join_children, run_in_child
from dpp.workspace.atomic import is_alive

from listening import wait_until


def test_what_a_child_does_is_there_when_it_has_finished(tmp_path):
    assert run_in_child((tmp_path / "done").touch) is None
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: os._exit(0), "exited with code 0"),
        (lambda: os._exit(7), "exited with code 7"),
        (lambda: sys.exit(0), "failed with SystemExit: 0"),
        (lambda: 1 / 0, "failed with ZeroDivisionError: division by zero"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL (possibly out of memory)"),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3), f"was killed by signal {signal.SIGRTMIN + 3}"),
        (lambda: signal.raise_signal(signal.SIGINT), "was interrupted"),
    ],
    ids=["exit-0", "exit-7", "sys-exit", "raises", "killed", "nameless", "interrupted"],
)
def test_an_end_before_the_work_was_done_is_told(work, reason):
    ended = run_in_child(work)
    assert (ended.reason, ended.is_stopped) == (reason, False)


def test_where_no_child_can_be_started_the_run_stops():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(EnvironmentStop, match=r"^cannot start a child process: Too many open files; check the limits with ulimit -n"):
            run_in_child(lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_child_that_crashes_leaves_its_stack():
    ended = run_in_child(lambda: ctypes.string_at(0))
    assert ended.reason == "was killed by SIGSEGV"
    assert "test_child.py" in ended.traceback


@pytest.mark.parametrize(
    "error", [EnvironmentStop("the disk is full"), FetchError("gone", "http-404", http_status=404)], ids=lambda error: type(error).__name__
)
def test_an_error_of_dpp_is_raised_in_the_parent(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        run_in_child(fail)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


def test_a_child_that_hangs_is_stopped_with_what_it_started(tmp_path):
    def hang():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        started = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid.new").write_text(str(started.pid))
        (tmp_path / "pid.new").rename(tmp_path / "pid")
        time.sleep(60)

    ended = run_in_child(hang, lambda: "hung" if (tmp_path / "pid").exists() else "")
    assert (ended.reason, ended.is_stopped) == ("hung", True)
    assert "in hang" in ended.traceback
    wait_until(lambda: not is_alive((tmp_path / "pid").read_text()))


@pytest.mark.fault(33)
@pytest.mark.parametrize("end", [lambda: None, lambda: os._exit(1)], ids=["finished", "crashed"])
def test_a_child_that_ends_before_a_process_that_it_forked_is_not_waited_for(tmp_path, end):
    def fork():
        if child := os.fork():
            (tmp_path / "pid").write_text(str(child))
            return end()
        return signal.pause()

    ended = run_in_child(fork)
    child = int((tmp_path / "pid").read_text())
    assert is_alive(str(child))
    os.kill(child, signal.SIGKILL)
    assert ended is None or ended.reason == "exited with code 1"


@pytest.mark.fault(33)
@pytest.mark.parametrize("leave", [threading.Thread, multiprocessing.get_context("fork").Process], ids=["thread", "process"])
def test_a_thread_or_process_that_is_left_running_is_stopped_with_the_child(tmp_path, caplog, monkeypatch, leave):
    def start():
        left = leave(target=threading.Event().wait)
        left.start()
        (tmp_path / "pid").write_text(str(getattr(left, "pid", os.getpid())))

    monkeypatch.setattr(child_module, "LEAVE_SECONDS", 0.1)
    assert run_in_child(start) is None
    assert "a plugin left a thread or a process running" in caplog.text
    wait_until(lambda: not is_alive((tmp_path / "pid").read_text()))


def test_an_executor_that_was_not_shut_down_ends_with_the_child(caplog, monkeypatch):
    monkeypatch.setattr(child_module, "LEAVE_SECONDS", 60)
    executors = []

    def compute():
        executors.append(ProcessPoolExecutor(1))
        assert executors[0].submit(abs, -1).result() == 1

    assert run_in_child(compute) is None
    assert "left a thread or a process running" not in caplog.text


def test_a_process_that_has_ended_by_the_time_its_children_are_looked_for_has_none():
    # Linux gives no process an id that high.
    assert _descendants(2**22 + 1) == []


@contextmanager
def interrupted_at_its_end():
    """Raise KeyboardInterrupt at the end of the block."""
    yield
    raise KeyboardInterrupt


def test_an_interrupt_right_after_the_start_of_a_child_ends_it():
    with pytest.raises(KeyboardInterrupt):
        run_in_child(lambda: time.sleep(60), guard=interrupted_at_its_end())
    assert not multiprocessing.active_children()


def test_a_process_whose_parent_has_ended_before_it_asked_ends_too():
    told, tell = os.pipe()

    def leave_a_child():
        parent = os.getpid()
        if not os.fork():
            wait_until(lambda: os.getppid() != parent)
            end_with_parent(signal.SIGTERM, parent)
            os.write(tell, b"went on")
        os._exit(0)

    run_in_child(leave_a_child)
    os.close(tell)
    with open(told, "rb") as stream:
        assert stream.read() == b""


@pytest.mark.parametrize("refusals", [2, 1000])
def test_a_system_without_a_process_at_the_moment_is_waited_for(monkeypatch, refusals):
    def fork():
        seen.append(1)
        if len(seen) <= refusals:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return really_fork()

    seen, really_fork = [], os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(child_module, "FORK_PAUSES", (0.01, 0.01, 0.01))
    if refusals == 2:
        assert run_in_child(lambda: None) is None
    else:
        with pytest.raises(EnvironmentStop, match="cannot start a child process: Resource temporarily unavailable"):
            run_in_child(lambda: None)
    assert len(seen) == min(refusals + 1, 4)


def test_a_child_whose_exit_code_another_module_has_read_is_not_waited_for():
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    child.start()
    os.waitpid(child.pid, 0)
    began = time.monotonic()
    join_children(60)
    assert time.monotonic() - began < 30
    multiprocessing.process._children.discard(child)
