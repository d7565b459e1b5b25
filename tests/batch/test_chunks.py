"""Tests of chunks: one process at a time runs each of them, whatever its steps leave behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from contextlib import closing, suppress

import pytest
from dpp import ConfigurationError, EnvironmentStop, Settings
from dpp.batch.batch import open_run
from dpp.batch.chunks import ChunkRunner
from dpp.plugins.registry import load_plugins
from dpp.workspace.atomic import is_alive

from listening import wait_until

FORK = multiprocessing.get_context("fork")
STEP = """
import os, pathlib, signal, time
from dpp import BaseProcessor

class Noted(BaseProcessor):
    folder: str
    wait_for: str = ""

    def process(self, file):
        with open(f"{self.folder}/seen", "a") as stream:
            stream.write(f"{file.id}\\n")
        while self.wait_for and not pathlib.Path(self.wait_for).exists():
            time.sleep(0.01)

class Daemon(Noted):
    def process(self, file):
        if not (daemon := os.fork()):
            os.setsid()
            signal.pause()
        pathlib.Path(self.folder, "new").write_text(str(daemon))
        os.rename(f"{self.folder}/new", f"{self.folder}/daemon")
        super().process(file)
"""


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Return a function that starts a run of files, whose processor notes each file that it gets."""
    (tmp_path / "chunk_steps.py").write_text(STEP)
    monkeypatch.syspath_prepend(tmp_path)

    def start(count, chunk_size=100, step="Noted", **options):
        for number in range(count):
            (tmp_path / f"f{number:03d}").write_text(str(number))
        files = [{"url": (tmp_path / f"f{number:03d}").as_uri()} for number in range(count)]
        options = {f"chunk_steps:{step}": {"folder": str(tmp_path), **options}}
        settings = Settings(workspace=tmp_path / "w", processor=f"chunk_steps:{step}", options=options, chunk_size=chunk_size)
        run = open_run(files, settings, load_plugins())
        runs.append(run)
        return run

    runs = []
    yield start
    for run in runs:
        run.release()


def run_chunk(run, index=0):
    """Run a chunk; for a process of its own."""
    with closing(ChunkRunner(run)) as runner, suppress(EnvironmentStop):
        runner.run_all(index)


def started(run, index=0):
    process = FORK.Process(target=run_chunk, args=(run, index))
    process.start()
    return process


def processed(tmp_path):
    return (tmp_path / "seen").read_text().split() if (tmp_path / "seen").exists() else []


@pytest.mark.fault(42)
def test_a_chunk_that_five_processes_get_at_once_is_run_by_one(begin, tmp_path, seen):
    run = begin(200)
    processes = [started(run) for _ in range(5)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 5
    assert Counter(Counter(processed(tmp_path)).values()) == {1: 200}
    assert run.finish().ok == 200
    seen("five processes, 200 files: each once")


def test_a_process_that_finds_its_chunk_taken_runs_the_others(begin, tmp_path):
    run = begin(40, chunk_size=10, wait_for=str(tmp_path / "go"))
    one = started(run)
    wait_until(lambda: processed(tmp_path))
    with closing(ChunkRunner(run)) as runner:
        assert runner.run(0) == "busy"
        (tmp_path / "go").touch()
        runner.run_all(0)
    one.join()
    assert Counter(Counter(processed(tmp_path)).values()) == {1: 40}
    assert run.finish().ok == 40


@pytest.mark.fault(43)
def test_what_a_step_has_forked_does_not_keep_the_chunk_of_a_killed_process(begin, tmp_path, seen):
    run = begin(1, step="Daemon", wait_for=str(tmp_path / "go"))
    one = started(run)
    wait_until((tmp_path / "daemon").exists)
    daemon = (tmp_path / "daemon").read_text()
    one.kill()
    one.join()
    assert is_alive(daemon)
    (tmp_path / "go").touch()
    lock = run.workfile.chunk_lock(0)
    assert lock.try_exclusive()
    lock.release()
    os.kill(int(daemon), signal.SIGKILL)
    seen("a daemon lives on: the chunk is free")


def test_what_stops_the_run_elsewhere_ends_a_chunk(begin, tmp_path):
    run = begin(3, wait_for=str(tmp_path / "never"))
    process = FORK.Process(target=lambda: ChunkRunner(run).run(0))
    process.start()
    wait_until(lambda: processed(tmp_path))
    run.stop(EnvironmentStop("the disk is full"))
    process.join()
    assert (process.exitcode, run.chunk_ledger(0).exists()) == (1, False)


def test_a_chunk_of_a_run_that_has_ended_is_an_error(begin):
    run = begin(2)
    run_chunk(run)
    with closing(ChunkRunner(run)) as runner:
        run.finish()
        assert runner.run(0) == "already"
        run.chunk_ledger(0).unlink()
        with pytest.raises(ConfigurationError, match="has ended or was replaced"):
            runner.run(0)
