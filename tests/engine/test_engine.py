"""Tests of many files that run through one pipeline at the same time."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest
from dpp import BasePreProcessor, BaseProcessor, EnvironmentStop, FileData, Settings
from dpp.engine import engine as module
from dpp.engine.engine import Engine
from dpp.engine.pipeline import Pipeline
from dpp.engine.wear import Wear
from dpp.plugins.registry import registry
from dpp.plugins.steps import ConfiguredStep, Steps
from dpp.workspace.ledger import Ledger, read_ledger

import http_site
from listening import wait_until

PATIENCE = 60


@pytest.fixture
def make(tmp_path):
    """Return a function that makes an engine around a function that processes a file; ``engine.rows`` reads its ledger."""
    made = []

    def engine(process=lambda file: file.id, pre_process=None, **settings):
        processor = type("Do", (BaseProcessor,), {"process": lambda self, file: process(file)})
        pre = [type("Pre", (BasePreProcessor,), {"pre_process": lambda self, file: pre_process(file)})] if pre_process else []
        steps = Steps([ConfiguredStep("pre-processor", cls, {}) for cls in pre], ConfiguredStep("processor", processor, {}))
        settings = Settings(**{"workspace": tmp_path / "ws", "attempts": 1, **settings})
        pipeline = Pipeline(settings, registry(), f"run/{len(made)}", steps)
        path = tmp_path / f"ledger{len(made)}.jsonl"
        ledger = Ledger(path)
        made.append((pipeline, ledger))
        one = Engine(pipeline, ledger, Wear())
        one.rows = lambda: list(read_ledger(path.with_name(path.name + ".open")))
        return one

    yield engine
    for pipeline, ledger in made:
        pipeline.close()
        ledger.close()


def files(site, count):
    return [FileData(url=site.add(f"/f{number}", f"content {number}")) for number in range(count)]


def test_each_file_gets_one_row(site, make):
    given = [*files(site, 40), FileData(url=site.url + "/gone")]
    engine = make()
    engine.run(iter(given))
    assert Counter(row.id for row in engine.rows()) == Counter(file.id for file in given)
    assert {row.id for row in engine.rows() if not row.ok} == {"gone"}


def test_no_files_are_no_rows(make):
    engine = make()
    engine.run([])
    assert engine.rows() == []


def test_files_that_are_complete_are_recalled_and_not_processed_again(site, make):
    given = files(site, 5)
    make().run(given[:3])
    site.forget()
    again = make()
    again.run(given)
    assert sorted((row.id, row.cached) for row in again.rows()) == [("f0", True), ("f1", True), ("f2", True), ("f3", False), ("f4", False)]
    assert site.counts() == {"/f3": 1, "/f4": 1}


def test_a_file_that_fails_stops_no_other(site, make):
    def process(file):
        if file.id in ("f2", "f5"):
            raise ValueError(file.id)
        return file.id

    engine = make(process)
    engine.run(files(site, 8))
    assert {row.id for row in engine.rows() if not row.ok} == {"f2", "f5"}
    assert len(engine.rows()) == 8


ONE_OF_EACH = {"download_threads": 1, "download_queue_size": 1, "pre_processing_queue_size": 1, "processing_limit": 1}


def reached_while_held(engine, given, go, seen, count):
    """Run an engine whose processor waits for ``go``; return how many files started before it got blocked."""
    running = threading.Thread(target=engine.run, args=(given,))
    running.start()
    wait_until(lambda: len(seen) >= count)
    assert not go.wait(0.3)
    reached = len(seen)
    go.set()
    running.join(PATIENCE)
    return reached


def test_a_slow_processor_stops_downloads(site, make):
    """There is one file in each place: processing, waiting, pre-processing, waiting, downloading."""
    go = threading.Event()
    engine = make(lambda file: go.wait(PATIENCE), lambda file: file, **ONE_OF_EACH)
    assert reached_while_held(engine, files(site, 20), go, site.requests, 5) == 5
    assert len(engine.rows()) == 20


@pytest.mark.parametrize(("setting", "more"), [("download_queue_size", 3), ("pre_processing_queue_size", 3), ("processing_limit", 3)])
def test_queues_are_as_long_as_the_settings_say(site, make, setting, more):
    go = threading.Event()
    engine = make(lambda file: go.wait(PATIENCE), lambda file: file, **{**ONE_OF_EACH, setting: 1 + more})
    assert reached_while_held(engine, files(site, 20), go, site.requests, 5 + more) == 5 + more


def test_the_source_of_files_is_not_read_ahead(site, make):
    go = threading.Event()
    taken = []
    engine = make(lambda file: go.wait(PATIENCE), lambda file: file, **ONE_OF_EACH)
    given = (taken.append(file) or file for file in files(site, 50))
    assert reached_while_held(engine, given, go, taken, 5) == 5


@pytest.mark.parametrize("limit", [1, 3])
def test_as_many_files_are_processed_at_once_as_the_limit_says(site, make, limit):
    together = threading.Barrier(limit)
    lock = threading.Lock()
    now, most = set(), []

    def process(file):
        with lock:
            now.add(file.id)
            most.append(len(now))
        together.wait(PATIENCE)
        with lock:
            now.discard(file.id)

    make(process, processing_limit=limit).run(files(site, limit * 4))
    assert max(most) == limit


class Crowd:
    """Count the callers that are inside at the same time."""

    def __init__(self):
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def pass_through(self, result, seconds):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self.lock:
            self.now -= 1
        return result


@pytest.mark.parametrize("seconds", [0, 0.004])
def test_one_file_is_pre_processed_at_once_and_as_many_processed_as_the_limit_says(site, make, seconds):
    prepared, processed = Crowd(), Crowd()
    engine = make(
        lambda file: processed.pass_through(file.id, seconds), lambda file: prepared.pass_through(file, seconds), processing_limit=2
    )
    engine.run(files(site, 40))
    assert len(engine.rows()) == 40
    assert (prepared.most, processed.most <= 2) == (1, True)


def test_a_slow_server_is_asked_for_many_files_at_once(site, make):
    together = threading.Barrier(8)
    urls = [site.script(f"/f{n}", lambda handler: (together.wait(PATIENCE), handler.send(200, b"x"))) for n in range(8)]
    make(download_threads=8).run(FileData(url=url) for url in urls)
    assert not together.broken


def test_a_server_that_is_a_little_slow_each_time_is_asked_for_several_files_at_once(site, make):
    """The server has files until several requests were in progress at once."""
    # On a busy machine the thread seems to be busy for longer, so the number of files that this takes is not fixed.
    at_once, most, lock = [], [0], threading.Lock()
    deadline = time.monotonic() + PATIENCE

    def answer(handler):
        with lock:
            at_once.append(handler)
            most.append(len(at_once))
        # Shorter than the interval in which the engine looks at its threads.
        time.sleep(0.004)
        with lock:
            at_once.remove(handler)
        handler.send(200, b"x")

    numbers = itertools.takewhile(lambda _: max(most) < 2 and time.monotonic() < deadline, itertools.count())
    make(download_threads=4).run(FileData(url=site.script(f"/f{n}", answer)) for n in numbers)
    assert max(most) > 1


def test_a_fast_server_is_served_by_few_threads(make, tmp_path):
    (tmp_path / "a").write_text("a")
    names = set()
    given = [FileData(url=f"file://{tmp_path}/a", id=str(n)) for n in range(30)]
    make(lambda file: names.add(threading.current_thread().name), download_threads=64).run(given)
    assert len(names) < 30


def test_an_environment_stop_ends_the_run_and_leaves_the_rest(site, make):
    def process(file):
        if file.id == "f3":
            raise EnvironmentStop("the disk is full")
        return file.id

    taken = []
    engine = make(process, processing_limit=1, download_threads=1, download_queue_size=1, pre_processing_queue_size=1)
    with pytest.raises(EnvironmentStop, match="the disk is full"):
        engine.run(taken.append(file) or file for file in files(site, 200))
    assert [row.id for row in engine.rows()] == ["f0", "f1", "f2"]
    assert len(taken) < 20


def test_the_first_of_many_stops_is_raised(site, make):
    first = threading.Event()

    def process(file):
        if file.id == "f0":
            first.set()
            raise EnvironmentStop("first")
        first.wait(PATIENCE)
        wait_until(lambda: engine._fault.error)
        raise EnvironmentStop("later")

    engine = make(process, processing_limit=4)
    with pytest.raises(EnvironmentStop, match="first"):
        engine.run(files(site, 4))


def interrupted(given, before=lambda: None):
    yield from given
    before()
    raise KeyboardInterrupt


@pytest.fixture
def grace(monkeypatch):
    """Give files in flight an hour to end after an interrupt, unless a test sets another limit."""
    monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)


class Held:
    """A processor that blocks on the first file until the engine has seen an interrupt."""

    def __init__(self):
        self.started = threading.Event()
        self.go = threading.Event()

    def process(self, file):
        self.started.set()
        self.go.wait(PATIENCE)
        return "finished"

    def until_stopped(self, engine):
        """Wait until a file is being processed, and release it once the engine stops."""
        assert self.started.wait(PATIENCE)
        threading.Thread(target=lambda: engine._fault.stop.wait(PATIENCE) and self.go.set()).start()


@pytest.mark.parametrize("count", [1, 8])
def test_an_interrupt_lets_running_files_finish_and_starts_no_more(site, make, grace, count):
    held = Held()
    engine = make(held.process, processing_limit=1, pre_processing_queue_size=1)
    with pytest.raises(KeyboardInterrupt):
        engine.run(interrupted(files(site, count), lambda: held.until_stopped(engine)))
    assert [row.result for row in engine.rows()] == ["finished"]


def engine_threads():
    """Return the names of the threads of engines."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("download-", "pre-process-", "process-"))]


