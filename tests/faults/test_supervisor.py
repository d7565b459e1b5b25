"""Tests of chunks whose files may kill the process that runs them."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from dpp import BasePostProcessor, BaseProcessor, ConfigurationError, EnvironmentStop, FileData, Settings, logs
from dpp.engine import activity
from dpp.engine.activity import Board
from dpp.engine.child import run_in_child
from dpp.engine.pipeline import Pipeline
from dpp.engine.supervisor import MAX_IDLE_LOOKS, Supervisor, Work, _ChildMonitor, supervised
from dpp.manifest.catalog import Chunk
from dpp.plugins.registry import registry
from dpp.plugins.steps import ConfiguredStep, Steps
from dpp.workspace.atomic import write_atomic
from dpp.workspace.ledger import read_ledger


def fork_and_raise() -> None:
    """Fork, and raise in the child, as code does that does not find the program to execute."""
    if not (child := os.fork()):
        raise FileNotFoundError("no such program")
    os.waitpid(child, 0)


def fork_and_return() -> None:
    """Fork, and return in both processes, in the child first; fail if the child ends otherwise than dpp ends it."""
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


LEFT = []


def leave_open(count: int) -> None:
    """Open files, and never close them."""
    LEFT.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(count))


def leave_running(count: int) -> None:
    """Start threads that never end."""
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


NOBODY = 65534
DEEDS = {
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "descriptors": lambda: leave_open(10_000),
    "few": lambda: leave_open(20),
    "threads": lambda: leave_running(100),
    "close": lambda: os.closerange(0, DESCRIPTORS),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY)),
    "mute": lambda: sys.stdout.close(),  # noqa: PLW0108 - pytest replaces sys.stdout later
    "print": lambda: print("a line"),  # noqa: T201 - what a step may do
    "setuid": lambda: os.setuid(NOBODY),
    "setgroups": lambda: os.setgroups([]),
    "chroot": lambda: os.chroot("/proc/self/fdinfo"),
    "folder": lambda: os.chdir("/proc"),
    "here": lambda: Path("here").touch(),
    "exit": lambda: os._exit(0),
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "killpg": lambda: os.killpg(0, signal.SIGKILL),
    "termpg": lambda: os.killpg(os.getpgrp(), signal.SIGTERM),
    "hang": lambda: time.sleep(600),
    "nap": lambda: time.sleep(0.1),
    "hog": lambda: re.match("(a+)+$", "a" * 60 + "b"),
    "memory": lambda: bytearray(2**62),
    "fork": fork_and_raise,
    "both": fork_and_return,
}


class Deed(BaseProcessor):
    """Do what the file's id names, and count the calls per file in a folder."""

    seen: str

    def process(self, file: FileData) -> str:
        """Process a file."""
        with open(f"{self.seen}/{file.id}", "a") as stream:
            stream.write("x")
        DEEDS.get(file.id.split("-")[0], int)()
        return file.id


class Tell(BasePostProcessor):
    """Record the outcome of a file; for some ids, kill the process."""

    seen: str

    def post_process(self, result, file: FileData) -> None:
        """Record the outcome."""
        with open(f"{self.seen}/told", "a") as stream:
            stream.write(json.dumps([file.id, file.error and file.error.error_class]) + "\n")
        if file.id.startswith("post") or (file.id.endswith("-post") and file.error):
            os._exit(0)


def supervised_run(files, ledger, make_pipeline, stage_timeout=0.0, **work):
    """Run files as one chunk."""
    supervisor = Supervisor(
        lambda _chunk, numbers: [files[number] for number in numbers], len(files), make_pipeline, stage_timeout=stage_timeout
    )
    with closing(supervisor):
        supervisor.run(Work(Chunk(0, len(files)), ledger, **work))


