"""Tests of the lock on a batch: exclusive or shared, and released when its holder ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest
from dpp import EnvironmentStop, LockedError
from dpp.workspace.locks import BatchLock, FolderLock

from listening import wait_until

FORK = """
import ctypes, os, pathlib, signal, sys
from dpp.workspace.locks import BatchLock, kept_in_fork
lock = BatchLock(pathlib.Path(sys.argv[1]))
lock.exclusive()
def kept():
    with kept_in_fork():
        return os.fork()
child = {"python": os.fork, "c": ctypes.CDLL(None).fork, "kept": kept}[sys.argv[2]]()
if not child:
    signal.pause()
if sys.argv[3] == "release":
    lock.release()
print(child, flush=True)
os._exit(0)
"""
HOLD = """
import pathlib, sys
from dpp.workspace.locks import BatchLock
lock = BatchLock(pathlib.Path(sys.argv[1]))
lock.exclusive()
print("held", flush=True)
input()
"""


@pytest.fixture
def locks(tmp_path):
    made = [BatchLock(tmp_path / "batch" / "lock") for _ in range(3)]
    yield made
    for lock in made:
        lock.release()


def test_one_holds_it_alone(locks):
    one, other, _ = locks
    one.exclusive()
    assert [other.try_exclusive(), other.try_shared(), other.try_alone()] == [False, False, False]


def test_who_is_locked_out_is_told_by_whom(locks):
    locks[0].exclusive()
    with pytest.raises(LockedError, match=rf"^this batch is being run by pid {os.getpid()} on \S+ since \d{{4}}-.*; wait for it to end"):
        locks[1].exclusive()


def test_a_holder_nobody_knows_is_somebody(locks):
    assert str(locks[0].held_error()).startswith("this batch is being run by another process; ")


def test_a_holder_that_is_no_more_has_left_something_running(locks, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    holder = f"pid {dead.pid} on {socket.gethostname()} since 2026-01-01T00:00:00+00:00"
    (tmp_path / "batch" / "lock").write_text(holder)
    assert str(locks[0].held_error()).startswith(f"this batch is being run by a child process of {holder}; ")


def test_a_holder_on_another_machine_is_named_at_once(locks, tmp_path):
    (tmp_path / "batch" / "lock").write_text("pid 1 on elsewhere since 2026-01-01T00:00:00+00:00")
    assert "run by pid 1 on elsewhere since" in str(locks[0].held_error())


def test_a_lock_goes_with_its_object(tmp_path):
    lock = BatchLock(tmp_path / "lock")
    lock.exclusive()
    del lock
    assert BatchLock(tmp_path / "lock").try_exclusive()


def test_a_new_holder_takes_the_place_of_a_longer_name(locks, tmp_path):
    (tmp_path / "batch" / "lock").write_text("x" * 5000)
    locks[0].exclusive()
    text = (tmp_path / "batch" / "lock").read_text()
    assert text.startswith(f"pid {os.getpid()} on ")
    assert "x" * 10 not in text


def test_several_share_it_and_nobody_has_it_alone_then(locks):
    one, other, third = locks
    assert (one.try_shared(), other.try_shared()) == (True, True)
    assert third.try_exclusive() is False


def test_one_that_held_it_alone_can_let_others_in(locks):
    one, other, _ = locks
    one.exclusive()
    assert one.try_shared()
    assert other.try_shared()


def test_it_is_free_when_nobody_holds_it(locks):
    assert locks[0].try_alone()


def test_it_dies_with_its_holder(locks, tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "batch" / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=f"run by pid {holder.pid} on"):
        locks[0].exclusive()
    holder.kill()
    holder.communicate()
    locks[0].exclusive()


def test_a_released_lock_can_be_taken(tmp_path):
    one, other = BatchLock(tmp_path / "lock"), BatchLock(tmp_path / "lock")
    one.exclusive()
    one.release()
    assert other.try_exclusive()
    other.release()


def test_a_lock_that_can_not_be_made_stops_the_run(tmp_path):
    (tmp_path / "batch").write_text("")
    with pytest.raises(EnvironmentStop, match="cannot write"):
        BatchLock(tmp_path / "batch" / "lock")


def fork_with_lock(path, how, end):
    """Take the lock in a process that forks a child and ends; return the child's process id."""
    with subprocess.Popen([sys.executable, "-c", FORK, path, how, end], stdout=subprocess.PIPE) as parent:
        return int(parent.stdout.readline())


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("how", "end", "is_free"),
    [
        ("python", "exit", True),
        ("python", "release", True),
        ("c", "release", True),
        ("c", "exit", False),
        ("kept", "release", True),
        ("kept", "exit", False),
    ],
)
def test_a_process_that_was_forked_keeps_a_lock_only_if_it_shall(locks, tmp_path, how, end, is_free):
    child = fork_with_lock(tmp_path / "batch" / "lock", how, end)
    try:
        assert wait_until(lambda: locks[0].try_exclusive() == is_free)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_wait_for_a_download_can_be_given_up_and_leaves_nothing_open(tmp_path):
    def give_up(seconds):
        raise TimeoutError

    before = os.listdir("/proc/self/fd")
    with FolderLock(str(tmp_path / "f")), pytest.raises(TimeoutError), FolderLock(str(tmp_path / "f"), give_up):
        pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["fstat", "listdir"])
def test_a_folder_that_its_file_server_has_lost_stops_the_run(tmp_path, monkeypatch, name):
    def refuse(_descriptor):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as broken:
        broken.setattr(os, name, refuse)
        with pytest.raises(EnvironmentStop, match=r"cannot write .*stale file handle"), FolderLock(str(tmp_path / "f")):
            pass
    with FolderLock(str(tmp_path / "f")) as is_empty:
        assert is_empty