def test_an_interrupt_waits_for_no_other_attempt(site, make, grace):
    url = site.script("/busy", http_site.status(503, Retry_After="600"))
    engine = make(attempts=2, retry_after_max=600)
    with pytest.raises(KeyboardInterrupt):
        engine.run(interrupted([FileData(url=url)], lambda: wait_until(lambda: "/busy" in site.counts())))
    assert engine.rows() == []
    wait_until(lambda: not engine_threads())


@pytest.mark.parametrize("count", [1, 12])
def test_an_interrupt_waits_no_longer_than_the_grace_for_what_hangs(site, make, monkeypatch, count):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    held, began = Held(), []
    engine = make(held.process, processing_limit=1, pre_processing_queue_size=1)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.run(interrupted(files(site, count), lambda: (held.started.wait(PATIENCE), began.append(time.monotonic()))))
        took = time.monotonic() - began[0]
        # The hanging thread cannot be ended.
        assert engine.rows() == []
    finally:
        held.go.set()
    assert took > 0.4
    wait_until(lambda: not engine_threads())


def test_a_thread_that_never_started_is_not_waited_for(make, site, monkeypatch):
    start = threading.Thread.start

    def interrupted_start(thread):
        if thread.name == "process-1":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    monkeypatch.setattr(module, "GRACE_SECONDS", 3600.0)
    with pytest.raises(KeyboardInterrupt):
        make().run(files(site, 2))