@pytest.fixture
def supervise(tmp_path):
    """Return a function that supervises files with these ids, and returns their outcomes by id."""
    seen = tmp_path / "seen"
    seen.mkdir()

    def run(*ids, on_progress=None, **values):
        settings = Settings(workspace=tmp_path / "w", **values)
        options = {"seen": str(seen)}
        steps = Steps([], ConfiguredStep("processor", Deed, options), [ConfiguredStep("post-processor", Tell, options)])
        for name in ids:
            (tmp_path / name).write_text(name)
        files = [FileData(url=(tmp_path / name).as_uri()) for name in ids]
        pipeline = lambda: Pipeline(settings, registry(), "b/1", steps)  # noqa: E731 - made anew in each process
        ledger = tmp_path / "ledger.jsonl"
        supervised_run(files, ledger, pipeline, settings.stage_timeout, **({"on_progress": on_progress} if on_progress else {}))
        return {outcome.id: outcome for outcome in read_ledger(ledger)}

    run.times = lambda name: len((seen / name).read_text())
    run.told = lambda: [json.loads(line) for line in (seen / "told").read_text().splitlines()]
    return run


class Leaves(BaseException):
    """What a step may raise that is no error of its file."""


class Blabs(BaseProcessor):
    """Tell the secrets of the file in a log line and in what the file's id names."""

    def process(self, file: FileData) -> None:
        """Process a file."""
        text = f"canaries: {file.url} {file.headers['X-Key']} {file.url.partition('=')[2]}"
        logging.getLogger("step").warning(text)
        raise {"leaves": Leaves, "stops": ConfigurationError, "fails": KeyError}[file.id](text)


@pytest.mark.parametrize("name", ["leaves", "stops", "fails"])
def test_no_line_of_a_run_has_a_secret_of_a_file(tmp_path, capfd, name):
    handler = logging.StreamHandler()
    handler.setFormatter(logs._Formatter())
    (tmp_path / "x").touch()
    file = FileData(url=f"{(tmp_path / 'x').as_uri()}?sig=canary-query", id=name, headers={"X-Key": "canary-header"})
    pipeline = lambda: Pipeline(Settings(workspace=tmp_path / "w"), registry(), "b/1", Steps([], ConfiguredStep("processor", Blabs, {})))  # noqa: E731
    with watching(handler), pytest.raises(ConfigurationError) if name == "stops" else nullcontext() as stopped:
        supervised_run([file], tmp_path / "ledger.jsonl", pipeline)
    ledger = (tmp_path / "ledger.jsonl.open" if stopped else tmp_path / "ledger.jsonl").read_text()
    told = f"{capfd.readouterr().err} {stopped and stopped.value} {ledger}"
    assert told.count("canaries: ") > 1
    assert "canary" not in told


@contextmanager
def watching(handler: logging.Handler) -> Iterator[None]:
    """Send all log lines to a handler."""
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


# A good file takes milliseconds, and must not reach this on a busy machine.
LIMIT = 5.0
GOOD = [f"good-{number}" for number in range(9)]


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("deed", "error_class"), [*((deed, "crashed") for deed in ("exit", "crash", "kill", "killpg", "termpg")), ("memory", "MemoryError")]
)
def test_what_kills_its_process_costs_that_file(supervise, seen, deed, error_class):
    outcomes = supervise(*GOOD[:4], deed, *GOOD[4:])
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == {deed}
    assert (outcomes[deed].stage, outcomes[deed].error_class, outcomes[deed].attempts <= 1) == ("process", error_class, True)
    assert [deed, error_class] in supervise.told()
    assert supervise.times(deed) == 2
    seen(f"{deed}: {outcomes[deed].error_class}, {len(GOOD)} others ok")


@pytest.mark.fault(30)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")
@pytest.mark.parametrize("deed", ["setuid", "chroot"])
def test_what_gives_away_the_rights_of_its_process_costs_that_file(supervise, tmp_path, seen, deed):
    outcomes = supervise(*GOOD[:4], deed, "setgroups", *GOOD[4:])
    assert {name: outcome.error_class for name, outcome in outcomes.items() if not outcome.ok} == {deed: "crashed"}
    assert "of its process" in outcomes[deed].message
    assert len(list((tmp_path / "w" / "reports").rglob("*.json"))) == len(outcomes) == len(GOOD) + 2
    seen(f"{deed}: {outcomes[deed].error_class}, {len(GOOD)} others ok")


