"""Tests of the board of a process, and of the snapshots that its supervisor writes from it."""

from __future__ import annotations

import os
import threading

import pytest
from dpp.engine.activity import Board, SnapshotWriter
from dpp.engine.snapshot import read_snapshots
from dpp.manifest.catalog import Chunk, read_catalog
from dpp.models import FileData


@pytest.fixture
def files():
    return [FileData(url=f"file:///f{number}") for number in range(6)]


def picked(files):
    return lambda numbers: {number: files[number] for number in numbers}


@pytest.fixture
def board():
    """Return a board of six files: two in a stage, one waiting, one done, two not started."""
    made = Board(6)
    for number in range(4):
        made.runs(number, "download")
    made.waits(1, "process")
    made.runs(2, "process")
    made.ended(3, ok=True)
    return made


def test_a_snapshot_counts_files_by_stage_the_slowest_first(board, files, tmp_path):
    told = SnapshotWriter(tmp_path / "0.json", picked(files), lambda file: 7).snapshot(board)
    assert (told.running, told.waiting, told.bytes, told.pid) == ({"download": 1, "process": 1}, {"process": 1}, 7, os.getpid())
    assert [(slow.id, slow.bytes) for slow in told.slowest] == [("f0", 7), ("f2", 0)]


def test_only_files_in_a_stage_are_read_and_a_waiting_one_is_found_later(board, files, tmp_path):
    seen = []
    writer = SnapshotWriter(tmp_path / "0.json", lambda numbers: seen.append([*numbers]) or picked(files)(seen[-1]), lambda file: 0)
    writer.snapshot(board)
    board.ended(0, ok=True)
    board.ended(2, ok=False)
    board.runs(1, "process")
    board.runs(5, "download")
    assert sorted(slow.id for slow in writer.snapshot(board).slowest) == ["f1", "f5"]
    assert seen == [[0, 2], [1, 5]]
    assert board.totals() == (3, 1)


def test_a_suspect_is_no_slow_file(board, files, tmp_path):
    board.mark_suspect(0)
    told = SnapshotWriter(tmp_path / "0.json", picked(files), lambda file: 0).snapshot(board)
    assert ([slow.id for slow in told.slowest], told.running["download"]) == (["f2"], 1)


def test_a_snapshot_is_written_when_it_is_due(board, files, tmp_path, monkeypatch):
    monkeypatch.setattr("dpp.engine.activity.FIRST_SECONDS", -1.0)
    writer = SnapshotWriter(tmp_path / "0.json", picked(files), lambda file: 0)
    writer.write(board)
    (first,) = read_snapshots(tmp_path)
    board.ended(0, ok=True)
    writer.write(board)
    assert [*read_snapshots(tmp_path)] == [first]


def test_a_catalog_that_another_process_removed_or_replaced_is_no_error(board, tmp_path, monkeypatch):
    monkeypatch.setattr("dpp.engine.activity.FIRST_SECONDS", -1.0)
    catalog = tmp_path / "files.jsonl"
    writer = SnapshotWriter(
        tmp_path / "0.json", lambda numbers: dict(zip(numbers, read_catalog(catalog, Chunk(0, 6), numbers), strict=True)), lambda file: 0
    )
    for content in (None, b"", b"{}\n"):
        if content is not None:
            catalog.write_bytes(content)
        writer.write(board)
        writer._due = 0.0
    assert [*read_snapshots(tmp_path)] == []


def test_a_child_that_works_on_while_snapshots_are_made_does_not_disturb_them(tmp_path):
    board = Board(20_000)
    files = [FileData(url=f"file:///f{number}") for number in range(board.size)]

    def work():
        for number in range(board.size):
            board.runs(number, "download")
            if number >= 8:
                board.ended(number - number % 8, ok=True)
            board.ended(number, ok=True)

    worker = threading.Thread(target=work)
    worker.start()
    writer = SnapshotWriter(tmp_path / "0.json", picked(files), lambda file: 0)
    while worker.is_alive():
        writer.snapshot(board)
    assert writer.snapshot(board).running == {}
