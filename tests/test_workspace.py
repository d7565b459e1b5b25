"""The workspace: where targets lie, and that a final name is always whole."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
from dpp import EnvironmentStop, FileData
from dpp.workspace import (
    DownloadPaths,
    Workspace,
    is_fatal,
    publishing,
    read_json,
    stops_run,
    temporary_name,
    write_all,
    write_atomic,
    write_json,
    write_stream,
)

FILE = FileData(url="https://me:pw@h/data/a.tar.gz?sig=1", id="My id")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def all_of(paths: DownloadPaths) -> list[str]:
    return [getattr(paths, field) for field in DownloadPaths.__slots__]


def test_targets_lie_where_the_design_says():
    space = Workspace(Path("/w"))
    paths = space.download(FILE)
    key = Path(paths.folder).name
    assert paths.folder == f"/w/downloads/{key[-16:-14]}/{key}"
    assert [paths.body, paths.sidecar, paths.part, paths.part_facts] == [
        f"{paths.folder}/{name}" for name in ("a.tar.gz", "a.tar.gz.dpp.json", "a.tar.gz.part", "a.tar.gz.part.dpp.json")
    ]
    made, result, report = (Path(path) for path in (space.pre_processed("f0", FILE), space.processed("f1", FILE), space.report("f2", FILE)))
    assert made.parent.parent == Path("/w/pre_processed/f0")
    assert (result, report) == (
        Path("/w/processed/f1", made.parent.name, f"{made.name}.json"),
        Path("/w/reports/f2", made.parent.name, f"{made.name}.json"),
    )
    assert made.name.startswith("my-id-")
    assert space.batch("b") == Path("/w/batches/b")


def test_files_of_one_url_share_a_download_and_nothing_else():
    space, other = Workspace(Path("/w")), FILE.model_copy(update={"id": "my ID"})
    assert all_of(space.download(FILE)) == all_of(space.download(other))
    assert space.report("f", FILE) != space.report("f", other)


@pytest.mark.parametrize(("name", "expected"), [("a.tar", "a.tar.gz"), ("given.csv", "given.csv"), ("../x", "_x"), ("x.part", "x.part_")])
def test_a_download_has_the_given_name_or_that_of_its_url(name, expected):
    assert Workspace(Path("/w")).download(FILE.model_copy(update={"name": name})).body.rpartition("/")[2] == expected


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
    with pytest.raises(EnvironmentStop, match=r"cannot write .*/x: Is a directory\. Nothing is lost"):
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
    ("number", "reason", "fatal"),
    [
        (errno.ENOSPC, "the disk is full", True),
        (errno.EDQUOT, "the disk quota is used up", True),
        (errno.EMFILE, r"this process may open no more files \(ulimit -n\)", True),
        (errno.EACCES, "permission denied", False),
        (errno.ENOTDIR, "a file is in the way", False),
        (errno.ELOOP, os.strerror(errno.ELOOP), False),
    ],
)
def test_an_error_on_our_own_files_stops_the_run(number, reason, fatal):
    error = OSError(number, os.strerror(number))
    with (
        pytest.raises(EnvironmentStop, match=rf"^cannot write /w/x: {reason}\. Nothing is lost: mend that") as caught,
        stops_run(Path("/w/x")),
    ):
        raise error
    assert caught.value.__cause__ is error
    assert is_fatal(error) is fatal


def test_an_error_without_a_number_keeps_its_words():
    with pytest.raises(EnvironmentStop, match="strange"), stops_run(Path("x")):
        raise OSError("strange")


def test_a_full_disk_is_said(tmp_path):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(EnvironmentStop, match="the disk is full"), stops_run(tmp_path):
        write_all(descriptor, b"x")
    os.close(descriptor)


def test_all_is_written_however_little_a_call_takes():
    reader, writer = os.pipe()
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


def test_one_download_is_held_by_one_alone(tmp_path):
    paths, order = Workspace(tmp_path).download(FILE), []
    waits = threading.Thread(target=lambda: hold(paths, order))
    with paths.lock():
        waits.start()
        waits.join(0.2)
        assert waits.is_alive()
        order.append("first")
    waits.join(10)
    assert order == ["first", "second"]


def hold(paths, order) -> None:
    with paths.lock():
        order.append("second")


def test_a_lock_tells_whether_there_is_nothing_of_a_download(tmp_path):
    paths, found = Workspace(tmp_path).download(FILE), []
    for _ in range(2):
        with paths.lock() as is_empty:
            found.append(is_empty)
            Path(paths.part).touch()
    assert found == [True, False]


def test_a_lock_that_can_not_be_had_stops_the_run(tmp_path):
    (tmp_path / "downloads").write_text("")
    with pytest.raises(EnvironmentStop, match="a file is in the way"), Workspace(tmp_path).download(FILE).lock():
        pass


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


@pytest.fixture
def dead_pid():
    """The id of a process that is dead but was not waited for, as those of a killed group can stay for a while."""
    process = subprocess.Popen(["true"])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()
    yield process.pid
    process.wait()


def test_sweep_removes_what_dead_processes_left_and_nothing_else(tmp_path, dead_pid):
    workspace = Workspace(tmp_path / "w")
    target = tmp_path / "w" / "reports" / "aa" / "a.json"
    write_atomic(target, b"{}")
    mine = Path(temporary_name(target))
    abandoned = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead_pid}-"))
    folder = abandoned.with_name(abandoned.name.replace("a.json", "b"))
    elsewhere = abandoned.with_name(re.sub(r"\.[0-9a-f]{6}-", ".000000-", abandoned.name))
    for path in (mine, abandoned, elsewhere):
        path.touch()
    (folder / "inner").mkdir(parents=True)
    part = tmp_path / "w" / "downloads" / "aa" / "a" / "a.part"
    write_atomic(f"{part}.dpp.json", b"{}")
    write_atomic(part.with_name("b.part"), b"")
    write_atomic(part.with_name("b.part.dpp.json"), b"{}")
    workspace.sweep()
    assert sorted(target.parent.iterdir()) == sorted([target, mine, elsewhere])
    assert left_in(part.parent) == ["b.part", "b.part.dpp.json"]


def test_a_stream_is_written_as_a_whole_or_not_at_all(tmp_path):
    write_stream(tmp_path / "a", [b"1\n", b"2\n"], durable=True)
    with pytest.raises(ZeroDivisionError):
        write_stream(tmp_path / "a", (b"%d" % (1 // n) for n in (1, 0)))
    assert (tmp_path / "a").read_bytes() == b"1\n2\n"
    assert left_in(tmp_path) == ["a"]


def test_a_stream_that_can_not_be_written_stops_the_run(tmp_path):
    with pytest.raises(EnvironmentStop, match="cannot write"):
        write_stream(tmp_path / "missing" / "a", [])