@pytest.fixture
def refused(monkeypatch):
    """Return a set for the names of threads that the system refuses to start, and the list of those that it did refuse."""
    start, names, seen = threading.Thread.start, set(), []

    def refusing_start(thread):
        if thread.name in names:
            seen.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing_start)
    return names, seen


def test_where_the_system_refuses_more_threads_those_that_run_do_the_work(make, site, monkeypatch, refused):
    names, seen = refused
    names |= {"download-3", "process-2"}
    monkeypatch.setattr(module, "PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(module, "QUICK_SECONDS", 0.0)
    engine = make(download_threads=4, processing_limit=4)
    engine.run(FileData(url=site.script(f"/{n}", slowly)) for n in range(8))
    assert [row.ok for row in engine.rows()] == [True] * 8
    assert "download-3" in seen


def slowly(handler):
    time.sleep(2 * module.LOOK_SECONDS)
    handler.send(200, b"a")


@pytest.mark.parametrize("name", ["download-1", "process-1"])
def test_a_system_without_any_thread_for_a_stage_ends_the_run(make, site, refused, name):
    refused[0].add(name)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        make().run(files(site, 2))


def test_an_error_of_the_source_ends_the_run(site, make):
    def source():
        yield from files(site, 3)
        raise EnvironmentStop("the catalog is gone")

    with pytest.raises(EnvironmentStop, match="the catalog is gone"):
        make().run(source())
