"""Tests of atomic writes: a final name always has the complete content."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from dpp import EnvironmentStop
from dpp.streams import write_all
from dpp.workspace.atomic import (
    publishing,
    read_json,
    stops_run,
    temporary_name,
    write_atomic,
    write_json,
    write_stream,
)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_small_files_appear_whole_and_leave_nothing_beside_them(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "x", b"one")
    write_atomic(tmp_path / "a" / "b" / "x", b"two")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"two"
    assert left_in(tmp_path / "a" / "b") == ["x"]


def test_a_name_without_a_folder_is_written_where_the_process_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomic("x", b"one")
    assert Path(temporary_name("x")).absolute().parent == tmp_path
    assert left_in(tmp_path) == ["x"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(EnvironmentStop, match=r"cannot write .*/x: Is a directory\. Fix this and run"):
        write_atomic(tmp_path / "x", b"data")
    assert left_in(tmp_path) == ["x"]


def test_threads_that_write_one_name_do_not_mix(tmp_path):
    texts = [bytes([n]) * 100_000 for n in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "x", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() in texts
    assert left_in(tmp_path) == ["x"]


def test_json_comes_back(tmp_path):
    value = {"ü": [1, None, "🙂"], "x": 1.5}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_is_not_written(tmp_path, value):
    with pytest.raises((TypeError, ValueError)):
        write_json(tmp_path / "x.json", value)
    assert not left_in(tmp_path)


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\xff\xfe\x00", b"[" * 100_000, None])
def test_a_json_file_that_is_missing_or_torn_is_none(tmp_path, data):
    if data is not None:
        (tmp_path / "x.json").write_bytes(data)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path) is None


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EMFILE, r"this process has too many open files \(see ulimit -n\)"),
        (errno.EACCES, "permission denied"),
        (errno.ENOTDIR, "a file is in the way"),
        (errno.ELOOP, os.strerror(errno.ELOOP)),
    ],
)
def test_an_error_on_our_own_files_stops_the_run(number, reason):
    error = OSError(number, os.strerror(number))
    with (
        pytest.raises(EnvironmentStop, match=rf"^cannot write /w/x: {reason}\. Fix this and run the same command again") as caught,
        stops_run(Path("/w/x")),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_an_error_without_a_number_keeps_its_words():
    with pytest.raises(EnvironmentStop, match="strange"), stops_run(Path("x")):
        raise OSError("strange")


def test_a_full_disk_is_said(tmp_path):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(EnvironmentStop, match="the disk is full"), stops_run(tmp_path):
        write_all(descriptor, b"x")
    os.close(descriptor)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_is_written_however_little_a_call_takes(blocking):
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    data = os.urandom(1_000_000)
    thread = threading.Thread(target=lambda: (write_all(writer, data), os.close(writer)))
    thread.start()
    with open(reader, "rb") as stream:
        assert stream.read() == data
    thread.join()


@pytest.mark.parametrize("place", ["file", "file/below", "dangling", "/proc/nothing"])
def test_a_place_that_can_not_be_written_to_stops_the_run(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "file" / "x")
    with pytest.raises(EnvironmentStop, match="cannot write"):
        write_atomic(tmp_path / place / "x", b"")


def test_a_folder_is_published_as_a_whole_in_place_of_the_old(tmp_path):
    final = tmp_path / "a" / "made"
    for name in ("old", "new"):
        with publishing(final) as folder:
            (folder / name).write_text(name)
            assert not (final / name).exists()
    assert left_in(final) == ["new"]
    assert left_in(final.parent) == ["made"]


def test_a_block_that_fails_publishes_nothing(tmp_path):
    with publishing(tmp_path / "made") as folder:
        (folder / "old").write_text("")
    with pytest.raises(IsADirectoryError), publishing(tmp_path / "made") as folder:
        folder.write_text("")
    assert left_in(tmp_path) == ["made"]
    assert left_in(tmp_path / "made") == ["old"]


def test_a_folder_that_can_not_be_published_stops_the_run(tmp_path):
    (tmp_path / "made").write_text("a file of this name")
    with pytest.raises(EnvironmentStop, match="a file is in the way"), publishing(tmp_path / "made"):
        pass
    assert left_in(tmp_path) == ["made"]


def test_a_stream_is_written_as_a_whole_or_not_at_all(tmp_path):
    write_stream(tmp_path / "a", [b"1\n", b"2\n"], durable=True)
    with pytest.raises(ZeroDivisionError):
        write_stream(tmp_path / "a", (b"%d" % (1 // n) for n in (1, 0)))
    assert (tmp_path / "a").read_bytes() == b"1\n2\n"
    assert left_in(tmp_path) == ["a"]


def test_a_stream_that_can_not_be_written_stops_the_run(tmp_path):
    with pytest.raises(EnvironmentStop, match="cannot write"):
        write_stream(tmp_path / "missing" / "a", [])
