"""The state of a run, read from its folder, and the lines that show it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import time

import pytest
from dpp.batch.run import Run
from dpp.engine.snapshot import Slow, Snapshot, keep_snapshot, read_snapshots
from dpp.models import FileData, Outcome
from dpp.monitor.state import Failed, Ledgers, RunFollower, StageState, State
from dpp.monitor.terminal import frame, middle
from dpp.monitor.viewer import JsonDisplay, Viewer, follow
from dpp.plugins.registry import registry
from dpp.settings import Settings
from dpp.workspace.ledger import Ledger, Record
from rich.cells import cell_len

NOBODY = 2**22 + 1  # above the highest process id of Linux, so that no process has it


def outcome(number, status="ok", **fields):
    return Outcome(id=f"f{number}", name="n", url="file:///n", key=f"k{number}", status=status, **fields)


@pytest.fixture
def run(tmp_path):
    """Make the folder of a run of ten files, with a pre-processor and no post-processor."""
    folder = tmp_path / "batches" / "b" / "runs" / "1"
    (tmp_path / "batches" / "b" / "manifest" / "progress").mkdir(parents=True)
    folder.mkdir(parents=True)
    plugins = [{"kind": "pre-processor"}, {"kind": "processor"}]
    (folder / "run.json").write_text(json.dumps({"total": 10, "started_at": time.time() - 60, "plugins": plugins}))
    return Run(folder, registry())


def rows(state):
    return [(stage.name, stage.done, stage.running, stage.waiting, stage.failed) for stage in state.stages]


def test_each_line_of_the_ledgers_is_read_once(tmp_path):
    followed = Ledgers(tmp_path / "chunks")
    assert list(followed.news()) == []
    ledger = Ledger(tmp_path / "chunks" / "0.jsonl")
    ledger.append(Record.of(outcome(1)))
    assert [row["id"] for row, _ in followed.news()] == ["f1"]
    (line,) = [outcome(2).model_dump_json().encode()]
    with (tmp_path / "chunks" / "0.jsonl.open").open("ab") as stream:
        stream.write(line[:20])
        stream.flush()
        assert list(followed.news()) == []
        stream.write(line[20:] + b"\n")
    ledger.append(Record.of(outcome(1)))
    ledger.finish()
    assert [row["id"] for row, _ in followed.news()] == ["f2"]
    assert list(followed.news()) == []


def test_a_file_that_is_done_before_anybody_looks_is_told_too(run):
    Ledger(run.ledger("0")).append(Record.of(outcome(1)))
    reader, writer = os.pipe()
    follow(RunFollower(run), JsonDisplay(writer), lambda: True)
    os.close(writer)
    with open(reader) as told:
        assert [json.loads(line)["id"] for line in told] == ["f1"]


def test_what_a_viewer_that_had_to_be_killed_has_drawn_is_taken_away(run, monkeypatch):
    monkeypatch.setattr("dpp.monitor.viewer.VIEWER_END_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    master, slave = os.openpty()
    with open(master, "rb", buffering=0) as shown, open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        viewer = Viewer(run, Settings())
        read_to(shown, b"waiting")
        os.kill(viewer._helper.pid, signal.SIGSTOP)
        viewer.stop()
        terminal.write("the end")
        terminal.flush()
        assert read_to(shown, b"the end").endswith(b"\r\x1b[Jthe end")


def read_to(stream, end):
    data = b""
    while end not in data:
        data += stream.read(10_000)
    return data


def test_what_has_no_outcome_yet_is_where_the_snapshots_say(run):
    ledger = Ledger(run.ledger("0"))
    for done in (outcome(1), outcome(2, cached=True), outcome(3, "failed", stage="download"), outcome(4, "failed", stage="process")):
        ledger.append(Record.of(done))
    ledger.close()
    keep_snapshot(run.snapshot("0"), Snapshot(running={"download": 2, "process": 1}, waiting={"pre-process": 1}))
    state, lines = RunFollower(run).look()
    assert rows(state) == [("download", 5, 2, 2, 1), ("pre-process", 4, 0, 1, 0), ("process", 2, 1, 0, 1)]
    assert (state.ok, state.cached, state.failed, state.done, state.percent, len(lines)) == (2, 1, 2, 4, 40, 4)
    assert state.seconds >= 60


def test_a_process_that_died_is_at_nothing(run):
    slow = Slow(id="f1", stage="download", since=time.time() - 9, bytes=5)
    keep_snapshot(run.snapshot("0"), Snapshot(pid=NOBODY, running={"download": 2}, slowest=[slow], bytes=5))
    keep_snapshot(run.snapshot("1"), Snapshot(running={"download": 1}, slowest=[slow], bytes=7))
    state, _ = RunFollower(run).look()
    assert (state.stages[0].running, state.stages[0].waiting, state.bytes, len(state.slowest)) == (1, 9, 7, 1)


@pytest.mark.fault(18)
@pytest.mark.parametrize("by", [-86400, 86400])
def test_a_jump_of_the_clock_does_not_make_a_file_slow(run, monkeypatch, by):
    monkeypatch.setattr("dpp.batch.run.SNAPSHOT_SECONDS", 0.0)
    with run.at_task(FileData(url="file:///n"), "download", "process") as show:
        now = time.time() + by
        monkeypatch.setattr(time, "time", lambda: now)
        show(5)
        (snapshot,) = read_snapshots(run.snapshot("0").parent)
        assert 0 <= now - snapshot.slowest[0].since < 3600


def test_a_run_that_has_ended_by_the_time_its_snapshots_are_looked_for_has_none(tmp_path):
    assert list(read_snapshots(tmp_path / "forgotten")) == []


def test_files_that_were_done_before_are_in_no_rate(run):
    follower = RunFollower(run)
    follower.look()
    ledger = Ledger(run.ledger("0"))
    for number in range(5):
        ledger.append(Record.of(outcome(number, cached=True, bytes=10)))
    assert follower.look()[0].rate == 0
    ledger.append(Record.of(outcome(6, bytes=10)))
    ledger.close()
    state, _ = follower.look()
    assert state.rate > 0
    assert (state.bytes, state.seconds_left) == (10, None)


def test_a_rate_is_told_also_where_nobody_looked_for_longer_than_it_counts(run, monkeypatch):
    monkeypatch.setattr("dpp.monitor.state.WINDOW_SECONDS", 0.0)
    follower = RunFollower(run)
    follower.look()
    Ledger(run.ledger("0")).append(Record.of(outcome(1)))
    assert follower.look()[0].rate > 0


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"ok": 3}, "3 of 2,000 files (0 %), 0 failed"),
        (
            {"ok": 1169, "failed": 31, "rate": 410.4, "byte_rate": 1.6 * 2**20, "seconds_left": 2.2},
            "1,200 of 2,000 files (60 %), 31 failed, 410 files/s, 1.6 MiB/s, 2 s left",
        ),
        ({"ok": 4, "rate": 0.25, "seconds_left": 7984}, "4 of 2,000 files (0 %), 0 failed, 0.25 files/s, 2 h 13 min left"),
    ],
    ids=["beginning", "middle", "slow"],
)
def test_a_state_in_one_line(fields, line):
    assert State("b", 1, 2000, **fields).line() == line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [1, 8, 20, 43, 59, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_none_too_many(width, encoding):
    stages = [StageState(name, 123_456, 8, 1, 9) for name in ("download", "pre-process", "process", "post-process")]
    slow = [Slow(id="日本語のとても長いファイル名" * 9, stage="download", since=time.time() - 100, bytes=9**9)]
    failures = [Failed("\x1b[31mx" * 30, "process", "ValueError", "two\nlines " * 30)]
    state = State("b" * 90, 1, 200_000, ok=123_456, failed=9, rate=10.0, byte_rate=9e9, stages=stages, slowest=slow, failures=failures)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    lines = [strip(line) for line in frame(state, stream, width, 24)]
    assert max(map(cell_len, lines)) <= max(1, width - 1)
    assert not [line for line in lines if "\x1b" in line]
    assert encoding == "utf-8" or not set("".join(lines)) & set("…━╸╺·")
    assert len(frame(state, stream, width, 3)) == 3


def strip(line):
    """Return a line without its colors."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [("short", 5, "short"), ("abcdefghij", 5, "ab…ij"), ("日本語日本語", 6, "日…語"), ("abc", 1, "…"), ("abc", 0, "…")],
)
def test_what_is_too_long_is_left_out_in_the_middle(text, cells, shown):
    assert middle(text, cells) == shown
