"""Tests of chunk runners: what ends them, and a chunk that they run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from dpp.batch.batch import open_run
from dpp.executors import work as work_module
from dpp.executors.work import ChunkLost, close_runners, work
from dpp.plugins.registry import load_plugins
from dpp.settings import make_settings
from dpp.workspace.atomic import is_alive

from listening import wait_until

STEP = """
import pathlib, time
from dpp import BaseProcessor

class Waits(BaseProcessor):
    folder: str

    def process(self, file):
        pathlib.Path(self.folder, "began").touch()
        while not pathlib.Path(self.folder, "go").exists():
            time.sleep(0.01)
"""
REQUEST = """
import sys
from dpp.executors.work import work
work(sys.argv[1], 0, sys.argv[2])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of one chunk, whose only file waits in its processor."""
    (tmp_path / "runner_steps.py").write_text(STEP)
    (tmp_path / "file").touch()
    monkeypatch.syspath_prepend(tmp_path)
    processor = "runner_steps:Waits"
    settings = {"workspace": tmp_path / "w", "executor": "processes", "processor": processor, "lost_after": 2.0}
    values = settings | {"options": {processor: {"folder": str(tmp_path)}}}
    made = open_run([{"url": (tmp_path / "file").as_uri()}], make_settings(values), load_plugins())
    made.workfile.beat()
    yield made
    (tmp_path / "go").touch()
    made.release()
    close_runners()
    sys.modules.pop("runner_steps", None)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


def submit(pool, run):
    return pool.submit(work, str(run.folder), 0, run.info.mark)


def holder(run):
    """Return the id of the process that runs the chunk."""
    return run.workfile.chunk_holder(0).split()[1]


def is_free(run):
    lock = run.workfile.chunk_lock(0)
    free = lock.try_alone()
    lock.release()
    return free


def beat_until(run, over):
    """Show that the coordinator lives, until a condition holds."""
    stop = threading.Event()

    def beat():
        while not stop.wait(0.2):
            run.workfile.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    wait_until(over)
    stop.set()
    thread.join()


@pytest.mark.fault(45)
@pytest.mark.parametrize("end", ["interrupt", "silence", "SIGTERM", "new run"])
def test_a_chunk_ends_with_its_coordinator(run, pool, tmp_path, end, seen):
    future = submit(pool, run)
    beat_until(run, (tmp_path / "began").exists)
    if end == "interrupt":
        run.workfile.interrupt()
    elif end == "SIGTERM":
        os.kill(int(holder(run)), signal.SIGTERM)
    elif end == "new run":
        (run.workfile.folder / "plan.json").unlink()
    if end != "silence":
        beat_until(run, future.done)
    with pytest.raises(ChunkLost, match=r"the process of chunk 0 on \S+ was stopped"):
        future.result()
    assert is_free(run)
    assert not run.chunk_ledger(0).exists()
    seen(f"{end}: the chunk ends")


@pytest.mark.fault(45)
def test_a_runner_ends_with_the_process_that_has_started_it(run, tmp_path, seen):
    command = [sys.executable, "-c", REQUEST, str(run.folder), run.info.mark]
    worker = os.posix_spawn(sys.executable, command, os.environ)
    beat_until(run, (tmp_path / "began").exists)
    runner = holder(run)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    wait_until(lambda: not is_alive(runner) and is_free(run))
    seen("worker killed: its runner ends")


def test_runners_are_used_again_in_their_run_only(run, pool, tmp_path):
    future = submit(pool, run)
    beat_until(run, (tmp_path / "began").exists)
    (tmp_path / "go").touch()
    assert future.result() == "done"
    (first,) = work_module._idle
    assert submit(pool, run).result() == "already"
    assert work_module._idle == [first]
    assert work_module._idle_runner("another run") is None
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not first.is_alive())
    assert submit(pool, run).result() == "already"
    assert first not in work_module._idle
