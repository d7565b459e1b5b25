"""Tests of how chunks are submitted: what is lost is submitted again, up to a limit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dpp import BaseExecutor, ConfigurationError, EnvironmentStop
from dpp.batch.batch import open_run
from dpp.batch.folder import RunFolder
from dpp.executors.coordinator import MAX_LOSSES, Coordinator
from dpp.executors.work import close_runners, work
from dpp.plugins.registry import load_plugins
from dpp.settings import make_settings

FILES = 6
LOST_AFTER = 1.0
# Longer than a busy machine stops a thread.
PATIENT = 4.0


class Unreliable(BaseExecutor):
    """Do something to each message instead of delivering it."""

    name = "unreliable"
    workers: int = 2
    messages: ClassVar[list[tuple[Any, ...]]] = []

    @contextmanager
    def open(self) -> Iterator[Executor]:
        with ThreadPoolExecutor(self.workers) as pool:
            yield Deliveries(pool, self.deliver)
        close_runners()

    def deliver(self, pool, function, *arguments):
        raise NotImplementedError


class Deliveries:
    def __init__(self, pool, deliver):
        self._pool = pool
        self._deliver = deliver

    def submit(self, function, *arguments):
        Unreliable.messages.append(arguments)
        return self._deliver(self._pool, function, *arguments)


class Delivers(Unreliable):
    """Deliver each message."""

    def deliver(self, pool, function, *arguments):
        return pool.submit(function, *arguments)


class Forgets(Unreliable):
    """Lose the first message of each chunk."""

    def deliver(self, pool, function, *arguments):
        return pool.submit(function, *arguments) if Unreliable.messages.count(arguments) > 1 else Future()


class LosesAll(Unreliable):
    """Lose all messages."""

    def deliver(self, pool, function, *arguments):
        return Future()


class Doubles(Unreliable):
    """Deliver each message three times, and report the end of the last one."""

    def deliver(self, pool, function, *arguments):
        return [pool.submit(function, *arguments) for _ in range(3)][-1]


class KeepsWaiting(Unreliable):
    """Lose the first message of chunk 0 after a sign of life, and deliver the second one while the only worker has another chunk."""

    def deliver(self, pool, function, *arguments):
        folder, index, _ = arguments
        if index:
            return pool.submit(self.work_long, function, *arguments)
        if Unreliable.messages.count(arguments) > 1:
            return pool.submit(function, *arguments)
        RunFolder(Path(folder)).workfile.beat_for(0)
        return Future()

    def work_long(self, function, folder, index, token):
        beat_until(lambda: len(Unreliable.messages) == 3, folder, index, 60.0)
        beat_until(lambda: False, folder, index, 1.5 * PATIENT)
        return function(folder, index, token)


def beat_until(is_met, folder, index, seconds):
    """Give signs of life for a chunk until a condition is met, for some seconds at most."""
    until = time.monotonic() + seconds
    while not is_met() and time.monotonic() < until:
        RunFolder(Path(folder)).workfile.beat_for(index)
        time.sleep(0.1)


class Lies(Unreliable):
    """Report that a chunk is done the first time it is submitted."""

    def deliver(self, pool, function, *arguments):
        if Unreliable.messages.count(arguments) > 1:
            return pool.submit(function, *arguments)
        future = Future()
        future.set_result("done")
        return future


class Cancels(Unreliable):
    """Cancel each message, or fail with an error of its own."""

    def deliver(self, pool, function, *arguments):
        future = Future()
        if len(Unreliable.messages) % 2:
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_exception(OSError("the connection was reset"))
        return future


@pytest.fixture
def begin(tmp_path):
    """Return a function that starts a run of six files in chunks of three."""

    def start(**settings):
        (tmp_path / "files").mkdir(exist_ok=True)
        for number in range(FILES):
            (tmp_path / f"files/f{number}").write_text(str(number))
        common = {"workspace": tmp_path / "w", "executor": "processes", "chunk_size": 3, "lost_after": LOST_AFTER}
        run = open_run(str(tmp_path / "files"), make_settings(common | settings), load_plugins())
        runs.append(run)
        return run

    runs = []
    Unreliable.messages.clear()
    yield start
    for run in runs:
        run.release()


def coordinate(run, executor):
    seen = []
    Coordinator(run, executor, lambda done, failed, total: seen.append((done, failed, total))).run()
    assert seen[-1] == (FILES, 0, FILES)


@pytest.mark.fault(43)
@pytest.mark.parametrize("executor", [Forgets, Doubles, Lies])
def test_a_message_is_only_a_hint(begin, executor, seen):
    run = begin()
    coordinate(run, executor())
    assert (run.finish().ok, len(list(run.results()))) == (FILES, FILES)
    seen(f"an executor that {executor.__doc__.lower()[:-1]}: all ok")


@pytest.mark.fault(43)
def test_a_chunk_that_was_lost_may_wait_for_a_worker(begin, seen):
    run = begin(lost_after=PATIENT)
    coordinate(run, KeepsWaiting(workers=1))
    assert [index for _, index, _ in Unreliable.messages] == [0, 1, 0]
    seen("lost once, then waiting while others work: submitted twice")


@pytest.mark.fault(43)
@pytest.mark.parametrize("executor", [LosesAll, Cancels])
def test_what_is_lost_five_times_in_a_row_stops_the_run(begin, executor, seen):
    run = begin()
    with pytest.raises(EnvironmentStop, match=r"^chunk 0 was lost 5 times in a row \(no worker has run it\); the last time, .*Fix this"):
        coordinate(run, executor())
    assert max(map(Unreliable.messages.count, Unreliable.messages)) == MAX_LOSSES
    assert run.conclude()[1] == 3
    seen("lost five times: exit code 3")


@pytest.mark.fault(44)
def test_an_error_of_a_worker_ends_the_run_with_its_exit_code(begin, seen):
    run = begin()
    info = run.info.model_copy(update={"mark": "another"})
    run._info = info
    with pytest.raises(ConfigurationError, match="does not see workspace"):
        coordinate(run, Doubles())
    assert "does not see workspace" in run.why_stopped()
    assert run.conclude()[1] == 2
    seen("no workspace: exit code 2")


@pytest.mark.fault(43)
def test_another_coordinator_continues_a_run_that_one_has_stopped(begin, seen):
    run = begin()
    run.workfile.interrupt()
    coordinate(run, Delivers())
    seen("a run that one process stopped: another continues it at once")


def test_a_batch_whose_chunks_still_run_does_not_begin_again(begin):
    run = begin()
    lock = run.workfile.chunk_lock(0)
    assert lock.try_exclusive()
    run.release()
    with pytest.raises(EnvironmentStop, match=rf"^this batch is being run by pid {os.getpid()} on "):
        begin()
    lock.release()
    assert begin().number == run.number + 1


def test_an_executor_with_a_folder_that_is_gone_says_so(begin, tmp_path):
    with pytest.raises(ConfigurationError, match=r"does not see workspace .*; all workers need the workspace at the same path"):
        work(str(tmp_path / "w/batches/none/runs/1"), 0, "mark")
    close_runners()


def test_a_small_batch_is_split_for_an_executor(begin):
    assert [chunk.size for chunk in begin(chunk_size=0).workfile.chunks()] == [FILES]
    settings = make_settings({"executor": "processes"})
    assert [settings.chunk_size_for(total, 4) for total in (1, 4, 6, 20, 10_000)] == [1, 1, 2, 5, 1250]