@pytest.mark.fault(30)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")
def test_a_step_that_gives_rights_away_fails_in_a_process_of_its_own_too(tmp_path):
    target, file = tmp_path / "w" / "x.json", FileData(url="file:///x", id="x")

    def work():
        os.setuid(NOBODY)
        write_atomic(target, b"{}")

    target.parent.mkdir()
    tmp_path.chmod(0o700)
    assert supervised("process", file, work, 0.0).error_class == "crashed"
    target.parent.rmdir()
    target.parent.touch()
    with pytest.raises(EnvironmentStop, match="a file is in the way"):
        supervised("process", file, lambda: write_atomic(target, b"{}"), 0.0)


DESCRIPTORS = 256


@pytest.fixture
def few_descriptors():
    """Limit the open files of this process and its children."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.fault(34)
@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize(("deed", "message"), [("descriptors", "too many open files"), ("limit", "File too large")])
def test_what_takes_descriptors_or_file_sizes_from_its_process_costs_that_file(supervise, seen, deed, message):
    outcomes = supervise(*GOOD[:4], deed, *GOOD[4:])
    assert {name: outcome.error_class for name, outcome in outcomes.items() if not outcome.ok} == {deed: "crashed"}
    assert message in outcomes[deed].message
    seen(f"{deed}: {outcomes[deed].error_class}, {len(GOOD)} others ok")


@pytest.mark.fault(34)
@pytest.mark.usefixtures("few_descriptors")
def test_a_step_that_closes_descriptors_of_others_costs_no_other_file(supervise):
    outcomes = supervise(*GOOD[:4], "close", *GOOD[4:])
    assert {name for name, outcome in outcomes.items() if not outcome.ok} <= {"close"}
    assert len(outcomes) == len(GOOD) + 1


@pytest.mark.fault(34)
@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("deed", ["few", "threads", "folder"])
def test_what_files_leave_behind_costs_no_file(supervise, seen, deed):
    count = 30 if deed == "few" else 6
    outcomes = supervise(*(f"{deed}-{number}" for number in range(count)), *GOOD, processing_limit=1)
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == set()
    assert len(outcomes) == count + len(GOOD)
    seen(f"{deed} left behind by each file: all ok")


@pytest.mark.fault(34)
def test_a_step_that_closes_standard_output_or_changes_the_folder_costs_no_other_file(supervise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = [f"{deed}-{number}" for number in range(5) for deed in ("print", "here")]
    outcomes = supervise("mute", "folder", *others, processing_limit=1)
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == set()
    assert (tmp_path / "here").exists()


@pytest.mark.fault(30)
@pytest.mark.parametrize("deed", ["fork", "both"])
def test_a_processor_that_forks_comes_back_once(supervise, tmp_path, seen, deed):
    outcomes = supervise(*GOOD[:2], deed, *GOOD[2:])
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == set()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == len(GOOD) + 1
    assert [name for name, _ in supervise.told()].count(deed) == 1
    seen("fork: its child ends, the file is ok, once")


@pytest.mark.fault(30)
def test_a_file_that_hangs_is_stopped_and_what_ran_beside_it_is_run_again(supervise, seen):
    outcomes = supervise(*GOOD[:3], "hang", *GOOD[3:], stage_timeout=LIMIT)
    assert {name for name, outcome in outcomes.items() if not outcome.ok} == {"hang"}
    assert (outcomes["hang"].error_class, outcomes["hang"].message) == ("timeout", "took longer than --stage-timeout 5 s and was stopped")
    assert "in process" in outcomes["hang"].traceback
    # Once, if the machine is fast enough to show that only this file hangs.
    assert supervise.times("hang") <= 2
    seen("hang: timeout, with the stacks of its threads")


@pytest.mark.fault(30)
def test_a_file_that_keeps_all_others_waiting_is_the_only_one_to_fail(supervise, seen):
    naps = [f"nap-{number}" for number in range(9)]
    outcomes = supervise(*naps[:3], "hog", *naps[3:], stage_timeout=LIMIT)
    assert {name: outcome.error_class for name, outcome in outcomes.items() if not outcome.ok} == {"hog": "timeout"}
    assert len(outcomes) == len(naps) + 1
    seen(f"hold Python's lock: timeout, {len(naps)} others ok")


@pytest.mark.fault(30)
def test_finished_work_is_not_repeated(supervise):
    outcomes = supervise(*GOOD, "exit-1", "crash-2", "kill-3", processing_limit=1, download_threads=1)
    assert sum(outcome.ok for outcome in outcomes.values()) == len(GOOD)
    assert [supervise.times(name) for name in GOOD] == [1] * len(GOOD)
    assert len(outcomes) == len(GOOD) + 3


@pytest.mark.fault(30)
@pytest.mark.parametrize("name", ["post-1", "exit-post"])
def test_a_post_processor_that_kills_its_process_costs_that_file(supervise, name):
    outcomes = supervise(*GOOD[:2], name, *GOOD[2:])
    assert {outcome.id for outcome in outcomes.values() if not outcome.ok} == {name}
    assert outcomes[name].error_class == "crashed"


def test_progress_goes_on_over_deaths(supervise):
    told = []
    supervise(*GOOD, "exit", on_progress=lambda done, failed: told.append((done, failed)))
    assert told[-1] == (10, 1)
    assert told == sorted(told)


@pytest.mark.fault(30)
def test_files_that_interrupt_their_process_do_not_stop_the_others(supervise):
    outcomes = supervise(*GOOD, *(f"interrupt-{number}" for number in range(5)), processing_limit=1, download_threads=1)
    assert [outcomes[name].ok for name in GOOD] == [True] * len(GOOD)
    assert len(outcomes) == len(GOOD) + 5


def test_a_process_that_does_nothing_between_two_files_is_stopped(monkeypatch):
    monkeypatch.setattr(activity, "STALL_SECONDS", 0.0)
    board = Board(2)
    monitor = _ChildMonitor(board, 0.0, lambda _board: None)
    assert [monitor.look() for _ in range(2 * MAX_IDLE_LOOKS)] == [""] * 2 * MAX_IDLE_LOOKS
    board.ended(0, ok=True)
    said = [monitor.look() for _ in range(MAX_IDLE_LOOKS + 1)]
    assert (set(said[:-1]), said[-1]) == ({""}, "stopped working between two files")
    board.runs(1, "process")
    assert monitor.look() == ""


def test_processes_that_die_at_no_file_stop_the_run(tmp_path):
    def die():
        os._exit(5)

    file = FileData(url="file:///etc/hostname")
    with pytest.raises(EnvironmentStop, match="crashed 3 times in a row, outside of any file's stage; the last one exited with code 5"):
        supervised_run([file], tmp_path / "l.jsonl", die)


def test_a_process_that_hangs_after_its_last_file_is_stopped_and_no_file_run_again(tmp_path):
    class HangsOnce(Pipeline):
        def close(self):
            if not (tmp_path / "hung").exists():
                (tmp_path / "hung").touch()
                time.sleep(600)

    steps = Steps([], ConfiguredStep("processor", Deed, {"seen": str(tmp_path)}))
    pipeline = lambda: HangsOnce(Settings(workspace=tmp_path / "w"), registry(), "b/1", steps)  # noqa: E731
    (tmp_path / "content").touch()
    file = FileData(url=(tmp_path / "content").as_uri(), id="good")
    supervised_run([file], tmp_path / "ledger.jsonl", pipeline, LIMIT)
    assert [outcome.status for outcome in read_ledger(tmp_path / "ledger.jsonl")] == ["ok"]
    assert (tmp_path / "good").read_text() == "x"


def test_what_kills_the_process_of_one_file_is_tried_twice(tmp_path):
    def once():
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            os._exit(0)

    file = FileData(url="http://me:canary-password@host/x?sig=canary-query", headers={"X-Key": "canary-header"})
    assert supervised("process", file, once, 0.0) is None
    failure = supervised("process", file, lambda: os._exit(0), 0.0)
    assert (failure.stage, failure.error_class) == ("process", "crashed")
    assert supervised("process", file, lambda: time.sleep(600), 0.3).error_class == "timeout"
    told = supervised("process", file, lambda: int(f"{file.url} {file.headers}"), 0.0).model_dump_json()
    assert "ValueError" in told
    assert "canary" not in told


def test_a_board_is_read_by_the_parent_of_who_wrote_it():
    board = Board(3)

    def work():
        board.runs(0, "download")
        board.runs(2, "process")
        board.runs(1, "download")
        board.ended(1, ok=False)
        os._exit(0)

    assert run_in_child(work)
    assert {number: place.stage for number, place in board.running().items()} == {0: "download", 2: "process"}
    assert board.totals() == (1, 1)
