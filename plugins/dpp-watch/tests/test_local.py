"""Tests of a local folder: its files, its events, and who writes to a file."""

from __future__ import annotations

import errno
import os
import time

import pytest

from dpp_watch import local
from dpp_watch.inotify import Event, Inotify
from dpp_watch.local import LocalFolder
from dpp_watch.rules import Rules


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    return made


@pytest.fixture
def opened(folder):
    """Return a function that opens the folder with rules."""

    def open_folder(**rules):
        places.append(LocalFolder(folder, Rules(**rules)))
        return places[-1]

    places = []
    yield open_folder
    for place in places:
        place.close()


@pytest.fixture
def scanned(opened):
    """Return a function that lists the files that are taken."""
    return lambda **rules: sorted(found.path for found in opened(**rules).scan())


def test_a_scan_finds_regular_files_only(folder, scanned):
    (folder / "a.txt").write_text("a")
    (folder / "link").symlink_to("a.txt")
    (folder / "folder").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    (folder / "sub/b.txt").write_text("b")
    assert scanned() == ["a.txt"]
    assert scanned(recursive=True) == ["a.txt", "sub/b.txt"]


def test_a_name_that_is_not_utf_8_is_reported_once(folder, caplog, opened):
    (folder / os.fsdecode(b"\xff.txt")).write_text("x")
    place = opened()
    assert [*place.scan(), *place.scan()] == []
    assert [record.message for record in caplog.records] == [r"b'\xff.txt': the name is not UTF-8, so the file is skipped; rename it"]


def test_the_age_is_that_of_the_last_change_of_the_inode(folder, opened):
    (folder / "a.txt").write_text("a")
    os.utime(folder / "a.txt", (0, 0))
    assert opened().look("a.txt").age < 60


def test_a_file_that_is_open_for_writing_is_not_complete(folder, opened):
    place = opened()
    with (folder / "a.txt").open("w"):
        assert place.is_written("a.txt")
    assert not place.is_written("a.txt")
    with (folder / "a.txt").open():
        assert not place.is_written("a.txt")


def test_events_name_what_was_written_moved_linked_and_made(folder, tmp_path, opened):
    place = opened(recursive=True)
    assert [*place.scan()] == []
    (folder / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    os.link(tmp_path / "b.txt", folder / "linked")
    (tmp_path / "b.txt").rename(folder / "b.txt")
    (folder / "sub").mkdir()
    assert {*place.events()} == {Event("a.txt"), Event("linked"), Event("b.txt"), Event("sub", is_folder=True)}
    assert [*place.scan("sub")] == []
    (folder / "sub/c.txt").touch()
    assert {*place.events()} == {Event("sub/c.txt")}


def test_a_burst_that_overflows_the_queue_is_noticed(folder):
    inotify = Inotify()
    inotify.add(str(folder), "")
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as stream:
        limit = int(stream.read())
    for number in range(limit):
        # Equal events that follow each other are one, so the names differ.
        os.close(os.open(folder / f"{number % 1000}", os.O_CREAT | os.O_WRONLY))
    assert any(event.is_overflow for event in inotify.read())
    inotify.close()


def test_without_watches_the_folder_is_only_scanned(folder, caplog, monkeypatch, opened):
    (folder / "a.txt").write_text("a")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Inotify, "add", refuse)
    place = opened()
    assert [found.path for found in [*place.scan(), *place.scan()]] == ["a.txt", "a.txt"]
    assert place.descriptor is None
    (record,) = caplog.records
    assert record.message == (
        f"{folder}: no inotify watches are left (sysctl fs.inotify.max_user_watches); the folder is only scanned, every 60 s"
    )


def test_a_network_file_system_is_only_scanned_and_its_clock_not_trusted(folder, caplog, monkeypatch, opened):
    monkeypatch.setattr(local, "file_system", lambda _: "nfs4")
    (folder / "a.txt").write_text("a")
    place = opened()
    assert (place.descriptor, place.look("a.txt").age) == (None, None)
    assert [record.message for record in caplog.records] == [
        f"{folder}: nfs4 reports no events of other machines; the folder is only scanned, every 60 s"
    ]


def test_the_type_of_the_file_system_is_found(folder):
    assert local.file_system(folder)


def test_files_that_vanish_during_a_scan_are_skipped(folder, opened):
    for name in "abc":
        (folder / name).write_text("x")
    place = opened()
    began, found = time.time(), []
    for one in place.scan():
        found.append(one)
        for name in "abc":
            (folder / name).unlink(missing_ok=True)
    assert len(found) == 1
    assert found[0].age <= time.time() - began + 60
